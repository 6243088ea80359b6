"""Outcome of a search: its trials, the settings that were trained again, and the best of them."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from mtljax.comparison import statistics
from mtljax.comparison.plan import Candidate
from mtljax.comparison.results import (
    SeedResults,
    compared_metrics,
    merge_environments,
    read_results,
    test_metric,
    validation_scores,
)
from mtljax.comparison.statistics import Estimate, Metric, estimate
from mtljax.config import Experiment
from mtljax.runs.selection import LOSS
from mtljax.tasks import MetricSpec
from mtljax.tuning.records import TrialRecord
from mtljax.tuning.space import Space

DEFAULT = "default"
"""Name of the setting of the experiment."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setting:
    """Setting that was trained with all seeds."""

    candidate: Candidate
    """The setting."""
    validation: Float[np.ndarray, " S"]
    """Score of each seed on validation; NaN for a run that failed."""
    test: Float[np.ndarray, "S K"]
    """Test metrics of each seed; NaN where they were not read."""

    @property
    def name(self) -> str:
        """Setting as text: `learning_rate=0.01, balancer=uw`."""
        return self.candidate.settings

    @property
    def score(self) -> float:
        """Mean validation score; infinite if a run failed."""
        mean = float(np.mean(self.validation))
        return math.inf if math.isnan(mean) else mean


@dataclasses.dataclass(frozen=True, kw_only=True)
class SearchOutcome:
    """Outcome of a search."""

    experiment: Experiment
    """Experiment with the default setting."""
    space: Space
    """Space that was searched."""
    trials: tuple[TrialRecord, ...]
    """Trials, by number."""
    importances: Mapping[str, float]
    """Fraction of the variance of the scores by parameter; empty if it is unknown."""
    metrics: tuple[Metric, ...]
    """Metrics of the table."""
    seeds: tuple[int, ...]
    """Random seeds of the settings."""
    default: Setting
    """Default setting."""
    finalists: tuple[Setting, ...]
    """Other settings that were trained with all seeds, in the order of their trials' scores."""
    environment: Mapping[str, str]
    """Versions and devices of the runs."""

    @property
    def settings(self) -> list[Setting]:
        """The default setting and the others."""
        return [self.default, *self.finalists]

    @property
    def best(self) -> Setting:
        """Setting with the lowest mean validation score; the default among equal ones."""
        return best_of(self.settings)

    @property
    def is_improved(self) -> bool:
        """True if a setting is better on validation than the default."""
        return self.best is not self.default

    @property
    def criterion(self) -> str:
        """Description of the score."""
        select = self.experiment.select
        if select == LOSS:
            return "mean logarithm of the tasks' losses"
        return f"{select}, where metrics of which more is better count as negative"

    def spec(self, metric: Metric) -> MetricSpec:
        """Label and number format of a metric."""
        return metric.spec(self.experiment.tasks)

    def count(self, state: str) -> int:
        """Number of trials in a state."""
        return sum(trial.state == state for trial in self.trials)

    def difference(self, k: int) -> tuple[Estimate, float]:
        """Test metric of the best setting minus that of the default, and the p value over seeds."""
        best, default = self.best.test[:, k], self.default.test[:, k]
        return estimate(best - default), statistics.paired_t_test(best, default)


def best_of(settings: Sequence[Setting]) -> Setting:
    """Returns the setting with the lowest mean validation score, the first of equal ones."""
    return min(settings, key=lambda setting: setting.score)


def collect(
    experiment: Experiment,
    space: Space,
    trials: Sequence[TrialRecord],
    importances: Mapping[str, float],
    candidates: Sequence[Candidate],
    seeds: Sequence[int],
    workdir: Path,
) -> SearchOutcome:
    """Reads the results of the settings, and the test metrics of the default and the best.

    Args:
      candidates: The default setting, then the others.

    Raises:
      ValueError: A result is damaged.
    """
    metrics = compared_metrics(experiment)
    unread = np.full((len(seeds), len(metrics)), np.nan)
    results = [read_results(candidate, seeds, workdir) for candidate in candidates]

    def setting(candidate: Candidate, results: SeedResults) -> Setting:
        scores = dict(zip(results, validation_scores(candidate, results), strict=True))
        validation = np.array([scores.get(seed, np.nan) for seed in seeds], float)
        return Setting(candidate=candidate, validation=validation, test=unread)

    def with_test(setting: Setting, results: SeedResults) -> Setting:
        rows = [
            [test_metric(metric, results[seed]) for metric in metrics] if seed in results else nan
            for seed, nan in zip(seeds, unread, strict=True)
        ]
        return dataclasses.replace(setting, test=np.array(rows, float))

    settings = list(map(setting, candidates, results))
    chosen = settings[0], best_of(settings)
    settings = [
        with_test(setting, of_seeds) if any(setting is c for c in chosen) else setting
        for setting, of_seeds in zip(settings, results, strict=True)
    ]
    return SearchOutcome(
        experiment=experiment,
        space=space,
        trials=tuple(trials),
        importances=importances,
        metrics=metrics,
        seeds=tuple(seeds),
        default=settings[0],
        finalists=tuple(settings[1:]),
        environment=merge_environments([x for of_seeds in results for x in of_seeds.values()]),
    )
