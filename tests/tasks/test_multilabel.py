"""Multi-label tasks: notations of labels, classes that are not known, weights of positives."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtljax.data.base import Arrays
from mtljax.data.lazy import clean_label
from mtljax.data.statistics import label_statistics
from mtljax.tasks import MultiLabel
from mtljax.tasks.multilabel import average_precision

NAMES = ("cat", "dog", "big, red")
RNG = np.random.default_rng(0)
LABELS = np.asarray([[1, 0, -1], [0, 1, 1], [-1, -1, 0], [1, 1, 0]], np.int32)
LOGITS = RNG.normal(size=(4, 3)).astype(np.float32)


def task(names=NAMES, **options):
    return MultiLabel(name="m", num_classes=len(names), class_names=names, **options)


@pytest.mark.parametrize(
    "value",
    [
        *("cat;big, red", " big, red | cat", "cat|big, red;", '["cat", "big, red"]'),
        *(["cat", "big, red"], ("big, red", "cat", None), np.asarray(["cat", "big, red"])),
        *("1 0 1", "[1, 0, 1]", "[1 0 1]", "1;0;1", "1|0|1", [1, 0, 1], ["1", "0", "1"]),
        *([True, False, True], ["True", "false", "TRUE"], [1.0, 0.0, 1.0], ["1.0", "0", "1"]),
        *({"cat": 1, "dog": 0, "big, red": 1}, np.asarray([1, 0, 1], np.int64)),
    ],
    ids=str,
)
def test_all_notations_of_a_label_are_equal(value):
    assert task().parse(value).tolist() == [1, 0, 1]


@pytest.mark.parametrize(
    "value",
    [
        *([None, 0, 1], ["", "0", "1"], [float("nan"), 0.0, 1.0], ["nan", "0", " 1 "]),
        *({"cat": None, "dog": 0, "big, red": 1}, "[null, 0, 1]", ";0;1", "NaN 0 1"),
    ],
    ids=str,
)
def test_an_empty_cell_is_a_class_that_is_not_known(value):
    found = task().parse(value)
    assert found.tolist() == [-1, 0, 1]
    task().check(found[None])


@pytest.mark.parametrize("value", [";", "|", [], "[]", {"cat": 0, "dog": 0, "big, red": 0}])
def test_no_class_is_not_a_missing_label(value):
    assert task().parse(value).tolist() == [0, 0, 0]


def test_commas_separate_unless_a_class_name_has_one():
    assert task(("cat", "dog", "red")).parse("cat, red").tolist() == [1, 0, 1]
    assert task().parse("big, red").tolist() == [0, 0, 1]
    assert task(("a", "b;c", "d|e")).parse("a, b;c").tolist() == [1, 1, 0]


def test_names_that_are_numbers_are_compared_as_text_first():
    digits = task(("1", "2", "3"))
    for value in ("1;3", "1,3", ["1", "3"], "3|1"):
        assert digits.parse(value).tolist() == [1, 0, 1]
    assert task(("0", "1")).parse("0;1").tolist() == [1, 1]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("cat;mouse", "unknown class 'mouse'"),
        (["cat", "mouse"], "unknown class 'mouse'"),
        ({"cat": 1, "dog": 0}, "no value for big, red; write null if it is not known"),
        ({"cat": 1, "dog": 0, "big, red": 1, "mouse": 1}, "unknown class 'mouse'"),
        ([1, 0], "2 numbers for 3 classes"),
        ("1", "1 numbers for 3 classes"),
        ([1, 0, 2], "2; must be 0 or 1, or empty"),
        ([1, 0, 0.5], "0.5; must be 0 or 1"),
        ([1, -1, 0], "-1; must be 0 or 1, or empty.*negative=-1.*uncertain=missing"),
        ([[1, 2], 0, 1], "is not one number"),
    ],
    ids=str,
)
def test_wrong_labels_are_refused(value, message):
    with pytest.raises(ValueError, match=message) as error:
        task().parse(value)
    assert "\n" not in str(error.value)


def test_an_ambiguous_list_is_refused():
    with pytest.raises(ValueError, match="may be two classes, or a number for each"):
        task(("cat", "dog")).parse("1;0")
    assert task(("cat", "dog")).parse("1 0").tolist() == [1, 0]


def cleaned(value, **options):
    label, changed = clean_label(task(**options), value, (8, 8), "row 1")
    return label.tolist(), changed


@pytest.mark.parametrize(
    ("uncertain", "state", "kind"),
    [("missing", -1, "missing"), ("negative", 0, "converted"), ("positive", 1, "converted")],
)
def test_uncertain_labels_are_what_the_task_says_and_are_counted(uncertain, state, kind):
    label, changed = cleaned(["-1", "0", "1"], uncertain=uncertain)
    assert label == [state, 0, 1]
    assert [(key[0], count) for key, count in changed.items()] == [(kind, 1)]
    assert cleaned("1 -1 0", uncertain=uncertain)[0] == [1, state, 0]
    assert cleaned([0, -1, 1], uncertain=uncertain, negative=-1)[0] == [state, 0, 1]
    assert cleaned([None, 0, 1], uncertain=uncertain) == ([-1, 0, 1], {})
    with pytest.raises(ValueError, match="2; must be"):
        task(uncertain=uncertain).parse([2, 0, 0])


def test_classes_of_the_data_come_from_names_and_not_from_numbers():
    unnamed = MultiLabel(name="m")
    assert [*unnamed.classes_in("cat; dog|big, red")] == ["cat", "dog", "big, red"]
    assert [*unnamed.classes_in(["cat", "dog"])] == ["cat", "dog"]
    assert [*unnamed.classes_in({"cat": 1})] == ["cat"]
    for numbers in ([1, 0, None], "1 0 1", "1;0;1"):
        assert [*unnamed.classes_in(numbers)] == []
    with pytest.raises(ValueError, match="'cat,dog': set class_names, or separate"):
        unnamed.classes_in("cat,dog")
    assert unnamed.resolve(LABELS).num_classes == 3


def losses(labels, **options):
    present = np.ones(len(labels), bool)
    total, count = task(**options).loss(LOGITS, labels, present)
    gradient = jax.grad(lambda x: task(**options).loss(x, labels, present)[0])(LOGITS)
    return float(total / count), np.asarray(gradient)


@pytest.mark.parametrize(
    "options", [{}, {"positive_weights": (2.0, 0.5, 7.0)}, {"focal": 2.0}, {"focal": 0.5}]
)
def test_the_loss_is_the_mean_over_known_classes(options):
    weights, focal = options.get("positive_weights", (1, 1, 1)), options.get("focal", 0)
    terms = []
    for row, column in np.argwhere(LABELS >= 0):
        p = 1 / (1 + np.exp(-float(LOGITS[row, column])))
        positive = LABELS[row, column] == 1
        true = p if positive else 1 - p
        weight = weights[column] if positive else 1
        terms.append(-weight * (1 - true) ** focal * np.log(true))
    loss, gradient = losses(LABELS, **options)
    assert loss == pytest.approx(np.mean(terms), rel=1e-5)
    assert ((gradient == 0) == (LABELS < 0)).all()


def test_agrees_with_torch():
    torch = pytest.importorskip("torch")
    labels, weights = np.maximum(LABELS, 0), (2.0, 0.5, 7.0)
    theirs = torch.nn.functional.binary_cross_entropy_with_logits(
        torch.tensor(LOGITS), torch.tensor(labels.astype(np.float32)),
        pos_weight=torch.tensor(weights),
    )  # fmt: skip
    assert losses(labels, positive_weights=weights)[0] == pytest.approx(float(theirs), rel=1e-5)


def test_balanced_weights_count_known_labels():
    found = task(positive_weights="balanced").resolve(LABELS)
    assert found.positive_weights == (1 / 2, 1 / 2, 2 / 1)
    assert found.is_resolved
    assert not task(positive_weights="balanced").is_resolved


def test_metrics_of_a_class_leave_out_images_where_it_is_not_known():
    metrics = task().metrics
    present = jnp.ones(4, bool)
    found = metrics.compute(metrics.update(metrics.empty(), LOGITS, LABELS, present))
    for c in range(3):
        known = LABELS[:, c] >= 0
        alone = average_precision(LOGITS[known, c : c + 1], LABELS[known, c : c + 1])
        assert found["average_precision"][c] == alone[0]
    changed = np.where(LABELS < 0, 100 * LOGITS, LOGITS)  # outputs where nothing is known
    again = metrics.compute(metrics.update(metrics.empty(), changed, LABELS, present))
    assert json.dumps(found) == json.dumps(again)


def test_other_uses_of_a_label_leave_out_what_is_not_known():
    assert task().text(LABELS[0]) == "cat, big, red?"
    assert task().label_values(LABELS[2]).tolist() == []
    assert task().num_unknown(LABELS[2]) == 2
    constant = task().constant_output(LABELS, (8, 8))
    np.testing.assert_allclose(constant, np.log([3 / 2, 3 / 2, 2 / 3]), rtol=1e-6)
    mixed = task().mix(jnp.asarray(LABELS[0]), jnp.asarray(LABELS[1]), jnp.float32(0.25))
    np.testing.assert_allclose(mixed, [0.25, 0.75, -1])
    errors = task().error(LOGITS, LABELS)
    np.testing.assert_allclose(errors[2], np.logaddexp(0, LOGITS[2, 2]), rtol=1e-5)


def test_statistics_count_what_is_not_known():
    images = np.zeros((4, 2, 2, 1), np.uint8)
    present = np.asarray([True, True, True, False])
    split = Arrays(images, {"m": LABELS}, {"m": present})
    found = label_statistics((task(),), split)[0]["m"]
    assert (found.present, found.missing, found.unknown) == (3, 1, 3)
    assert found.as_json(task())["unknown"] == 3
    assert found.summary(task()).endswith("; 3 not known")


def test_arrays_without_any_zero_are_not_taken_for_positives_only():
    celeb_a = np.where(LABELS == 1, 1, -1)
    with pytest.raises(ValueError, match="-1 and 1, but no 0"):
        task().check(celeb_a)
    task().check(LABELS)


@pytest.mark.parametrize("value", ["No Finding", " No Finding ", ["No Finding"]])
def test_a_word_for_no_class_is_declared(value):
    with pytest.raises(ValueError, match="unknown class 'No Finding'.*belongs in no_class"):
        task().parse(value)
    declared = task(no_class=("No Finding",))
    assert declared.parse(value).tolist() == [0, 0, 0]
    assert list(MultiLabel(name="t", no_class=("No Finding",)).classes_in(value)) == []
    with pytest.raises(ValueError, match="unknown class 'No Finding'"):
        declared.parse(["No Finding", declared.class_names[0]])  # a contradiction


@pytest.mark.parametrize("text", ["['cat', 'old dog']", '["cat", "old dog"]'])
def test_lists_of_python_are_those_of_json(text):
    task = MultiLabel(name="kinds")
    names = tuple(task.classes_in(text))
    assert names == ("cat", "old dog")
    assert task.with_classes(names).parse(text).tolist() == [1, 1]


@pytest.mark.parametrize("text", ["['cat' 'dog']", "['cat', dog]", "['cat'", r"['c\x61t']"])
def test_names_in_quotes_are_never_taken_for_parts_of_names(text):
    task = MultiLabel(name="kinds")
    assert tuple(task.classes_in(text)) == ()
    with pytest.raises(ValueError, match="is not JSON"):
        task.with_classes(("cat", "dog")).parse(text)
