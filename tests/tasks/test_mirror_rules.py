"""Mirror images change some labels: a task says how, or flips are refused before training."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from mtljax.comparison.plan import Candidate
from mtljax.config import Data, Experiment
from mtljax.config.files import from_json, to_json
from mtljax.data.augment import make_augment, require_mirror_rules
from mtljax.runs.folder import check_folder
from mtljax.tasks import (
    Classification,
    Detection,
    Keypoints,
    MultiLabel,
    Regression,
    Segmentation,
)
from mtljax.tasks.warps import Mirror
from mtljax.training.setup import set_up

UNKNOWN = [
    Keypoints(name="t", num_keypoints=2),
    Regression(name="t"),
    Regression(name="t", size=4),
]
KNOWN = [
    Keypoints(name="t", num_keypoints=1),
    Keypoints(name="t", num_keypoints=3, pairs=((0, 2),)),
    Keypoints(name="t", num_keypoints=3, mirror="keep"),
    Regression(name="t", mirror="keep"),
    Regression(name="t", mirror="negate"),
    Regression(name="t", size=2, mirror=("keep", "negate")),
    Classification(name="t", num_classes=2),
]


@pytest.mark.parametrize("task", UNKNOWN)
def test_flips_of_labels_without_a_rule_are_refused(task):
    for text in ("flip", "flip:share=0.1", "flip:vertical=true"):
        with pytest.raises(ValueError, match=r"task 't': a mirror image may .*mirror='keep'"):
            require_mirror_rules(["shift", text], [task])
    require_mirror_rules(["shift", "crop", "flip:share=0"], [task])


@pytest.mark.parametrize("task", KNOWN)
def test_flips_of_labels_with_a_rule_are_accepted(task):
    require_mirror_rules(["flip"], [task])


def test_top_and_bottom_have_no_rule_for_angles():
    task = Regression(name="t", size=2, mirror=("keep", "negate"))
    with pytest.raises(ValueError, match="for left and right; leave out flip:vertical=true"):
        require_mirror_rules(["flip:vertical=true"], [task])


@pytest.mark.parametrize(
    ("mirror", "signs"),
    [("keep", [1, 1]), ("negate", [-1, -1]), (("keep", "negate"), [1, -1])],
)
def test_values_are_kept_or_negated_in_mirror_images_only(mirror, signs):
    task = Regression(name="t", size=2, mirror=mirror)
    label = np.asarray([[1, 2], [3, 4], [5, 6]], np.float32)
    image = np.zeros((3, 4, 4, 1), np.float32)
    batch = {"image": image, "labels": {"t": label}, "present": {"t": np.ones(3, bool)}}
    flipped = make_augment(["flip:share=1"], [task])
    keys = jax.random.split(jax.random.key(0), 3)
    np.testing.assert_array_equal(flipped(keys, batch)["labels"]["t"], label * signs)
    moved = make_augment(["shift"], [task])(keys, batch)
    np.testing.assert_array_equal(moved["labels"]["t"], label)


def test_one_value_is_negated():
    task = Regression(name="t", mirror="negate")
    keys = jax.random.split(jax.random.key(0), 2)
    batch = {
        "image": np.zeros((2, 4, 4, 1), np.float32),
        "labels": {"t": np.asarray([1.5, -2.0], np.float32)},
        "present": {"t": np.ones(2, bool)},
    }
    found = make_augment(["flip:share=1"], [task])(keys, batch)["labels"]["t"]
    assert found.tolist() == [-1.5, 2.0]


def experiment(*tasks):
    return Experiment(name="e", tasks=tasks, data=Data(source="-", augment=("flip",)))


def test_training_is_refused_before_the_data_is_read():
    with pytest.raises(ValueError, match="a mirror image may have another value"):
        set_up(experiment(Regression(name="t")))


OLD_TASKS = (
    Regression(name="angle"),
    Keypoints(name="points", num_keypoints=2),
    Keypoints(name="pairs", num_keypoints=2, pairs=((0, 1),)),
    Classification(name="side", class_names=("left", "right")),
)


def with_mirror(mirror):
    return experiment(*(dataclasses.replace(task, mirror=mirror) for task in OLD_TASKS))


def old_config():
    """Configuration of a version without `mirror`."""
    config = to_json(experiment(*OLD_TASKS))
    for task in config["tasks"]:
        del task["mirror"]
    return config


def test_configurations_of_older_versions_keep_the_values_in_mirror_images():
    assert from_json(old_config()) == with_mirror("keep")
    assert from_json(to_json(experiment(*OLD_TASKS))) == experiment(*OLD_TASKS)


def test_runs_of_older_versions_are_resumed_with_the_rule_that_they_had(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(old_config()))
    for mirror in ("keep", None):
        check_folder(tmp_path, with_mirror(mirror))
    other = dataclasses.replace(OLD_TASKS[0], mirror="negate")
    with pytest.raises(ValueError, match="mirror"):
        check_folder(tmp_path, experiment(other, *OLD_TASKS[1:]))


def test_a_comparison_finds_the_members_of_older_versions(tmp_path):
    folders = [
        Candidate(settings="", experiment=with_mirror(mirror)).folder(tmp_path, 0)
        for mirror in ("keep", None)
    ]
    assert folders[0] == folders[1]


@pytest.mark.parametrize("mirror", ["negated", ("keep",), ("keep", "keep", "keep"), ("keep", 1)])
def test_invalid_rules_are_refused(mirror):
    with pytest.raises(ValueError, match="mirror must be"):
        Regression(name="t", size=2, mirror=mirror)


SIDES = ("arm", "left arm", "right arm", "LeftLeg", "RightLeg")
EXCHANGED = (("left arm", "right arm"), ("LeftLeg", "RightLeg"))
SIDED_TASKS = [
    kind(name="t", class_names=SIDES, mirror=EXCHANGED)
    for kind in (Classification, MultiLabel, Segmentation, Detection)
]


@pytest.mark.parametrize("task", SIDED_TASKS, ids=lambda task: type(task).__name__)
def test_classes_of_one_side_are_those_of_the_other_in_mirror_images(task):
    classes = np.asarray([[[0, 1, 2], [3, 4, 4]]], np.int32)
    label, expected = {
        "Classification": (np.asarray([1]), np.asarray([2])),
        "MultiLabel": (np.asarray([[1, 1, 0, -1, 0]]), np.asarray([[1, 0, 1, 0, -1]])),
        "Segmentation": (classes, np.asarray([[[1, 2, 0], [3, 3, 4]]])),
        "Detection": (
            {
                "boxes": np.tile(np.float32([0, 0, 2, 2]), (1, 6, 1)),
                "classes": classes.reshape(1, 6),
            },
            {
                "boxes": np.tile(np.float32([0, 2, 2, 4]), (1, 6, 1)),
                "classes": np.asarray([[0, 2, 1, 4, 3, 3]]),
            },
        ),
    }[type(task).__name__]
    size = classes.shape[1:] if isinstance(task, Segmentation) else (4, 4)
    batch = {
        "image": np.zeros((1, *size, 1), np.float32),
        "labels": {"t": label},
        "present": {"t": np.ones(1, bool)},
    }
    keys = jax.random.split(jax.random.key(0), 1)
    found = make_augment(["flip:share=1"], [task])(keys, batch)["labels"]["t"]
    for leaf, wanted in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(leaf, wanted)
    require_mirror_rules(["flip"], [task])


@pytest.mark.parametrize("kind", [Classification, MultiLabel, Segmentation, Detection])
@pytest.mark.parametrize(
    "names", [("turn left", "turn right"), ("other", "keep_right"), ("RightEye", "LeftEye")]
)
def test_classes_named_left_or_right_need_a_rule_for_flips(kind, names):
    task = kind(name="t", class_names=names)
    with pytest.raises(ValueError, match=r"task 't': class '.*' may be another .*mirror='keep'"):
        require_mirror_rules(["flip"], [task])
    require_mirror_rules(["flip"], [kind(name="t", class_names=names, mirror="keep")])


def test_the_error_proposes_the_pairs():
    task = Classification(name="t", class_names=("a", "Turn Left", "turn right"))
    with pytest.raises(ValueError, match=r"set mirror=\(\('Turn Left', 'turn right'\),\)"):
        require_mirror_rules(["flip"], [task])


@pytest.mark.parametrize("names", [("bright", "leftover"), ("copyright", "a"), ("up", "down")])
def test_other_names_of_classes_need_no_rule(names):
    require_mirror_rules(["flip"], [Classification(name="t", class_names=names)])


@pytest.mark.parametrize(
    "pairs",
    [(("a", "a"),), (("a", "b"), ("b", "c")), (("0", "7"),)],
)
def test_invalid_pairs_of_classes_are_refused(pairs):
    with pytest.raises(ValueError, match="mirror must be pairs of different classes of 3"):
        Classification(name="t", class_names=("a", "b", "c"), mirror=pairs)
    with pytest.raises(ValueError, match="unknown class 'x'"):
        Classification(name="t", class_names=("a", "b", "c"), mirror=(("a", "x"),))


def test_pairs_may_be_indices_and_wait_for_the_classes_of_the_data():
    task = Classification(name="t", mirror=(("0", "2"),)).with_classes(("a", "b", "c"))
    assert task.in_mirror(np.asarray([0, 1, 2]), Mirror(size=(4, 4))).tolist() == [2, 1, 0]
    assert from_json(to_json(experiment(task))).tasks == (task,)
