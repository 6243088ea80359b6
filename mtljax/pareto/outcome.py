"""Outcome of the training of Pareto fronts."""

import dataclasses
from collections.abc import Mapping
from typing import Literal

import numpy as np
from jaxtyping import Float

from mtljax.balancing.rays import hypervolume
from mtljax.comparison import statistics
from mtljax.comparison.statistics import Estimate, Metric, estimate
from mtljax.config import Experiment
from mtljax.tasks import MetricSpec

Role = Literal["method", "linear"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Front:
    """Test metrics of the networks for several preferences, one metric per task.

    The points may be those of separate networks, or of one network that is conditioned on the
    preference.
    """

    name: str
    role: Role
    """linear: linear scalarization, which the methods are compared with."""
    rays: Float[np.ndarray, "R T"]
    """Preferences over tasks, with mean 1."""
    values: Float[np.ndarray, "S R T"]
    """Main test metric of each task, per seed and ray; NaN for a missing run."""
    seconds: Float[np.ndarray, " S"]
    """Training time of all rays together, per seed; NaN if it is unknown."""
    parameters: int | None = None
    """Number of parameters of all networks together."""

    @property
    def has_results(self) -> bool:
        """True if all rays of a seed are finished."""
        return bool((~np.isnan(self.values)).all((1, 2)).any())


@dataclasses.dataclass(frozen=True, kw_only=True)
class FrontOutcome:
    """Outcome of the training of Pareto fronts on an experiment.

    The hypervolume is measured in units in which a task's metric is 0 for its constant-predictor
    baseline and 1 for its single-task network (mean over seeds). The constant predictor is the
    reference point; so the volume is 1 for a network that equals all single-task networks.
    """

    experiment: Experiment
    metrics: tuple[Metric, ...]
    """Main metric of each task."""
    seeds: tuple[int, ...]
    single: Float[np.ndarray, "S T"]
    """Test metrics of the single-task networks."""
    constant: Float[np.ndarray, " T"]
    """Test metrics of the constant-predictor baseline."""
    fronts: tuple[Front, ...]
    """Methods, then linear scalarization."""
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Versions and devices of the runs; all values where runs differ."""

    def spec(self, metric: Metric) -> MetricSpec:
        """Label and number format of a metric."""
        tasks = {task.name: task for task in self.experiment.tasks}
        return tasks[metric.task].metric_spec(metric.name)

    def gains(self, values: Float[np.ndarray, "*N T"]) -> Float[np.ndarray, "*N T"]:
        """Metrics in units of the gain of a single-task network over the constant predictor."""
        span = statistics.nanmean(self.single) - self.constant
        sign = np.array([metric.sign for metric in self.metrics])
        return (values - self.constant) / np.where(sign * span > 0, span, np.nan)

    def volumes(self, front: Front) -> Float[np.ndarray, " S"]:
        """Hypervolume per seed; NaN if a ray is missing."""
        costs = -self.gains(front.values)
        volumes = hypervolume(np.nan_to_num(costs), np.zeros(len(self.metrics)))
        return np.where(np.isnan(costs).any((1, 2)), np.nan, volumes)

    def volume(self, front: Front) -> Estimate:
        """Estimate of the hypervolume over seeds."""
        return estimate(self.volumes(front))

    def difference(self, front: Front, other: Front) -> Estimate:
        """Estimate of the paired difference of two hypervolumes over seeds."""
        return estimate(self.volumes(front) - self.volumes(other))

    def p(self, front: Front, other: Front) -> float:
        """Two-sided p value of a paired t test of two hypervolumes over seeds."""
        return statistics.paired_t_test(self.volumes(front), self.volumes(other))
