"""Criteria of the best checkpoint: metrics of any task, and weighted sums of them."""

import dataclasses
import math
import sys

import numpy as np
import pytest

from mtljax.config import Data, Experiment
from mtljax.runs.selection import check_select, directions, select_of_task, selection_score
from mtljax.tasks import Classification, Regression, Segmentation

EXPERIMENT = Experiment(
    name="x",
    tasks=(
        Classification(name="a", num_classes=3),
        Regression(name="b"),
        Segmentation(name="map", num_classes=2),
    ),
    data=Data(source="digits"),
)
METRICS = {
    "a": {"loss": 0.5, "accuracy": 0.9, "macro_f1": 0.7, "confusion": [[1]]},
    "b": {"loss": 2.0, "mae": 3.0, "rmse": 4.0, "r2": 0.25},
    "map": {"loss": 1.0, "miou": 0.6, "pixel_accuracy": 0.8},
}
LOSS = np.mean(np.log([0.5, 2.0, 1.0]))


def select(text):
    return dataclasses.replace(EXPERIMENT, select=text)


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ("loss", LOSS),
        ("a/loss", 0.5),
        ("a/accuracy", -0.9),
        ("a/macro_f1", -0.7),
        ("b/rmse", 4.0),
        ("b/r2", -0.25),
        ("map/pixel_accuracy", -0.8),
        ("a/macro_f1+0.5*b/mae", -0.7 + 0.5 * 3.0),
        ("a/macro_f1+0.5:b/mae", -0.7 + 0.5 * 3.0),
        ("2:a/accuracy+1e-3:b/loss+map/miou", -2 * 0.9 + 1e-3 * 2.0 - 0.6),
        ("loss+a/accuracy", LOSS - 0.9),
    ],
)
def test_a_lower_score_is_better_whatever_the_direction_of_the_metric(text, score):
    check_select(select(text))
    assert selection_score(select(text), METRICS) == pytest.approx(score, rel=1e-12)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a/macro_f2", "'a/macro_f2'; did you mean 'a/macro_f1'?"),
        ("aa/accuracy", "did you mean 'a/accuracy'?"),
        ("a/confusion", "select cannot be 'a/confusion'"),  # not a number
        ("a/accuracy+0.5:b/mea", "unknown criterion 'b/mea'; did you mean 'b/mae'?"),
        ("a/accuracy+x:b/mae", "the weight 'x' must be a number > 0"),
        ("a/accuracy+-1:b/mae", "the weight '-1' must be a number > 0; metrics of which less is"),
        ("a/accuracy+0*b/mae", "the weight '0' must be a number > 0"),
        ("a/accuracy+inf:b/mae", "the weight 'inf' must be a number > 0"),
        ("", "select cannot be ''"),
        ("a/accuracy+", "unknown criterion ''"),
    ],
)
def test_other_criteria_are_errors_with_the_nearest_name(text, message):
    with pytest.raises(ValueError) as error:  # noqa: PT011
        check_select(select(text))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_all_scalars_with_a_direction_are_criteria():
    assert directions(EXPERIMENT.tasks) == {
        "loss": False,
        **{"a/loss": False, "a/accuracy": True, "a/macro_f1": True},
        **{"b/loss": False, "b/mae": False, "b/rmse": False, "b/r2": True},
        **{"map/loss": False, "map/miou": True, "map/pixel_accuracy": True},
    }


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_sum_with_a_metric_that_is_not_finite_is_the_worst_score(value):
    metrics = METRICS | {"b": METRICS["b"] | {"mae": value}}
    assert selection_score(select("a/accuracy+b/mae"), metrics) == sys.float_info.max


def test_names_of_tasks_may_contain_the_signs_of_a_sum():
    task = Regression(name="x+2*y")
    experiment = dataclasses.replace(EXPERIMENT, tasks=(task,), select="x+2*y/mae")
    check_select(experiment)
    assert selection_score(experiment, {"x+2*y": {"mae": 3.0, "loss": 1.0}}) == 3.0


@pytest.mark.parametrize(
    ("text", "task", "part"),
    [
        ("loss", "a", "loss"),
        ("a/accuracy", "a", "a/accuracy"),
        ("a/accuracy", "b", "loss"),
        ("a/accuracy+0.5:b/mae", "a", "a/accuracy"),
        ("a/accuracy+0.5*b/mae+b/r2", "b", "0.5:b/mae+b/r2"),
    ],
)
def test_a_single_task_keeps_its_part_of_a_sum(text, task, part):
    assert select_of_task(text, task) == part
