"""Collection of the members' results into the outcome of a comparison."""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from mtljax.comparison import statistics
from mtljax.comparison.outcome import Comparison, ComparisonRow, PairedTest
from mtljax.comparison.plan import Candidate, Method
from mtljax.comparison.statistics import Estimate, Metric, estimate
from mtljax.config import Experiment
from mtljax.runs.folder import read_result
from mtljax.runs.result import RunResult
from mtljax.runs.selection import selection_score

COSTS: Mapping[str, Callable[..., np.ndarray]] = {
    "ms_per_step": np.sum,
    "memory_bytes": np.max,
    "compile_seconds": np.sum,
    "parameters": np.sum,
}
"""Reported costs, and the reduction of each over single-task networks."""
SeedResults = Mapping[int, RunResult]
"""Results of the finished runs by seed."""


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
    row = functools.partial(_row, chosen=chosen, metrics=metrics, seeds=seeds)
    rows = [
        row(name, [m for m in methods if m.kind == "stl" and m.baseline == name])
        for name in dict.fromkeys(method.baseline for method in methods)
    ]
    rows += [row(m.name, [m]) for kind in ("method", "front") for m in methods if m.kind == kind]
    rows = _with_scores(rows, metrics)
    pairs = itertools.combinations([row for row in rows if row.kind != "front"], 2)
    results = [result for _, by_seed in chosen.values() for result in by_seed.values()]
    return Comparison(
        experiment=experiment,
        metrics=metrics,
        seeds=tuple(seeds),
        rows=tuple(rows),
        tests=_adjusted(_test(b, a, b.delta_m, a.delta_m) for a, b in pairs),
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
        scores = [selection_score(candidate.experiment, r.validation) for r in results.values()]
        return float(np.mean(scores)) if scores else float("inf")

    return min(((c, read(c)) for c in method.candidates), key=score)


def _row(
    name: str,
    methods: Sequence[Method],
    chosen: Mapping[str, tuple[Candidate, SeedResults]],
    metrics: Sequence[Metric],
    seeds: Sequence[int],
) -> ComparisonRow:
    """Row of one method, or of the single-task networks of all tasks."""
    kind = methods[0].kind
    values = np.full((len(seeds), len(metrics)), np.nan)
    settings: list[str] = []
    costs: dict[str, list[np.ndarray]] = {cost: [] for cost in COSTS}
    telemetry: Mapping[str, Estimate] = {}
    for method in methods:
        candidate, results = chosen[method.name]
        for (s, seed), (k, metric) in itertools.product(enumerate(seeds), enumerate(metrics)):
            if seed in results and metric.task in method.tasks:
                values[s, k] = results[seed].test[metric.task].get(metric.name, np.nan)
        for cost in COSTS:
            costs[cost].append(_cost(cost, results, seeds))
        if kind != "stl":
            telemetry = _telemetry(results)
        if candidate.settings:
            task = f"{method.tasks[0]}: " if kind == "stl" else ""
            settings.append(task + candidate.settings)
    return ComparisonRow(
        name=name,
        kind=kind,
        settings="; ".join(settings),
        values=values,
        delta_m=np.full(len(seeds), np.nan),
        costs={cost: estimate(reduce(costs[cost], 0)) for cost, reduce in COSTS.items()},
        telemetry=telemetry,
        baseline="" if kind == "stl" else methods[0].baseline,
    )


def _cost(name: str, results: SeedResults, seeds: Sequence[int]) -> Float[np.ndarray, " S"]:
    values = [getattr(results.get(seed), name, None) for seed in seeds]
    if name == "parameters":
        values = [parameters and parameters.total for parameters in values]
    return np.array(values, float)


def _telemetry(results: SeedResults) -> dict[str, Estimate]:
    names = dict.fromkeys(name for result in results.values() for name in result.telemetry)
    return {
        name: estimate(np.array([r.telemetry.get(name, np.nan) for r in results.values()], float))
        for name in names
    }


def _with_scores(rows: Sequence[ComparisonRow], metrics: Sequence[Metric]) -> list[ComparisonRow]:
    """Rows with delta_m relative to the first row, and the methods' mean ranks."""
    methods = [row for row in rows if row.kind == "method"]
    means = [[row.metric(k).mean for k in range(len(metrics))] for row in methods]
    ranks = statistics.mean_ranks(np.array(means), metrics).tolist() if methods else ()
    rank_of = {row.name: rank for row, rank in zip(methods, ranks, strict=True)}

    def scored(row: ComparisonRow) -> ComparisonRow:
        change = statistics.relative_change(row.values, rows[0].values, metrics)
        delta_m, rank = statistics.delta_m(change, metrics), rank_of.get(row.name, np.nan)
        return dataclasses.replace(row, delta_m=delta_m, mean_rank=rank)

    return [scored(row) for row in rows]


def _metric_tests(
    rows: Sequence[ComparisonRow], metrics: Sequence[Metric]
) -> tuple[PairedTest, ...]:
    methods = [row for row in rows if row.kind == "method"]
    pairs = [(row, base) for row in methods for base in rows if base.name == row.baseline]
    pairs += [(row, methods[0]) for row in methods[1:]]
    return _adjusted(
        _test(a, b, a.values[:, k], b.values[:, k], metric)
        for a, b in pairs
        for k, metric in enumerate(metrics)
    )


def _test(
    first: ComparisonRow,
    second: ComparisonRow,
    a: Float[np.ndarray, " S"],
    b: Float[np.ndarray, " S"],
    metric: Metric | None = None,
) -> PairedTest:
    return PairedTest(
        first=first.name,
        second=second.name,
        difference=estimate(a - b),
        p=statistics.paired_t_test(a, b),
        metric=metric,
    )


def _adjusted(tests: Iterable[PairedTest]) -> tuple[PairedTest, ...]:
    """Tests with p values corrected for multiple testing."""
    tests = tuple(tests)
    p = statistics.holm_correction(np.array([test.p for test in tests])).tolist()
    return tuple(dataclasses.replace(t, adjusted_p=q) for t, q in zip(tests, p, strict=True))
