"""What came out of a comparison, from the `result.json` of its members and nothing else."""

import dataclasses
import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from mtljax.comparison import statistics
from mtljax.comparison.plan import Candidate, Kind, Method
from mtljax.comparison.statistics import Estimate, Metric, estimate
from mtljax.config import Experiment
from mtljax.runs.folder import read_result
from mtljax.runs.selection import selection_score

Results = dict[int, dict[str, Any]]
"""Seed -> what its result.json says."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """What is known of a method, or of the baselines of all tasks together."""

    name: str
    kind: Kind
    settings: str
    """The point of the grid that validation chose."""
    values: Float[np.ndarray, "S K"]
    """Test metrics by seed; NaN where a run is missing."""
    delta: Float[np.ndarray, " S"]
    """delta_m in % by seed, against the comparison's first baselines."""
    costs: dict[str, Estimate]
    """`ms_per_step`, `memory_bytes`, `compile_seconds`, `parameters`; of baselines the sum over
    tasks, but the most of the memory."""
    telemetry: dict[str, Estimate]
    """Means over training of what the tasks' gradients were like."""
    rank: float = float("nan")
    """MR among methods."""
    baseline: str = ""
    """The row of the baselines with the same settings."""

    def of(self, metric: int) -> Estimate:
        """A test metric over seeds."""
        return estimate(self.values[:, metric])


@dataclasses.dataclass(frozen=True, kw_only=True)
class Test:
    """Whether two rows differ, by a paired t test over seeds."""

    first: str
    second: str
    difference: Estimate
    """First minus second: of delta_m, in percentage points, or of a metric, in its unit."""
    p: float
    corrected: float
    """p after Holm's correction for all tests of delta_m, or all of metrics."""
    metric: Metric | None = None
    """What is looked at; None: delta_m."""

    @property
    def better(self) -> bool:
        """Whether the first is better in the mean."""
        return (self.difference.mean > 0) == (self.metric is None or self.metric.higher)

    @property
    def significant(self) -> bool:
        """Whether chance alone would rarely look like this."""
        return self.corrected < statistics.LEVEL


@dataclasses.dataclass(frozen=True, kw_only=True)
class Comparison:
    """All that a comparison found."""

    experiment: Experiment
    metrics: tuple[Metric, ...]
    seeds: tuple[int, ...]
    rows: tuple[Row, ...]
    """Baselines, methods, fixed weightings."""
    tests: tuple[Test, ...]
    """Of delta_m, between all methods and the baselines."""
    metric_tests: tuple[Test, ...]
    """Of every metric, between each method and its baselines, and the methods and the first."""
    together: int
    """The most seeds that were trained side by side."""
    environment: dict[str, str]
    """Versions and the device, of the runs: all of them, where they differ."""

    def kind(self, *kinds: Kind) -> list[Row]:
        """The rows of some kinds."""
        return [row for row in self.rows if row.kind in kinds]

    def test(self, first: str, second: str) -> Test | None:
        """The test between two rows, in this order; None if it was not made."""
        for test in self.tests:
            if (test.first, test.second) == (first, second):
                return test
            if (test.second, test.first) == (first, second):
                turned = test.difference._replace(mean=-test.difference.mean)
                return dataclasses.replace(test, first=first, second=second, difference=turned)
        return None


def collect(
    experiment: Experiment, methods: Sequence[Method], seeds: Sequence[int], workdir: Path
) -> Comparison:
    """Reads what the members found. Validation chooses between candidates; tests are of its choice.

    Raises:
      ValueError: A result is damaged.
    """
    metrics = tuple(
        Metric(task.name, name, higher)
        for task in experiment.tasks
        for name, higher in task.compared
    )
    chosen = {method.name: choose(method, seeds, workdir) for method in methods}
    bases = []
    for name in dict.fromkeys(method.baseline for method in methods):
        single = [m for m in methods if m.kind == "stl" and m.baseline == name]
        bases.append(baseline(name, single, chosen, metrics, seeds))
    # One reference for all rows, so that their delta_m can be compared with each other.
    reference = bases[0].values
    rows = [dataclasses.replace(row, delta=delta(row.values, reference, metrics)) for row in bases]
    for method in methods:
        if method.kind != "stl":
            row = row_of(method, *chosen[method.name], metrics, seeds, reference)
            rows.append(dataclasses.replace(row, baseline=method.baseline))
    rows = ranked(rows, metrics)
    order = {"stl": 0, "method": 1, "front": 2}
    rows.sort(key=lambda row: order[row.kind])
    return Comparison(
        experiment=experiment,
        metrics=metrics,
        seeds=tuple(seeds),
        rows=tuple(rows),
        tests=tests([row for row in rows if row.kind != "front"]),
        metric_tests=metric_tests(rows, metrics),
        **environment([result for _, found in chosen.values() for result in found.values()]),
    )


