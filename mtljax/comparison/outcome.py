"""Outcome of a comparison, computed from the `result.json` of its members only."""

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from mtljax.comparison import statistics
from mtljax.comparison.plan import Candidate, Kind, Method
from mtljax.comparison.statistics import Estimate, Metric, estimate
from mtljax.config import Experiment
from mtljax.runs.folder import read_result
from mtljax.runs.result import RunResult
from mtljax.runs.selection import selection_score
from mtljax.tasks import MetricSpec

COSTS: Mapping[str, Callable[..., np.ndarray]] = {
    "ms_per_step": np.sum,
    "memory_bytes": np.max,
    "compile_seconds": np.sum,
    "parameters": np.sum,
}
"""Reported costs, and the reduction of each over single-task networks."""


SeedResults = Mapping[int, RunResult]
"""Results of the finished runs by seed."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ComparisonRow:
    """Results of a method, or of the single-task baselines of all tasks together."""

    name: str
    kind: Kind
    settings: str
    """Grid point chosen on validation; empty without a grid."""
    values: Float[np.ndarray, "S K"]
    """Test metrics per seed; NaN for a missing run."""
    delta_m: Float[np.ndarray, " S"]
    """delta_m in % per seed, relative to the comparison's first baselines."""
    costs: Mapping[str, Estimate]
    """Costs by the names in `COSTS`; for baselines reduced over tasks (sum, memory: maximum)."""
    telemetry: Mapping[str, Estimate]
    """Gradient statistics, averaged over training."""
    mean_rank: float = float("nan")
    """MR among methods."""
    baseline: str = ""
    """Name of the row of baselines with the same settings."""

    def metric(self, index: int) -> Estimate:
        """Estimate of a test metric over seeds."""
        return estimate(self.values[:, index])

    @property
    def has_results(self) -> bool:
        """True if a run of the method is finished."""
        return not np.isnan(self.values).all()


@dataclasses.dataclass(frozen=True, kw_only=True)
class PairedTest:
    """Paired t test over seeds between two rows."""

    first: str
    second: str
    difference: Estimate
    """First minus second: delta_m in percentage points, or a metric in its unit."""
    p: float
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
    metrics: tuple[Metric, ...]
    seeds: tuple[int, ...]
    rows: tuple[ComparisonRow, ...]
    """Baselines, methods and fixed weightings, in this order."""
    tests: tuple[PairedTest, ...]
    """Tests of delta_m between all pairs of methods and baselines."""
    metric_tests: tuple[PairedTest, ...]
    """Tests of each metric: each method against its baselines and against the first method."""
    seeds_per_program: int
    """Largest number of seeds that were trained in one program."""
    environment: Mapping[str, str]
    """Versions and devices of the runs; all values where runs differ."""

    def spec(self, metric: Metric) -> MetricSpec:
        """Label and number format of a metric."""
        tasks = {task.name: task for task in self.experiment.tasks}
        return tasks[metric.task].metric_spec(metric.name)

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


def collect(
    experiment: Experiment, methods: Sequence[Method], seeds: Sequence[int], workdir: Path
) -> Comparison:
    """Reads the results of all members; validation chooses between the candidates of a method.

    Raises:
      ValueError: A result is damaged.
    """
    metrics = tuple(
        Metric(task.name, name, higher)
        for task in experiment.tasks
        for name, higher in task.compared
    )
    chosen = {method.name: _choose(method, seeds, workdir) for method in methods}
    baselines = []
    for name in dict.fromkeys(method.baseline for method in methods):
        single = [m for m in methods if m.kind == "stl" and m.baseline == name]
        baselines.append(_baseline_row(name, single, chosen, metrics, seeds))
    # One reference for all rows, so that their delta_m can be compared with each other.
    reference = baselines[0].values
    rows = baselines + [
        _method_row(method, *chosen[method.name], metrics, seeds)
        for method in sorted(methods, key=lambda method: method.kind == "front")
        if method.kind != "stl"
    ]
    rows = _with_ranks([_with_delta_m(row, reference, metrics) for row in rows], metrics)
    results = [result for _, by_seed in chosen.values() for result in by_seed.values()]
    return Comparison(
        experiment=experiment,
        metrics=metrics,
        seeds=tuple(seeds),
        rows=tuple(rows),
        tests=_delta_m_tests([row for row in rows if row.kind != "front"]),
        metric_tests=_metric_tests(rows, metrics),
        seeds_per_program=max((result.together for result in results), default=1),
        environment=_merge_environments(results),
    )


def _merge_environments(results: Sequence[RunResult]) -> dict[str, str]:
    values: dict[str, dict[str, None]] = {}
    for result in results:
        for name, value in {**result.environment, "device": result.device}.items():
            values.setdefault(name, {})[str(value)] = None
    return {name: ", ".join(distinct) for name, distinct in values.items()}


def _choose(method: Method, seeds: Sequence[int], workdir: Path) -> tuple[Candidate, SeedResults]:
    """Candidate with the best mean validation score over seeds, and its results."""

    def read(candidate: Candidate) -> SeedResults:
        results = {seed: read_result(candidate.folder(workdir, seed)) for seed in seeds}
        return {seed: result for seed, result in results.items() if result is not None}

    def score(pair: tuple[Candidate, SeedResults]) -> float:
        candidate, results = pair
        if not results:
            return float("inf")
        scores = [selection_score(candidate.experiment, r.validation) for r in results.values()]
        return float(np.mean(scores))

    return min(((c, read(c)) for c in method.candidates), key=score)


