"""NYUv2 and Cityscapes as they are passed around, and the numbers that are published for them."""

import dataclasses

import jax
import numpy as np
import pytest
from support.datasets import CLASSES, COUNTS, SHAPES, make_npy_folders

from mtljax.build import build, load_source, train_step
from mtljax.config import find_experiment
from mtljax.data import make_augment, make_source
from mtljax.data.base import LabelRequest
from mtljax.data.pipeline import read_batch
from mtljax.evaluation.evaluator import compute_metrics
from mtljax.step.eval_step import measure
from mtljax.step.state import create_state


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("benchmarks")
    for name in SHAPES:
        make_npy_folders(root, name)
    return root


@pytest.fixture(params=SHAPES)
def benchmark(request, root, monkeypatch):
    monkeypatch.setenv("MTLJAX_DATA", str(root))
    return find_experiment(request.param)


def test_files_are_read_as_they_are(benchmark, root):
    source = load_source(benchmark)
    assert len(source.test) == COUNTS["val"]
    assert len(source.train) + len(source.validation) == COUNTS["train"]
    for i in range(len(source.test)):
        example, where = source.test[i], root / benchmark.name / "val"
        on_disk = {kind.name: np.load(kind / f"{i}.npy") for kind in where.iterdir()}
        np.testing.assert_array_equal(example["image"], on_disk["image"].astype(np.float32))
        assert example["image"].shape == (*SHAPES[benchmark.name], 3)
        labels = example["labels"]
        np.testing.assert_array_equal(labels["segmentation"], on_disk["label"])
        np.testing.assert_array_equal(labels["depth"], on_disk["depth"][..., 0])
        if "normals" in labels:
            np.testing.assert_array_equal(labels["normals"], on_disk["normal"].astype(np.float32))


def segmentation_reference(logits, label, classes):
    """MTAN's cross entropy over labeled pixels, mean IoU and pixel accuracy."""
    logits = logits.astype(np.float64)
    log = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    known = label >= 0
    loss = -np.take_along_axis(log, np.maximum(label, 0)[..., None], -1)[..., 0][known].mean()
    matrix = np.zeros((classes, classes))
    np.add.at(matrix, (label[known], logits.argmax(-1)[known]), 1)
    hits = np.diag(matrix)
    iou = hits / (matrix.sum(0) + matrix.sum(1) - hits)
    return {"loss": loss, "miou": iou.mean(), "pixel_accuracy": hits.sum() / matrix.sum()}


def depth_reference(output, label):
    """MTAN's L1 over pixels whose label is not 0, absolute and relative error."""
    known = label != 0
    error = np.abs(output.astype(np.float64) - label)[known]
    return {"loss": error.mean(), "abs_err": error.mean(), "abs_rel": (error / label[known]).mean()}


def normals_reference(output, label):
    """MTAN's 1 - cos over pixels whose label is not 0, and statistics of the angle in degrees."""
    output = output.astype(np.float64)
    output /= np.linalg.norm(output, axis=-1, keepdims=True)
    truth = label.astype(np.float64)
    known = truth.any(-1)
    cosine = (output * truth).sum(-1)[known]
    angle = np.degrees(np.arccos(np.clip(cosine, -1, 1)))
    within = {f"within_{limit:g}": (angle < limit).mean() for limit in (11.25, 22.5, 30)}
    return {"loss": (1 - cosine).mean(), "mean": angle.mean(), "median": np.median(angle), **within}


def test_losses_and_metrics_are_the_published_ones(benchmark):
    source = load_source(benchmark)
    batch = read_batch(source.test, np.arange(len(source.test)))
    rng = np.random.default_rng(1)
    labels, outputs = batch["labels"], {}
    classes = CLASSES[benchmark.name]
    near = lambda x, spread: (x + spread * rng.normal(size=x.shape)).astype(np.float32)
    hot = np.eye(classes)[np.maximum(labels["segmentation"], 0)]
    outputs["segmentation"] = near(2 * hot, 1.0)
    outputs["depth"] = near(labels["depth"] + 1.0, 0.2)
    expected = {
        "segmentation": segmentation_reference(
            outputs["segmentation"], labels["segmentation"], classes
        ),
        "depth": depth_reference(outputs["depth"], labels["depth"]),
    }
    if "normals" in labels:
        outputs["normals"] = near(labels["normals"], 0.3)
        expected["normals"] = normals_reference(outputs["normals"], labels["normals"])
    one = jax.jit(lambda outputs, batch: measure(benchmark.tasks, outputs, batch))
    found = compute_metrics(benchmark.tasks, [one(outputs, batch)])
    for task, numbers in expected.items():
        for name, number in numbers.items():
            # float32 on the device; the median is that of a histogram of 0.01 degrees.
            tolerance = {"abs": 0.01} if name == "median" else {"rel": 2e-5}
            assert found[task][name] == pytest.approx(number, **tolerance), (task, name)


