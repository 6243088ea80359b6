"""Outcome of the training of Pareto fronts."""

import dataclasses
from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool, Float

from mtljax.balancing.rays import hypervolume
from mtljax.comparison import statistics
from mtljax.comparison.statistics import Estimate, Metric, estimate
from mtljax.config import Experiment
from mtljax.tasks import MetricSpec


@dataclasses.dataclass(frozen=True, kw_only=True)
class Front:
    """Test metrics of the networks for several preferences, one metric per task.

    The points may be those of separate networks, or of one network that is conditioned on the
    preference.
    """

    name: str
    """Name of the method."""
    is_linear: bool = False
    """True for linear scalarization, which the methods are compared with."""
    rays: Float[np.ndarray, "R T"]
    """Preferences over tasks, with mean 1."""
    values: Float[np.ndarray, "S R T"]
    """Main test metric of each task, per seed and ray; NaN for a missing run."""
    steps: int = 0
    """Steps of each network."""
    networks: int = 1
    """Number of networks."""
    seconds: float = float("nan")
    """Training time of all rays together, mean over seeds."""
    parameters: float = float("nan")
    """Number of parameters of all networks together."""
    settings: tuple[str, ...] = ()
    """Grid point of each ray, chosen on validation; empty without a grid."""

    def point(self, ray: int, task: int) -> Estimate:
        """Estimate of a metric over seeds."""
        return estimate(self.values[:, ray, task])

    @property
    def means(self) -> Float[np.ndarray, "R T"]:
        """Means over seeds."""
        return statistics.nanmean(self.values)


@dataclasses.dataclass(frozen=True, kw_only=True)
class FrontOutcome:
    """Outcome of the training of Pareto fronts on an experiment.

    The hypervolume is measured in units in which a task's metric is 0 for its constant-predictor
    baseline and 1 for its single-task network (mean over seeds). The constant predictor is the
    reference point; so the volume is 1 for a network that equals all single-task networks.
    """

    experiment: Experiment
    """Experiment before methods and settings are applied."""
    metrics: tuple[Metric, ...]
    """Main metric of each task."""
    seeds: tuple[int, ...]
    """Random seeds of the runs."""
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
        return metric.spec(self.experiment.tasks)

    @property
    def methods(self) -> list[Front]:
        """Fronts other than linear scalarization."""
        return [front for front in self.fronts if not front.is_linear]

    @property
    def linear(self) -> Front:
        """Front of linear scalarization."""
        return next(front for front in self.fronts if front.is_linear)

    def gains(self, values: Float[np.ndarray, "*N T"]) -> Float[np.ndarray, "*N T"]:
        """Metrics in units of the gain of a single-task network over the constant predictor.

        NaN for a task whose single-task networks are not better than that.
        """
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

    def difference(self, front: Front) -> Estimate:
        """Estimate over seeds of the hypervolume minus that of linear scalarization."""
        return estimate(self.volumes(front) - self.volumes(self.linear))

    def p_values(self) -> Mapping[str, float]:
        """p values of paired t tests against linear scalarization, by Holm's method, by front."""
        linear = self.volumes(self.linear)
        p = [statistics.paired_t_test(self.volumes(front), linear) for front in self.methods]
        adjusted = statistics.holm_correction(np.array(p, float)).tolist()
        return {front.name: q for front, q in zip(self.methods, adjusted, strict=True)}

    def optimal(self, front: Front) -> Bool[np.ndarray, " R"]:
        """True for rays whose mean metrics no other ray of the front dominates."""
        means = front.means
        known = ~np.isnan(means).any(1)
        optimal = np.zeros(len(means), bool)
        optimal[known] = statistics.pareto_optimal(means[known], self.metrics)
        return optimal