def _method_row(
    method: Method,
    candidate: Candidate,
    results: SeedResults,
    metrics: Sequence[Metric],
    seeds: Sequence[int],
) -> ComparisonRow:
    return ComparisonRow(
        name=method.name,
        kind=method.kind,
        settings=candidate.settings,
        values=_test_values(results, metrics, seeds),
        delta_m=np.full(len(seeds), np.nan),
        costs={name: estimate(_cost(name, results, seeds)) for name in COSTS},
        telemetry=_telemetry(results),
        baseline=method.baseline,
    )


def _baseline_row(
    name: str,
    single: Sequence[Method],
    chosen: Mapping[str, tuple[Candidate, SeedResults]],
    metrics: Sequence[Metric],
    seeds: Sequence[int],
) -> ComparisonRow:
    """Single-task networks of all tasks as one row."""
    values = np.full((len(seeds), len(metrics)), np.nan)
    settings: list[str] = []
    costs: dict[str, list[np.ndarray]] = {cost: [] for cost in COSTS}
    for method in single:
        candidate, results = chosen[method.name]
        (task,) = method.tasks
        columns = [k for k, metric in enumerate(metrics) if metric.task == task]
        values[:, columns] = _test_values(results, [metrics[k] for k in columns], seeds)
        settings += [f"{task}: {candidate.settings}"] * bool(candidate.settings)
        for cost in COSTS:
            costs[cost].append(_cost(cost, results, seeds))
    return ComparisonRow(
        name=name,
        kind="stl",
        settings="; ".join(settings),
        values=values,
        delta_m=np.full(len(seeds), np.nan),
        costs={cost: estimate(reduce(costs[cost], 0)) for cost, reduce in COSTS.items()},
        telemetry={},
    )


def _with_delta_m(
    row: ComparisonRow, reference: Float[np.ndarray, "S K"], metrics: Sequence[Metric]
) -> ComparisonRow:
    change = statistics.relative_change(row.values, reference, metrics)
    return dataclasses.replace(row, delta_m=statistics.delta_m(change, metrics))


def _test_values(
    results: SeedResults, metrics: Sequence[Metric], seeds: Sequence[int]
) -> Float[np.ndarray, "S K"]:
    values = np.full((len(seeds), len(metrics)), np.nan)
    for s, seed in enumerate(seeds):
        if seed in results:
            values[s] = [results[seed].test[metric.task][metric.name] for metric in metrics]
    return values


def _cost(name: str, results: SeedResults, seeds: Sequence[int]) -> Float[np.ndarray, " S"]:
    def value(result: RunResult | None) -> float | None:
        if result is None:
            return None
        if name == "parameters":
            return None if result.parameters is None else result.parameters.total
        return getattr(result, name)

    return np.array([value(results.get(seed)) for seed in seeds], float)


def _telemetry(results: SeedResults) -> dict[str, Estimate]:
    names = dict.fromkeys(name for result in results.values() for name in result.telemetry)
    return {
        name: estimate(np.array([r.telemetry.get(name, np.nan) for r in results.values()], float))
        for name in names
    }


def _with_ranks(rows: Sequence[ComparisonRow], metrics: Sequence[Metric]) -> list[ComparisonRow]:
    """Rows with the mean rank of each method among the methods."""
    methods = [row for row in rows if row.kind == "method"]
    if not methods:
        return list(rows)
    means = np.array([[row.metric(k).mean for k in range(len(metrics))] for row in methods])
    ranks = dict(zip((r.name for r in methods), statistics.mean_ranks(means, metrics), strict=True))
    return [dataclasses.replace(row, mean_rank=float(ranks.get(row.name, np.nan))) for row in rows]


def _delta_m_tests(rows: Sequence[ComparisonRow]) -> tuple[PairedTest, ...]:
    return _adjusted(
        PairedTest(
            first=second.name,
            second=first.name,
            difference=estimate(second.delta_m - first.delta_m),
            p=statistics.paired_t_test(second.delta_m, first.delta_m),
        )
        for first, second in itertools.combinations(rows, 2)
    )


def _metric_tests(
    rows: Sequence[ComparisonRow], metrics: Sequence[Metric]
) -> tuple[PairedTest, ...]:
    methods = [row for row in rows if row.kind == "method"]
    pairs = [(row, base) for row in methods for base in rows if base.name == row.baseline]
    pairs += [(row, methods[0]) for row in methods[1:]]
    return _adjusted(
        PairedTest(
            first=row.name,
            second=other.name,
            difference=estimate(row.values[:, k] - other.values[:, k]),
            p=statistics.paired_t_test(row.values[:, k], other.values[:, k]),
            metric=metric,
        )
        for row, other in pairs
        for k, metric in enumerate(metrics)
    )


def _adjusted(tests: Iterable[PairedTest]) -> tuple[PairedTest, ...]:
    """Tests with p values corrected for multiple testing."""
    tests = tuple(tests)
    p = statistics.holm_correction(np.array([test.p for test in tests]))
    return tuple(
        dataclasses.replace(test, adjusted_p=float(value))
        for test, value in zip(tests, p, strict=True)
    )
