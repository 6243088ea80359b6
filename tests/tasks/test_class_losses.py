"""Class weights, focal factor, label smoothing and Dice, by formulas in float64 and by torch."""

import dataclasses

import jax
import numpy as np
import pytest

from mtljax.config import Data, Experiment
from mtljax.data.sources.arrays import from_arrays
from mtljax.tasks import Classification, Segmentation
from mtljax.tasks.class_losses import balanced_positive_weights, balanced_weights
from mtljax.training.setup import set_up

RNG = np.random.default_rng(0)
C = 4
WEIGHTS = (0.5, 1.0, 3.0, 10.0)
LOGITS = 2 * RNG.normal(size=(12, C)).astype(np.float32)
CLASSES = RNG.integers(0, C, 12).astype(np.int32)
MAPS = 2 * RNG.normal(size=(3, 5, 6, C)).astype(np.float32)
MASKS = RNG.integers(0, C, (3, 5, 6)).astype(np.int32)
MASKS[0, :, 3:] = 255
OPTIONS = [
    {"class_weights": WEIGHTS},
    {"focal": 2.0},
    {"focal": 0.5, "class_weights": WEIGHTS},
    {"label_smoothing": 0.2},
    {"label_smoothing": 0.2, "class_weights": WEIGHTS},
]


def classification(**options):
    return Classification(name="t", num_classes=C, **options)


def segmentation(**options):
    return Segmentation(name="t", num_classes=C, **options)


def parts(task, logits, labels, present=None):
    present = np.ones(len(logits), bool) if present is None else present
    return tuple(map(float, task.loss(logits, labels, present)))


def mean(*arguments):
    total, count = parts(*arguments)
    return total / count


def expected(logits, classes, class_weights=(1,) * C, focal=0.0, label_smoothing=0.0):
    """Weighted mean over rows of logits [n, C], one row after the other."""
    total = weight = 0.0
    for z, true in zip(logits.reshape(-1, C).astype(np.float64), classes.ravel(), strict=True):
        if true == 255:
            continue
        p = np.exp(z) / np.exp(z).sum()
        for c in range(C):
            target = (1 - label_smoothing) * (c == true) + label_smoothing / C
            total -= class_weights[c] * target * (1 - p[c]) ** focal * np.log(p[c])
        weight += class_weights[true]
    return total / weight


@pytest.mark.parametrize("options", OPTIONS)
def test_losses_are_the_weighted_means_of_their_definition(options):
    found = mean(classification(**options), LOGITS, CLASSES)
    assert found == pytest.approx(expected(LOGITS, CLASSES, **options), rel=1e-5)
    found = mean(segmentation(**options), MAPS, MASKS)
    assert found == pytest.approx(expected(MAPS, MASKS, **options), rel=1e-5)


@pytest.mark.parametrize("options", OPTIONS)
def test_the_weighted_mean_does_not_depend_on_how_the_batch_is_divided(options):
    for task, logits, labels in (
        (classification(**options), LOGITS, CLASSES),
        (segmentation(dice=0.7, **options), MAPS, MASKS),
    ):
        halves = [parts(task, logits[part], labels[part]) for part in (slice(1), slice(1, None))]
        np.testing.assert_allclose(np.sum(halves, 0), parts(task, logits, labels), rtol=1e-5)
        present = np.arange(len(logits)) > 0
        np.testing.assert_allclose(parts(task, logits, labels, present), halves[1], rtol=1e-5)


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
@pytest.mark.parametrize("weights", [(), WEIGHTS])
def test_agrees_with_torch(weights, smoothing):
    torch = pytest.importorskip("torch")
    weight = torch.tensor(weights) if weights else None
    options = {"class_weights": weights, "label_smoothing": smoothing}
    for task, logits, labels in (
        (classification(**options), LOGITS, CLASSES),
        (segmentation(**options), MAPS, MASKS),
    ):
        theirs = torch.nn.functional.cross_entropy(
            torch.tensor(np.moveaxis(logits, -1, 1)),
            torch.tensor(labels.astype(np.int64)),
            weight,
            ignore_index=255,
            label_smoothing=smoothing,
        )
        assert mean(task, logits, labels) == pytest.approx(float(theirs), rel=1e-5)


def test_dice_is_the_mean_over_images_and_their_classes():
    labels = MASKS.copy()
    labels[1] = 255  # an image without labels counts neither for the sum nor for the number
    labels[2] = 1
    values, pixels = [], []
    for z, y in zip(MAPS.astype(np.float64), labels, strict=True):
        p, known = np.exp(z) / np.exp(z).sum(-1, keepdims=True), y != 255
        of_class = [
            2 * p[known & (y == c), c].sum() / ((p[known, c] ** 2).sum() + (y == c).sum())
            for c in np.unique(y[known])
        ]
        values.append(1 - np.mean(of_class) if known.any() else 0.0)
        pixels.append(known.sum())
    added = mean(segmentation(dice=0.5), MAPS, labels) - mean(segmentation(), MAPS, labels)
    assert added == pytest.approx(0.5 * np.average(values, weights=pixels), rel=1e-5)


