"""The outputs that are the same for every image, and what metrics make of them."""

import flax.linen as nn
import numpy as np
import pytest
from support.task_samples import SIZE, sample
from support.tasks import assert_same, hide, rows

from mtljax import parallel
from mtljax.data import Arrays
from mtljax.evaluation import constant_predictor
from mtljax.evaluation.evaluator import Evaluator
from mtljax.tasks import TASKS, Depth, Regression, Saliency, Task

TRAIN, TEST = 40, 23
wide = lambda x: np.asarray(x, np.float64)
softmax = lambda x: np.exp(wide(x)) / np.exp(wide(x)).sum(-1, keepdims=True)
sigmoid = lambda x: 1 / (1 + np.exp(-wide(x)))


def split(s, seed):
    """Half of a sample is unlabelled, with garbage in place of the labels."""
    name, count = s.task.name, len(s.outputs)
    present = np.random.default_rng(seed).random(count) < 0.5
    images = np.zeros((count, *SIZE, 3), np.float32)
    return Arrays(images, {name: hide(s.labels, present)}, {name: present})


def frequencies(labels, count):
    seen, times = np.unique(labels, return_counts=True)
    shares = np.ones(count)
    shares[seen] += times
    return shares / shares.sum()


def classification(task, labels, output):
    assert output.argmax() == np.bincount(labels).argmax()
    np.testing.assert_allclose(softmax(output), frequencies(labels, 5), rtol=1e-6)


def regression(task, labels, output):
    np.testing.assert_allclose(output, np.mean(wide(labels), 0), rtol=1e-6)


def multilabel(task, labels, output):
    known = (labels >= 0).sum(0)  # -1 is not known
    expected = ((labels == 1).sum(0) + 1) / (known + 2)
    np.testing.assert_allclose(sigmoid(output), expected, rtol=1e-6)


def segmentation(task, labels, output):
    expected = frequencies(labels[labels != 255], 5)
    np.testing.assert_allclose(softmax(output), np.tile(expected, (*SIZE, 1)), rtol=1e-6)


def depth(task, labels, output):
    known = [x for x in wide(labels).ravel() if 0 < x < np.inf]
    np.testing.assert_allclose(output, np.full(SIZE, np.mean(known)), rtol=1e-6)


def normals(task, labels, output):
    mean = np.mean([x for x in wide(labels).reshape(-1, 3) if x.any()], 0)  # all of length 1
    expected = mean / np.sqrt((mean**2).sum())
    np.testing.assert_allclose(output, np.tile(expected, (*SIZE, 1)), rtol=1e-5)


def edges(task, labels, output):
    share = (labels.sum() + 1) / (labels.size + 2)
    weighted = 0.95 * share / (0.95 * share + 0.05 * (1 - share))
    np.testing.assert_allclose(sigmoid(output), np.full(SIZE, weighted), rtol=1e-6)


def saliency(task, labels, output):
    share = (labels.sum() + 1) / (labels.size + 2)
    assert share > 0.2
    np.testing.assert_allclose(sigmoid(output), np.full(SIZE, share), rtol=1e-6)