def environment(results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """How and on what the runs were made."""
    told: dict[str, dict[str, None]] = {}
    for result in results:
        for name, value in {**result["environment"], "device": result["device"]}.items():
            told.setdefault(name, {})[str(value)] = None
    return {
        "together": max((result["together"] for result in results), default=1),
        "environment": {name: ", ".join(values) for name, values in told.items()},
    }


def choose(method: Method, seeds: Sequence[int], workdir: Path) -> tuple[Candidate, Results]:
    """The candidate that is best on validation in the mean over seeds, and its results."""

    def results(candidate: Candidate) -> Results:
        found = {seed: read_result(candidate.folder(workdir, seed)) for seed in seeds}
        return {seed: result for seed, result in found.items() if result is not None}

    def score(pair: tuple[Candidate, Results]) -> float:
        candidate, found = pair
        if not found:
            return float("inf")
        scores = [selection_score(candidate.experiment, r["validation"]) for r in found.values()]
        return float(np.mean(scores))

    return min(((c, results(c)) for c in method.candidates), key=score)


def row_of(
    method: Method,
    candidate: Candidate,
    results: Results,
    metrics: Sequence[Metric],
    seeds: Sequence[int],
    reference: Float[np.ndarray, "S K"],
) -> Row:
    """The row of a method."""
    values = values_of(results, metrics, seeds)
    return Row(
        name=method.name,
        kind=method.kind,
        settings=candidate.settings,
        values=values,
        delta=delta(values, reference, metrics),
        costs={name: estimate(cost_of(name, results, seeds)) for name in COSTS},
        telemetry=telemetry_of(results),
    )


def baseline(
    name: str,
    single: Sequence[Method],
    chosen: dict[str, tuple[Candidate, Results]],
    metrics: Sequence[Metric],
    seeds: Sequence[int],
) -> Row:
    """The single-task networks of all tasks as one row."""
    values = np.full((len(seeds), len(metrics)), np.nan)
    settings: list[str] = []
    costs: dict[str, list[np.ndarray]] = {name: [] for name in COSTS}
    for method in single:
        candidate, results = chosen[method.name]
        (task,) = method.tasks
        own = [k for k, metric in enumerate(metrics) if metric.task == task]
        values[:, own] = values_of(results, [metrics[k] for k in own], seeds)
        settings += [f"{task}: {candidate.settings}"] * bool(candidate.settings)
        for cost in COSTS:
            costs[cost].append(cost_of(cost, results, seeds))
    return Row(
        name=name,
        kind="stl",
        settings="; ".join(settings),
        values=values,
        delta=np.full(len(seeds), np.nan),
        costs={
            cost: estimate(
                np.max(costs[cost], 0) if COSTS[cost] == "max" else np.sum(costs[cost], 0)
            )
            for cost in COSTS
        },
        telemetry={},
    )


def delta(
    values: Float[np.ndarray, "S K"],
    reference: Float[np.ndarray, "S K"],
    metrics: Sequence[Metric],
) -> Float[np.ndarray, " S"]:
    """delta_m in % by seed."""
    return statistics.delta_m(statistics.relative_change(values, reference, metrics), metrics)


COSTS = {
    "ms_per_step": "sum",
    "memory_bytes": "max",
    "compile_seconds": "sum",
    "parameters": "sum",
}
"""What is told of each method, and how it adds up over the networks of single tasks."""


def values_of(
    results: Results, metrics: Sequence[Metric], seeds: Sequence[int]
) -> Float[np.ndarray, "S K"]:
    """Test metrics by seed, NaN where there is none."""
    values = np.full((len(seeds), len(metrics)), np.nan)
    for s, seed in enumerate(seeds):
        if seed in results:
            values[s] = [results[seed]["test"][metric.task][metric.name] for metric in metrics]
    return values


def cost_of(name: str, results: Results, seeds: Sequence[int]) -> Float[np.ndarray, " S"]:
    """A cost by seed, NaN where it is not known."""

    def of(result: dict[str, Any] | None) -> float:
        if result is None:
            return float("nan")
        if name == "parameters":
            return result["parameters"]["total"]
        return result.get(name, float("nan"))

    return np.array([of(results.get(seed)) for seed in seeds])


def telemetry_of(results: Results) -> dict[str, Estimate]:
    """Means over training and their interval over seeds."""
    found = [result.get("telemetry") or {} for result in results.values()]
    names = dict.fromkeys(name for told in found for name in told)
    values = {name: [told.get(name, np.nan) for told in found] for name in names}
    return {name: estimate(np.array(told, float)) for name, told in values.items()}


def ranked(rows: Sequence[Row], metrics: Sequence[Metric]) -> list[Row]:
    """The rows, methods with their mean rank among methods."""
    methods = [row for row in rows if row.kind == "method"]
    if not methods:
        return list(rows)
    means = np.array([[row.of(k).mean for k in range(len(metrics))] for row in methods])
    ranks = dict(zip((r.name for r in methods), statistics.mean_ranks(means, metrics), strict=True))
    return [dataclasses.replace(row, rank=float(ranks.get(row.name, np.nan))) for row in rows]


def tests(rows: Sequence[Row]) -> tuple[Test, ...]:
    """A test between every two rows, corrected for their number."""
    return corrected(
        Test(
            first=second.name,
            second=first.name,
            difference=estimate(second.delta - first.delta),
            p=statistics.paired_p(second.delta, first.delta),
            corrected=float("nan"),
        )
        for first, second in itertools.combinations(rows, 2)
    )


def metric_tests(rows: Sequence[Row], metrics: Sequence[Metric]) -> tuple[Test, ...]:
    """Tests of each metric, between each method and its baselines, and others and the first."""
    methods = [row for row in rows if row.kind == "method"]
    own = [(row, base) for row in methods for base in rows if base.name == row.baseline]
    return corrected(
        Test(
            first=row.name,
            second=other.name,
            difference=estimate(row.values[:, k] - other.values[:, k]),
            p=statistics.paired_p(row.values[:, k], other.values[:, k]),
            corrected=float("nan"),
            metric=metric,
        )
        for row, other in [*own, *((row, methods[0]) for row in methods[1:])]
        for k, metric in enumerate(metrics)
    )


def corrected(tests: Iterable[Test]) -> tuple[Test, ...]:
    """The tests, corrected for their number."""
    found = tuple(tests)
    p = statistics.holm(np.array([test.p for test in found]))
    return tuple(
        dataclasses.replace(test, corrected=float(value))
        for test, value in zip(found, p, strict=True)
    )
