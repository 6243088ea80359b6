"""What numbers of several runs say: differences, ranks, intervals and tests. Pure NumPy and SciPy.

Values are arrays [S, K]: S seeds, K metrics of all tasks one after the other. A run that is missing
is a row of NaN, and whatever needs it is computed from the others.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy import stats

LEVEL = 0.05
"""Of significance; intervals are of 1 - LEVEL."""


class Metric(NamedTuple):
    """A metric of a task that counts in a comparison."""

    task: str
    name: str
    higher: bool
    """Whether higher is better."""


class Estimate(NamedTuple):
    """A mean over seeds and the half width of its 95 % interval, NaN for fewer than two seeds."""

    mean: float
    half: float
    seeds: int

    @property
    def low(self) -> float:
        return self.mean - self.half

    @property
    def high(self) -> float:
        return self.mean + self.half


def estimate(samples: Float[np.ndarray, " S"]) -> Estimate:
    """Mean and 95 % interval by Student's t over the samples that are not NaN."""
    known = samples[~np.isnan(samples)]
    if not len(known):
        return Estimate(np.nan, np.nan, 0)
    half = np.nan
    if len(known) > 1:
        error = known.std(ddof=1) / np.sqrt(len(known))
        half = float(stats.t.ppf(1 - LEVEL / 2, len(known) - 1) * error)
    return Estimate(float(known.mean()), half, len(known))


def relative_change(
    values: Float[np.ndarray, "S K"],
    baseline: Float[np.ndarray, "S K"],
    metrics: Sequence[Metric],
) -> Float[np.ndarray, "S K"]:
    """How much better than the baseline each metric of each seed is, in % of the baseline's mean.

    The difference is taken seed by seed and divided by the mean over seeds, so the mean of the
    changes is the change of the mean, and their spread has the baseline's uncertainty in it too.
    NaN where the baseline's mean is 0.
    """
    sign = np.array([1.0 if metric.higher else -1.0 for metric in metrics])
    scale = np.abs(_mean(baseline))
    scale = np.where(scale > 0, scale, np.nan)
    return 100 * sign * (values - baseline) / scale


def delta_m(
    change: Float[np.ndarray, "*S K"], metrics: Sequence[Metric]
) -> Float[np.ndarray, "*S"]:
    """Mean change over the metrics within a task, then over tasks: delta_m in %, higher is better.

    Example:
      >>> metrics = Metric("digit", "accuracy", True), Metric("value", "mae", False)
      >>> separate, together = np.array([[0.8, 2.0]]), np.array([[0.88, 1.8]])
      >>> delta_m(relative_change(together, separate, metrics), metrics).round(6).tolist()
      [10.0]

    References:
      Maninis et al., 2019, arXiv:1904.08918, with the sign by which better is positive
    """
    tasks = list(dict.fromkeys(metric.task for metric in metrics))
    of = lambda task: [k for k, metric in enumerate(metrics) if metric.task == task]
    return np.mean([change[..., of(task)].mean(-1) for task in tasks], axis=0)


def mean_ranks(
    means: Float[np.ndarray, "M K"], metrics: Sequence[Metric]
) -> Float[np.ndarray, " M"]:
    """MR: the mean over task metrics of each method's rank, 1 the best; equals share a rank.

    References:
      Navon et al., 2022, arXiv:2202.01017
    """
    sign = np.array([-1.0 if metric.higher else 1.0 for metric in metrics])
    known = ~np.isnan(means).any(1)
    ranks = np.full(len(means), np.nan)
    if known.any():
        ranks[known] = stats.rankdata(sign * means[known], axis=0).mean(1)
    return ranks


def paired_p(a: Float[np.ndarray, " S"], b: Float[np.ndarray, " S"]) -> float:
    """Two-sided p of a paired t test over the seeds that both have; NaN for fewer than two."""
    difference = (a - b)[~np.isnan(a - b)]
    if len(difference) < 2:
        return float("nan")
    if np.ptp(difference) <= 1e-12 * np.abs(difference).max():
        return 1.0 if np.abs(difference).max() == 0 else 0.0
    return float(stats.ttest_1samp(difference, 0.0).pvalue)


def holm(p: Float[np.ndarray, " C"]) -> Float[np.ndarray, " C"]:
    """p values corrected for their number by Holm's step-down method; NaN stays and counts not.

    Example:
      >>> holm(np.array([0.01, 0.04])).tolist()
      [0.02, 0.04]

    References:
      Holm, 1979, "A simple sequentially rejective multiple test procedure"
    """
    corrected = np.full(len(p), np.nan)
    order = [i for i in np.argsort(p) if not np.isnan(p[i])]
    highest = 0.0
    for done, i in enumerate(order):
        highest = max(highest, min(1.0, (len(order) - done) * p[i]))
        corrected[i] = highest
    return corrected


def on_front(points: Float[np.ndarray, "N K"], metrics: Sequence[Metric]) -> np.ndarray:
    """Which points no other point beats: is at least as good in all metrics and better in one.

    Example:
      >>> both = Metric("a", "accuracy", True), Metric("b", "accuracy", True)
      >>> on_front(np.array([[0.9, 0.5], [0.8, 0.8], [0.7, 0.7]]), both).tolist()
      [True, True, False]
    """
    sign = np.array([1.0 if metric.higher else -1.0 for metric in metrics])
    gain = sign * points
    at_least = (gain[:, None] >= gain[None]).all(-1)
    better = (gain[:, None] > gain[None]).any(-1)
    return ~(at_least & better).any(0)


def _mean(values: Float[np.ndarray, "S K"]) -> Float[np.ndarray, " K"]:
    known = ~np.isnan(values)
    return np.where(known, values, 0).sum(0) / np.maximum(known.sum(0), 1)
