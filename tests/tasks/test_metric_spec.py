"""Labels, directions and number formats of metrics."""

import jax.numpy as jnp
import pytest

import mtljax.tasks
from mtljax.tasks import TASKS, Classification, Metrics, MetricSpec, Normals, Regression, Task

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("spec", "value", "digits", "text", "tick"),
    [
        (MetricSpec("x"), 0.98765, 3, "0.988", "0.98765"),
        (MetricSpec("x"), 12345.6, 4, "12,346", "12345.6"),
        (MetricSpec("x", percent=True), 0.98765, 3, "98.8 %", "98.765 %"),
        (MetricSpec("x", percent=True), 0.98765, 4, "98.77 %", "98.765 %"),
        (MetricSpec("x", unit="°"), 11.256, 3, "11.3°", "11.256"),
        (MetricSpec("x", zero_below=1e-5), -1.5e-6, 3, "0", "-1.5e-06"),
        (MetricSpec("x", zero_below=1e-5), -1.5e-5, 3, "-1.5e-05", "-1.5e-05"),
        (MetricSpec("x", percent=True), NAN, 3, "n/a", "nan %"),
        (MetricSpec("x", unit="°"), INF, 3, "inf", "inf"),
    ],
)
def test_a_spec_formats_values_and_ticks(spec, value, digits, text, tick):
    assert spec.format(value, digits) == text
    assert spec.format_tick(value) == tick
    assert spec.format(None, digits) == "n/a"


class NumErrors(Task):
    """A task of a user, without specs."""

    main_metric = "num_errors"
    higher_is_better = True

    def loss(self, output, label, present):
        return jnp.float32(0), jnp.float32(0)


def test_metrics_without_a_spec_get_a_plain_one():
    task = NumErrors(name="x")
    assert task.metric_spec("num_errors") == MetricSpec("num errors", higher_is_better=True)
    assert task.metric_spec("other_accuracy") == MetricSpec("other accuracy")
    assert task.metric_spec("loss") == MetricSpec("loss", higher_is_better=False)


def test_a_subclass_inherits_specs_and_adds_to_them():
    class Angle(Regression):
        metric_specs = {"mae": MetricSpec("mean angle", higher_is_better=False, unit="°")}

    assert Angle(name="x").metric_spec("mae").format(3.0) == "3°"
    for name in ("loss", "rmse", "r2", "accuracy"):
        assert Angle(name="x").metric_spec(name) == Regression(name="x").metric_spec(name)
    assert Regression(name="x").metric_spec("mae").unit == ""


def test_the_direction_of_the_main_metric_is_that_of_its_spec_unless_the_class_sets_it():
    class ByAccuracy(Regression):
        main_metric = "accuracy"

    class Reversed(Regression):
        higher_is_better = True

    class Named(Reversed):
        main_metric = "rmse"
        higher_is_better = True

    assert (Regression.higher_is_better, Classification.higher_is_better) == (False, True)
    assert ByAccuracy.higher_is_better
    assert Reversed.higher_is_better
    assert Named(name="x").compared == (("rmse", True),)
    assert not Normals.higher_is_better


def test_the_class_of_every_task_is_exported():
    names = {cls.__name__ for cls in TASKS.values()}
    assert names | {"TASKS", "Task", "Metrics", "MetricSpec"} == set(mtljax.tasks.__all__)
    assert Metrics is mtljax.tasks.Metrics