def test_the_published_augmentation_zooms_and_mirrors_labels_too(benchmark):
    source = load_source(benchmark)
    batch = read_batch(source.train, np.zeros(8, int))
    augment = jax.jit(make_augment(benchmark.data.augment, benchmark.tasks))
    made = augment(jax.random.split(jax.random.key(0), 8), batch)
    depth = np.asarray(made["labels"]["depth"])
    whole = np.unique(batch["labels"]["depth"][0])
    zooms = set()
    for one in depth:
        values = one[one > 0][:200]
        near = lambda zoom, values=values: np.isclose(values[:, None] * zoom, whole, rtol=1e-6)
        fits = [zoom for zoom in (1.0, 1.2, 1.5) if near(zoom).any(1).all()]
        assert len(fits) == 1
        zooms |= set(fits)
    assert zooms == {1.0, 1.2, 1.5}
    assert set(np.unique(made["labels"]["segmentation"])) <= set(range(-1, 13))


TASK = find_experiment("nyuv2").tasks[0]


@pytest.mark.parametrize(
    ("change", "key", "message"),
    [
        (lambda p: None, "labels", "has no folder 'labels' for task 'segmentation'; did you mean"),
        (lambda p: (p / "val/label/2.npy").unlink(), "label", "val/label lacks 2.npy, which"),
        (lambda p: (p / "val/image/2.npy").unlink(), "label", "val/image lacks 2.npy, which"),
        (lambda p: [f.unlink() for f in (p / "val/image").iterdir()], "label", "has no .npy files"),
        (lambda p: (p / "val").rename(p / "test"), "label", "there is no folder .*/val"),
    ],
)
def test_what_is_missing_is_named(tmp_path, change, key, message):
    make_npy_folders(tmp_path, "cityscapes")
    change(tmp_path / "cityscapes")
    with pytest.raises(ValueError, match=message):
        make_source(f"npy_folders:{tmp_path}/cityscapes", [LabelRequest(TASK, key)])


def test_a_label_of_another_class_is_named(tmp_path):
    make_npy_folders(tmp_path, "cityscapes")
    where = tmp_path / "cityscapes/val/label/1.npy"
    np.save(where, np.full(SHAPES["cityscapes"], 13.0))
    source = make_source(f"npy_folders:{tmp_path}/cityscapes", [LabelRequest(TASK, "label")])
    with pytest.raises(
        ValueError, match=r"val example 1.npy: task 'segmentation': the values 13 are not classes"
    ):
        source.test[1]


@pytest.mark.slow
def test_training_goes_through_the_published_setting(benchmark):
    """A step of the whole experiment, small: its augmentation, losses and heads fit the data."""
    source = load_source(benchmark)
    small = dataclasses.replace(
        benchmark,
        trunk="cnn:widths=(4,4,4)",
        tasks=tuple(dataclasses.replace(task, width=4) for task in benchmark.tasks),
    )
    parts = build(small, source.mean, source.std)
    batch = read_batch(source.train, np.arange(2))
    crop = lambda x: x[:, :32, :32]
    batch = {**batch, **{part: jax.tree.map(crop, batch[part]) for part in ("image", "labels")}}
    state = create_state(
        jax.random.key(0), parts.model, small.tasks, parts.balancer, parts.optimizer, batch
    )
    _, logs = jax.jit(train_step(small, parts))(state, batch)
    assert all(np.isfinite(loss) for loss in logs["loss"].values())
    assert not logs["skipped"]