def test_perfect_masks_have_no_dice_loss_and_the_wrong_class_the_largest():
    perfect = 60 * np.eye(C, dtype=np.float32)[np.where(MASKS == 255, 0, MASKS)]
    assert mean(segmentation(dice=1.0), perfect, MASKS) == pytest.approx(0, abs=1e-6)
    task = dataclasses.replace(segmentation(), dice=1.0)
    wrong = np.where(MASKS == 255, 255, (MASKS + 1) % C)
    added = mean(task, perfect, wrong) - mean(segmentation(), perfect, wrong)
    assert added == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("options", [*OPTIONS, {"focal": 0.1}])
def test_gradients_of_certain_outputs_are_finite(options):
    certain = np.asarray([[200, 0, -200, 0], [-200, 0, 200, 0]], np.float32)
    one = classification(**options)
    gradient = jax.grad(lambda x: one.loss(x, np.zeros(2, int), np.ones(2, bool))[0])
    task = segmentation(dice=1.0, **options)
    of_map = jax.grad(lambda x: task.loss(x, np.zeros((1, 2, 1), int), np.ones(1, bool))[0])
    assert np.isfinite(gradient(certain)).all()
    assert np.isfinite(of_map(certain.reshape(1, 2, 1, C))).all()


def test_mixed_labels_have_the_mixture_of_the_losses_and_weights():
    task = classification(class_weights=WEIGHTS, focal=1.5, label_smoothing=0.1)
    first, second = (parts(task, LOGITS[:1], np.asarray([c])) for c in (1, 3))
    mixed = parts(task, LOGITS[:1], np.asarray([[0, 0.25, 0, 0.75]], np.float32))
    np.testing.assert_allclose(mixed, 0.25 * np.asarray(first) + 0.75 * np.asarray(second), 1e-5)


def test_balanced_weights_are_those_of_scikit_learn():
    sklearn = pytest.importorskip("sklearn.utils.class_weight")
    labels = np.repeat([0, 1, 2, 3], [50, 8, 2, 1]).astype(np.int32)
    task = classification(class_weights="balanced")
    assert task.derived == ("class_weights",)
    assert not task.is_resolved
    theirs = sklearn.compute_class_weight("balanced", classes=np.arange(4), y=labels)
    resolved = task.resolve(labels)
    assert resolved.is_resolved
    np.testing.assert_allclose(resolved.class_weights, theirs, rtol=1e-5)
    masks = np.concatenate([labels, [255, 255, 255]]).reshape(2, 4, 8).astype(np.int32)
    found = segmentation(class_weights="balanced").resolve(masks).class_weights
    np.testing.assert_allclose(found, theirs, rtol=1e-5)


def test_balanced_weights_with_classes_of_the_data_and_without_labels_of_a_class():
    task = Classification(name="t", class_weights="balanced").resolve(np.asarray([0, 0, 0, 2]))
    assert task.num_classes == 3
    assert task.class_weights == (0.666667, 1.0, 2.0)
    assert balanced_weights([0, 0]) == (1.0, 1.0)
    assert balanced_positive_weights([2, 0, 5], [8, 4, 0]) == (4.0, 1.0, 1.0)


def test_unresolved_weights_name_the_field():
    with pytest.raises(ValueError, match="class_weights='balanced' is computed from the training"):
        classification(class_weights="balanced").loss(LOGITS, CLASSES, np.ones(12, bool))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"class_weights": (1.0, 2.0)}, "class_weights must be numbers > 0, one for each of 4"),
        ({"class_weights": (1.0, 2.0, 0.0, 1.0)}, "class_weights must be numbers > 0"),
        ({"class_weights": (1.0, 2.0, float("nan"), 1.0)}, "class_weights must be numbers > 0"),
        ({"class_weights": "inverse"}, "numbers or 'balanced', not 'inverse'"),
        ({"focal": -1.0}, "focal must be >= 0"),
        ({"label_smoothing": 1.0}, "label_smoothing must be in"),
        ({"dice": -1.0}, "dice must be >= 0"),
    ],
)
def test_invalid_options_are_refused(options, message):
    with pytest.raises(ValueError, match=f"task 't': .*{message}"):
        segmentation(**options)


def test_training_resolves_balanced_weights_from_the_training_split_alone():
    labels = np.repeat([0, 1, 2], [60, 30, 10]).astype(np.int32)
    source = from_arrays(np.zeros((100, 4, 4, 1), np.uint8), {"t": labels})
    experiment = Experiment(
        name="e",
        tasks=(Classification(name="t", class_weights="balanced"),),
        data=Data(source="arrays", batch_size=8),
        trunk="mlp:widths=(4,)",
    )
    (task,) = set_up(experiment, source=source).experiment.tasks
    counts = np.bincount(source.train.labels["t"], minlength=3)
    np.testing.assert_allclose(task.class_weights, counts.sum() / (3 * counts), rtol=1e-5)
