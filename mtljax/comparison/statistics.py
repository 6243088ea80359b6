"""Statistics over seeds or folds: relative change, delta_m, ranks, intervals and tests.

Values are arrays [S, K] of S samples (seeds, or folds of a cross-validation) and K metrics, the
metrics of all tasks concatenated. A missing run is a row of NaN, which every function ignores.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from scipy import stats

from mtljax.tasks import MetricSpec, Task

ALPHA = 0.05
"""Significance level; intervals have level 1 - ALPHA."""


class Metric(NamedTuple):
    """Metric of a task that counts in a comparison."""

    task: str
    """Name of the task."""
    name: str
    """Name of the metric."""
    higher_is_better: bool
    """True if larger values are better."""

    @property
    def sign(self) -> float:
        """1 if higher is better, else -1."""
        return 1.0 if self.higher_is_better else -1.0

    def spec(self, tasks: Sequence[Task]) -> MetricSpec:
        """Label and number format, from the task that has the metric."""
        (task,) = (task for task in tasks if task.name == self.task)
        return task.metric_spec(self.name)


class Estimate(NamedTuple):
    """Mean over samples and half width of its 95 % interval, NaN for fewer than two samples."""

    mean: float
    """Mean over the samples."""
    half_width: float
    """Half the width of the interval."""
    seeds: int
    """Number of samples: seeds, or folds of a cross-validation."""

    @property
    def low(self) -> float:
        """Lower end of the interval."""
        return self.mean - self.half_width

    @property
    def high(self) -> float:
        """Upper end of the interval."""
        return self.mean + self.half_width


UNKNOWN = Estimate(np.nan, np.nan, 0)
"""Estimate from no samples."""


def estimate(samples: Float[np.ndarray, " S"], folds: int = 0) -> Estimate:
    """Mean and 95 % interval by Student's t over the samples that are not NaN.

    `folds` is that of `standard_error`.
    """
    known = samples[~np.isnan(samples)]
    if not len(known):
        return UNKNOWN
    half_width = np.nan
    if len(known) > 1:
        error = standard_error(known, folds)
        half_width = float(stats.t.ppf(1 - ALPHA / 2, len(known) - 1) * error)
    return Estimate(float(known.mean()), half_width, len(known))


def standard_error(samples: Float[np.ndarray, " S"], folds: int = 0) -> float:
    """Standard error of the mean of independent samples, or of the folds of a cross-validation.

    Results of folds are correlated, because their training sets overlap. For them, the variance s^2
    of the samples is multiplied by 1/n + n_test/n_train = 1/n + 1/(folds - 1) instead of 1/n, which
    assumes a correlation of n_test/(n_test + n_train). No unbiased estimate exists.

    Args:
      samples: Results of n seeds or folds.
      folds: Number of folds of the cross-validation; 0: independent samples.

    References:
      Nadeau and Bengio, 2003, "Inference for the Generalization Error"; Bengio and Grandvalet,
      2004, "No Unbiased Estimator of the Variance of K-Fold Cross-Validation"
    """
    factor = 1 / len(samples) + (1 / (folds - 1) if folds else 0)
    return float(samples.std(ddof=1) * np.sqrt(factor))


def relative_change(
    values: Float[np.ndarray, "S K"], baseline: Float[np.ndarray, "S K"], metrics: Sequence[Metric]
) -> Float[np.ndarray, "S K"]:
    """Improvement over the baseline of each metric and seed, in % of the baseline's mean.

    The difference is taken per seed and divided by the mean over seeds. So the mean of the changes
    is the change of the mean, and their spread includes the uncertainty of the baseline. NaN where
    the baseline's mean is 0.
    """
    sign = np.array([metric.sign for metric in metrics])
    scale = np.abs(nanmean(baseline))
    return 100 * sign * (values - baseline) / np.where(scale > 0, scale, np.nan)


def delta_m(
    change: Float[np.ndarray, "*S K"], metrics: Sequence[Metric]
) -> Float[np.ndarray, "*S"]:
    """Mean change over the metrics within a task, then over tasks: delta_m in %, higher is better.

    Example:
      >>> metrics = Metric("digit", "accuracy", True), Metric("value", "mae", False)
      >>> stl, mtl = np.array([[0.8, 2.0]]), np.array([[0.88, 1.8]])
      >>> delta_m(relative_change(mtl, stl, metrics), metrics).round(6).tolist()
      [10.0]

    References:
      Maninis et al., 2019, arXiv:1904.08918, with the sign by which better is positive
    """
    tasks = list(dict.fromkeys(metric.task for metric in metrics))
    columns = lambda task: [k for k, metric in enumerate(metrics) if metric.task == task]
    return np.mean([change[..., columns(task)].mean(-1) for task in tasks], axis=0)


def mean_ranks(
    means: Float[np.ndarray, "M K"], metrics: Sequence[Metric]
) -> Float[np.ndarray, " M"]:
    """Mean over task metrics of each method's rank (MR), 1 the best; equal values share a rank.

    References:
      Navon et al., 2022, arXiv:2202.01017
    """
    sign = np.array([-metric.sign for metric in metrics])
    known = ~np.isnan(means).any(1)
    ranks = np.full(len(means), np.nan)
    if known.any():
        ranks[known] = stats.rankdata(sign * means[known], axis=0).mean(1)
    return ranks


def paired_t_test(a: Float[np.ndarray, " S"], b: Float[np.ndarray, " S"], folds: int = 0) -> float:
    """Two-sided p value of a paired t test over the common samples; NaN for fewer than two.

    With `folds`, the corrected resampled t test; see `standard_error`.
    """
    difference = (a - b)[~np.isnan(a - b)]
    if len(difference) < 2:
        return float("nan")
    if np.ptp(difference) <= 1e-12 * np.abs(difference).max():
        return 1.0 if np.abs(difference).max() == 0 else 0.0
    t = difference.mean() / standard_error(difference, folds)
    return float(2 * stats.t.sf(abs(t), len(difference) - 1))


def holm_correction(p: Float[np.ndarray, " C"]) -> Float[np.ndarray, " C"]:
    """p values adjusted by Holm's step-down method; NaN remains NaN and is not counted.

    Example:
      >>> holm_correction(np.array([0.01, 0.04])).tolist()
      [0.02, 0.04]

    References:
      Holm, 1979, "A simple sequentially rejective multiple test procedure"
    """
    adjusted = np.full(len(p), np.nan)
    order = np.argsort(p)[: np.sum(~np.isnan(p))]  # NaN is sorted to the end
    scaled = np.arange(len(order), 0, -1) * p[order]
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(scaled))
    return adjusted


def pareto_optimal(
    points: Float[np.ndarray, "N K"], metrics: Sequence[Metric]
) -> Bool[np.ndarray, " N"]:
    """True for points that no other point dominates.

    A point dominates another if it is at least as good in all metrics and better in one.

    Example:
      >>> both = Metric("a", "accuracy", True), Metric("b", "accuracy", True)
      >>> pareto_optimal(np.array([[0.9, 0.5], [0.8, 0.8], [0.7, 0.7]]), both).tolist()
      [True, True, False]
    """
    gain = points * [metric.sign for metric in metrics]
    dominates = (gain[:, None] >= gain).all(-1) & (gain[:, None] > gain).any(-1)
    return np.logical_not(dominates.any(0))


def nanmean(values: Float[np.ndarray, "S *K"]) -> Float[np.ndarray, "*K"]:
    """Mean over the first axis without NaN; NaN where all values are, without a warning."""
    known = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        return np.where(known, values, 0.0).sum(0) / known.sum(0)
