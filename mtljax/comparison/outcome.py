"""Outcome of a comparison: rows of results, and paired tests between them."""

import dataclasses
from collections.abc import Mapping

import numpy as np
from jaxtyping import Float

from mtljax.comparison import statistics
from mtljax.comparison.plan import Kind
from mtljax.comparison.statistics import Estimate, Metric, estimate
from mtljax.comparison.tuning import Tuning
from mtljax.config import Experiment
from mtljax.tasks import MetricSpec
from mtljax.utils.text import count


@dataclasses.dataclass(frozen=True, kw_only=True)
class ComparisonRow:
    """Results of a method, or of the single-task baselines of all tasks together."""

    name: str
    """Name of the method; STL for baselines."""
    kind: Kind
    """`method`, or `stl` for baselines."""
    settings: str
    """Setting chosen on validation; empty without a grid and a tuning."""
    values: Float[np.ndarray, "S K"]
    """Test metrics per sample, a seed or a fold; NaN for a missing run."""
    delta_m: Float[np.ndarray, " S"]
    """delta_m in % per sample, relative to the comparison's first baselines."""
    costs: Mapping[str, Estimate]
    """Costs by the names in `mtljax.comparison.results.COSTS`; for baselines over all tasks."""
    telemetry: Mapping[str, Estimate]
    """Gradient statistics, averaged over training."""
    mean_rank: float = float("nan")
    """MR among methods."""
    baseline: str = ""
    """Name of the row of baselines with the same settings."""
    folds: int = 0
    """Number of folds if the samples are the folds of a cross-validation."""

    def metric(self, index: int) -> Estimate:
        """Estimate of a test metric over the samples."""
        return estimate(self.values[:, index], self.folds)

    @property
    def improvement(self) -> Estimate:
        """Estimate of delta_m over the samples."""
        return estimate(self.delta_m, self.folds)

    @property
    def has_results(self) -> bool:
        """True if a run of the method is finished."""
        return not np.isnan(self.values).all()


@dataclasses.dataclass(frozen=True, kw_only=True)
class PairedTest:
    """Paired t test over seeds or folds between two rows."""

    first: str
    """Name of a row."""
    second: str
    """Name of the row that it is compared with."""
    difference: Estimate
    """First minus second: delta_m in percentage points, or a metric in its unit."""
    p: float
    """p value of the test."""
    adjusted_p: float = float("nan")
    """p value after Holm's correction over all tests of delta_m, or all tests of metrics."""
    metric: Metric | None = None
    """Tested metric; None: delta_m."""

    @property
    def better(self) -> bool:
        """True if the first row has the better mean."""
        return (self.difference.mean > 0) == (self.metric is None or self.metric.higher_is_better)

    @property
    def significant(self) -> bool:
        """True if the adjusted p value is below the significance level."""
        return self.adjusted_p < statistics.ALPHA


@dataclasses.dataclass(frozen=True, kw_only=True)
class Comparison:
    """Outcome of a comparison."""

    experiment: Experiment
    """Compared experiment, before methods and settings are applied."""
    metrics: tuple[Metric, ...]
    """Compared metrics, in the order of the columns."""
    seeds: tuple[int, ...]
    """Random seeds of the runs."""
    rows: tuple[ComparisonRow, ...]
    """Baselines, then methods."""
    tests: tuple[PairedTest, ...]
    """Tests of delta_m between all pairs of methods and baselines."""
    metric_tests: tuple[PairedTest, ...]
    """Tests of each metric: each method against its baselines and against the first method."""
    seeds_per_program: int
    """Largest number of seeds that were trained in one program."""
    environment: Mapping[str, str]
    """Versions and devices of the runs; all values where runs differ."""
    folds: int = 0
    """Number of folds of a cross-validation; 0: the splits of the data."""
    tuning: Tuning | None = None
    """Tuning that chose the settings, if there was one."""

    @property
    def unit(self) -> str:
        """Samples of means, intervals and tests: "seed" or "fold"."""
        return "fold" if self.folds else "seed"

    @property
    def samples(self) -> str:
        """Number of samples as text; the result of a fold is the mean over its seeds."""
        seeds = count(len(self.seeds), "seed")
        if not self.folds:
            return seeds
        return f"{self.folds} folds" + (f" with {seeds} each" if len(self.seeds) > 1 else "")

    def spec(self, metric: Metric) -> MetricSpec:
        """Label and number format of a metric."""
        return metric.spec(self.experiment.tasks)

    @property
    def reference(self) -> ComparisonRow:
        """Baselines that delta_m is relative to."""
        return self.rows[0]

    def rows_of(self, kind: Kind) -> list[ComparisonRow]:
        """Rows of a kind."""
        return [row for row in self.rows if row.kind == kind]

    def test(self, first: str, second: str) -> PairedTest | None:
        """Test of delta_m between two rows, in this order; None if the pair was not tested."""
        for test in self.tests:
            if (test.first, test.second) == (first, second):
                return test
            if (test.second, test.first) == (first, second):
                reversed_ = test.difference._replace(mean=-test.difference.mean)
                return dataclasses.replace(test, first=first, second=second, difference=reversed_)
        return None
