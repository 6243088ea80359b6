"""Evaluation is over the data set, whatever the batches and the devices are."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import confusion_matrix, f1_score, r2_score

from mtljax import parallel
from mtljax.data import Arrays
from mtljax.evaluation import evaluator as evaluator_module
from mtljax.evaluation.evaluator import Evaluator, compute_metrics
from mtljax.step.state import TrainState
from mtljax.tasks import Classification, Regression

TASKS = (Classification(name="kind", num_classes=4), Regression(name="size", center=1.0))
COUNT = 53


class Fixed(nn.Module):
    """Says what stands in the image."""

    @nn.compact
    def __call__(self, image, train=False):
        scale = self.param("scale", nn.initializers.ones, ())
        rows = image[:, 0, :, 0] * scale
        return {"kind": rows[:, :4], "size": rows[:, 4]}


@pytest.fixture(scope="module")
def split():
    draw = np.random.default_rng(0)
    images = draw.normal(size=(COUNT, 1, 5, 1)).astype(np.float32)
    labels = {
        "kind": draw.integers(0, 4, COUNT).astype(np.int32),
        "size": draw.normal(1, 2, COUNT).astype(np.float32),
    }
    present = {"kind": draw.random(COUNT) < 0.7, "size": draw.random(COUNT) < 0.8}
    labels["size"][~present["size"]] = np.nan  # whatever stands there must not matter
    labels["kind"][~present["kind"]] = -7
    return Arrays(images, labels, present)


@pytest.fixture(scope="module")
def state():
    zero = jnp.zeros((), jnp.int32)
    params = {"scale": jnp.ones(())}
    key = jax.random.key(0)
    return TrainState(zero, params, {}, (), (), None, key, zero, zero)


def expected(split):
    """By scikit-learn, in 64 bits."""
    rows = split.image[:, 0, :, 0].astype(np.float64)
    kind, size = split.present["kind"], split.present["size"]
    logits, true = rows[kind, :4], split.labels["kind"][kind]
    losses = np.log(np.exp(logits).sum(-1)) - logits[np.arange(len(true)), true]
    guess = logits.argmax(-1)
    output, value = rows[size, 4], split.labels["size"][size].astype(np.float64)
    return {
        "kind": {
            "loss": losses.mean(),
            "accuracy": (guess == true).mean(),
            "macro_f1": f1_score(true, guess, average="macro"),
            "confusion": confusion_matrix(true, guess).tolist(),
        },
        "size": {
            "loss": ((output - value) ** 2).mean(),
            "mae": np.abs(output - value).mean(),
            "rmse": np.sqrt(((output - value) ** 2).mean()),
            "r2": r2_score(value, output),
        },
    }


def assert_same(found, wanted):
    assert found.keys() == wanted.keys()
    for task in wanted:
        assert found[task].keys() == wanted[task].keys()
        for name, value in wanted[task].items():
            np.testing.assert_allclose(found[task][name], value, rtol=1e-6, err_msg=name)


SETTINGS = [(1, 1), (7, 1), (64, 1), (8, 8), (64, 8)]


@pytest.mark.parametrize("keep", [True, False], ids=["kept", "streamed"])
@pytest.mark.parametrize(("batch", "devices"), SETTINGS)
def test_metrics_are_exact_at_any_batch_size_on_any_devices(batch, devices, keep, split, state):
    placement = parallel.place(batch, devices)
    evaluator = Evaluator(Fixed(), TASKS, split, batch, placement, keep_on_device=keep)
    state = placement.replicate(state)
    assert_same(evaluator.metrics(state), expected(split))


def test_another_split_is_evaluated_without_another_compilation(split, state, monkeypatch):
    traces = []
    measured = evaluator_module.measure
    monkeypatch.setattr(
        evaluator_module, "measure", lambda *args: traces.append(args) or measured(*args)
    )
    first = lambda arrays: {name: x[:20] for name, x in arrays.items()}
    part = Arrays(split.image[:20], first(split.labels), first(split.present))
    placement = parallel.place(7, 1)
    evaluator = Evaluator(Fixed(), TASKS, split, 7, placement, keep_on_device=True)
    other = evaluator.with_split(part, keep_on_device=False)
    state = placement.replicate(state)
    assert_same(other.metrics(state), expected(part))
    assert_same(evaluator.metrics(state), expected(split))
    assert len(traces) == 1


@pytest.mark.parametrize(("batch", "devices"), [(7, 1), (64, 8)])
def test_runs_are_evaluated_side_by_side(batch, devices, split, state):
    placement = parallel.place(batch, devices)
    evaluator = Evaluator(Fixed(), TASKS, split, batch, placement, keep_on_device=True)
    alone = [state.replace(params={"scale": jnp.float32(scale)}) for scale in (1, 0.5, -2)]
    together = jax.tree.map(lambda *x: jnp.stack(x), *alone)
    found = evaluator.metrics_per_run(together)
    assert_same(found[0], expected(split))
    for own, one in zip(found, alone, strict=True):
        assert_same(own, evaluator.metrics(placement.replicate(one)))


@pytest.mark.parametrize("most", [1000, COUNT, 20, 1])
@pytest.mark.parametrize(("batch", "devices"), [(7, 1), (64, 8)])
def test_predictions_come_in_order_and_without_padding(batch, devices, most, split, state):
    placement = parallel.place(batch, devices)
    evaluator = Evaluator(Fixed(), TASKS, split, batch, placement, keep_on_device=False)
    metrics, found = evaluator.metrics_and_predictions(placement.replicate(state), most)
    assert_same(metrics, expected(split))
    rows = [int((split.image == image).all((1, 2, 3)).argmax()) for image in found.images]
    assert len(rows) == min(most, COUNT)
    assert rows == sorted(set(rows))
    np.testing.assert_array_equal(found.outputs["size"], split.image[rows, 0, 4, 0])
    for task in TASKS:
        np.testing.assert_array_equal(found.labels[task.name], split.labels[task.name][rows])
        np.testing.assert_array_equal(found.present[task.name], split.present[task.name][rows])
    assert found.total == COUNT
    assert found.labeled == {name: int(mask.sum()) for name, mask in split.present.items()}


def test_a_sample_of_predictions_is_random_and_always_the_same(split, state):
    placement = parallel.place(7, 1)
    evaluator = Evaluator(Fixed(), TASKS, split, 7, placement, keep_on_device=True)
    first, second = (evaluator.metrics_and_predictions(state, 20)[1] for _ in range(2))
    np.testing.assert_array_equal(first.images, second.images)
    assert (first.images != split.image[:20]).any()


def test_predictions_that_need_much_memory_are_a_smaller_sample(split, state, monkeypatch):
    per_example = 5 * 4 + 4 * 4 + 4 + 4 + 4 + 2
    monkeypatch.setattr("mtljax.evaluation.evaluator.MAX_PREDICTION_BYTES", 10 * per_example)
    evaluator = Evaluator(Fixed(), TASKS, split, 7, parallel.place(7, 1), keep_on_device=False)
    metrics, found = evaluator.metrics_and_predictions(state)
    assert_same(metrics, expected(split))
    assert (len(found.images), found.total) == (10, COUNT)


def test_predictions_have_the_files_of_their_examples(split, state):
    class Files:
        def place(self, row):
            return f"labels.csv row {row + 2} (a/{row}.png)"

    named = dataclasses.replace(split, origin=Files())
    evaluator = Evaluator(Fixed(), TASKS, named, 7, parallel.place(7, 1), keep_on_device=False)
    found = evaluator.metrics_and_predictions(state, 20)[1]
    for image, place in zip(found.images, found.places, strict=True):
        row = int((split.image == image).all((1, 2, 3)).argmax())
        assert place == f"labels.csv row {row + 2} (a/{row}.png)"
    unnamed = Evaluator(Fixed(), TASKS, split, 7, parallel.place(7, 1), keep_on_device=False)
    assert unnamed.metrics_and_predictions(state, 20)[1].places == ()


@pytest.mark.parametrize("batch", [7, 64])
def test_batches_of_predictions_are_the_split_without_padding(batch, split, state):
    evaluator = Evaluator(
        Fixed(), TASKS, split, batch, parallel.place(batch, 1), keep_on_device=False
    )
    parts = list(evaluator.predictions(state))
    np.testing.assert_array_equal(np.concatenate([p.images for p in parts]), split.image)
    size = np.concatenate([p.present["size"] for p in parts])
    np.testing.assert_array_equal(size, split.present["size"])


def test_the_average_of_parameters_is_evaluated_where_there_is_one(split, state):
    placement = parallel.place(7, 1)
    evaluator = Evaluator(Fixed(), TASKS, split, 7, placement, keep_on_device=False)
    averaged = state.replace(params={"scale": jnp.zeros(())}, ema=state.params)
    assert_same(evaluator.metrics(placement.replicate(averaged)), expected(split))


def test_a_task_without_labels_is_nan(split, state):
    bare = Arrays(split.image, split.labels, {**split.present, "size": np.zeros(COUNT, bool)})
    placement = parallel.place(7, 1)
    evaluator = Evaluator(Fixed(), TASKS, bare, 7, placement, keep_on_device=False)
    found = evaluator.metrics(placement.replicate(state))
    assert all(np.isnan(value) for value in found["size"].values())
    assert found["kind"] == evaluator.metrics(placement.replicate(state))["kind"]


def test_a_task_that_diverged_is_not_taken_for_one_without_labels(split, state):
    placement = parallel.place(7, 1)
    evaluator = Evaluator(Fixed(), TASKS, split, 7, placement, keep_on_device=False)
    lost = state.replace(params={"scale": jnp.full((), jnp.nan)})
    assert evaluator.metrics(placement.replicate(lost))["size"]["loss"] == np.inf


def test_an_empty_split_cannot_be_evaluated():
    with pytest.raises(ValueError, match="cannot evaluate an empty split"):
        compute_metrics(TASKS, [])