def keypoints(task, labels, output):
    y, x = np.mgrid[: SIZE[0] // 2, : SIZE[1] // 2] * 2.0 + 1  # middles, in pixels
    for k in range(3):
        points = wide(labels[labels[:, k, 2] == 1, k, :2])
        (my, mx), (vy, vx) = points.mean(0), points.var(0) + (1.5 * 2) ** 2
        expected = np.exp(-((y - my) ** 2) / (2 * vy) - (x - mx) ** 2 / (2 * vx))
        found = np.exp(wide(output[..., k]))
        np.testing.assert_allclose(found / found.sum(), expected / expected.sum(), rtol=1e-5)
        where = np.asarray(task.decode(output[None]))[0, k, :2]
        np.testing.assert_allclose(where, points.mean(0), rtol=1e-4)


def detection(task, labels, output):
    assert output.shape == (4, 5, 7)
    assert not np.any(task.decode(output[None])["scores"])


def reconstruction(task, labels, output):
    expected = np.mean(wide(labels).reshape(-1, 2), 0)
    np.testing.assert_allclose(output, np.tile(expected, (*SIZE, 1)), rtol=1e-6)


@pytest.mark.parametrize("kind", TASKS)
def test_a_constant_is_taken_from_the_labels_that_are_there(kind):
    train = sample(kind, TRAIN)
    data = split(train, 0)
    found = constant_predictor.constant_outputs([train.task], data, 16)[kind]
    assert found.dtype == np.float32
    assert found.shape == train.outputs.shape[1:]
    globals()[kind](train.task, rows(train.labels, data.present[kind]), found)


@pytest.mark.parametrize("kind", TASKS)
def test_the_metrics_of_a_constant_are_those_of_the_whole_set_in_64_bits(kind):
    test = sample(kind, TEST, seed=1)
    data = split(test, 1)
    labels = rows(test.labels, data.present[kind])
    constant = constant_predictor.constant_outputs([test.task], split(sample(kind, TRAIN), 0), 64)
    outputs = np.broadcast_to(constant[kind], (data.present[kind].sum(), *constant[kind].shape))
    expected = test.reference(test.task, outputs, labels)
    if kind == "detection":  # 64 bits know scores above 0 that are 0 in 32
        expected |= dict.fromkeys(("map", "map_50", "map_75"), 0.0)
    for batch, devices in [(7, 1), (16, 8)]:
        placement = parallel.place(batch, devices)
        evaluator = Evaluator(
            nn.Module(), [test.task], data, batch, placement, keep_on_device=False
        )
        found = evaluator.constant_predictor_metrics(constant)[kind]
        assert set(expected) <= set(found)
        assert_same(found, expected, kind)


def numbers(count, **labels):
    present = {name: np.isfinite(values) for name, values in labels.items()}
    return Arrays(np.zeros((count, 4, 4, 1), np.float32), labels, present)


class OnDisk(list):
    """Examples that have to be read one by one."""


def test_of_many_examples_some_are_read_always_the_same(monkeypatch):
    values = np.random.default_rng(0).normal(3, 2, 500).astype(np.float32)
    task, data = Regression(name="size"), numbers(500, size=values)
    disk = OnDisk(data[i] for i in range(500))
    monkeypatch.setattr(constant_predictor, "MAX_EXAMPLES", 100)
    exact = constant_predictor.constant_outputs([task], data, 64)["size"]
    np.testing.assert_allclose(exact, values.mean(dtype=np.float64), rtol=1e-6)
    few, again = (
        constant_predictor.constant_outputs([task], disk, batch)["size"] for batch in (7, 64)
    )
    assert few == again != exact
    assert abs(few - 3) < 4 * 2 / np.sqrt(100)  # standard errors
    monkeypatch.setattr(constant_predictor, "MAX_BYTES", values[:10].nbytes)
    for split in (data, disk):
        assert constant_predictor.constant_outputs([task], split, 64)["size"] not in (few, exact)


class Nothing(Task):
    """A task of one's own, that says nothing of constants."""

    def loss(self, output, label, present):
        raise NotImplementedError


def test_tasks_without_a_label_or_a_constant_are_left_out():
    nan = np.full(9, np.nan, np.float32)
    data = numbers(9, size=np.ones(9, np.float32), missing=nan, own=np.ones(9))
    tasks = Regression(name="size"), Regression(name="missing"), Nothing(name="own")
    found = constant_predictor.constant_outputs(tasks, data, 4)
    assert set(found) == {"size"}
    placement = parallel.place(4, 1)
    evaluator = Evaluator(nn.Module(), tasks, data, 4, placement, keep_on_device=True)
    assert evaluator.constant_predictor_metrics(found)["size"]["mae"] == 0
    assert evaluator.constant_predictor_metrics({}) == {}


def test_a_rare_yes_is_said_everywhere_rather_than_nowhere():
    label = np.zeros((1, 8, 8), np.int32)
    label[0, 0, 0] = 1
    task = Saliency(name="saliency")
    output = task.constant_output(label, (8, 8))[None]
    metrics = task.metrics
    found = metrics.compute(metrics.update(metrics.empty(), output, label, np.ones(1, bool)))
    assert found["miou"] == pytest.approx(1 / 64)


def test_a_constant_serves_images_of_any_size():
    labels = np.ones((2, 8, 8), np.float32)
    assert Depth(name="depth").constant_output(labels, (6, 10)).shape == (6, 10)
