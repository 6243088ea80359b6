"""Collection of the members' results into the outcome of a comparison."""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from mtljax.comparison import statistics
from mtljax.comparison.outcome import Comparison, ComparisonRow, PairedTest
from mtljax.comparison.plan import Candidate, Method
from mtljax.comparison.statistics import Estimate, Metric, estimate
from mtljax.comparison.tuning import Tuning
from mtljax.config import Experiment
from mtljax.data.folds import Fold
from mtljax.runs.folder import read_result
from mtljax.runs.result import RunResult
from mtljax.runs.selection import selection_score
from mtljax.utils.text import joined

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
    experiment: Experiment,
    methods: Sequence[Method],
    seeds: Sequence[int],
    workdir: Path,
    folds: int = 0,
    tuning: Tuning | None = None,
) -> Comparison:
    """Reads the results of all members; validation chooses between the candidates of a method.

    In a cross-validation each fold chooses by itself, since the validation examples of a fold are
    test examples of others.

    Raises:
      ValueError: A result is damaged.
    """
    metrics = compared_metrics(experiment)
    numbers: list[Fold | None] = [Fold(number, folds) for number in range(1, folds + 1)]
    chosen = {
        m.name: [_choose(m, seeds, workdir, fold) for fold in numbers or [None]] for m in methods
    }
    row = functools.partial(_row, chosen=chosen, metrics=metrics, seeds=seeds, folds=folds)
    rows = [
        row(name, [m for m in methods if m.kind == "stl" and m.baseline == name])
        for name in dict.fromkeys(method.baseline for method in methods)
    ]
    rows += [row(m.name, [m]) for m in methods if m.kind == "method"]
    rows = _with_scores(rows, metrics)
    pairs = itertools.combinations(rows, 2)
    choices = itertools.chain.from_iterable(chosen.values())
    results = [result for choice in choices for result in choice.results.values()]
    return Comparison(
        experiment=experiment,
        metrics=metrics,
        seeds=tuple(seeds),
        rows=tuple(rows),
        tests=_adjusted(_test(b, a, b.delta_m, a.delta_m) for a, b in pairs),
        metric_tests=_metric_tests(rows, metrics),
        seeds_per_program=max((result.together for result in results), default=1),
        environment=merge_environments(results),
        folds=folds,
        tuning=tuning,
    )


def compared_metrics(experiment: Experiment) -> tuple[Metric, ...]:
    """Returns the metrics of all tasks that count in a comparison."""
    return tuple(
        Metric(task.name, name, higher)
        for task in experiment.tasks
        for name, higher in task.compared
    )


def merge_environments(results: Sequence[RunResult]) -> dict[str, str]:
    """Returns versions and devices of runs; all values where they differ."""
    values: dict[str, dict[str, None]] = {}
    for result in results:
        for name, value in {**result.environment, "device": result.device}.items():
            values.setdefault(name, {})[str(value)] = None
    return {name: ", ".join(distinct) for name, distinct in values.items()}


class _Choice(NamedTuple):
    """Candidate of a method, for all data or for one fold."""

    candidate: Candidate
    results: SeedResults


def read_results(
    candidate: Candidate, seeds: Sequence[int], workdir: Path, fold: Fold | None = None
) -> SeedResults:
    """Reads the results of the finished runs of a candidate."""
    results = {seed: read_result(candidate.folder(workdir, seed, fold)) for seed in seeds}
    return {seed: result for seed, result in results.items() if result is not None}


def validation_scores(candidate: Candidate, results: SeedResults) -> Float[np.ndarray, " S"]:
    """Validation scores of a candidate's finished runs, by which settings are chosen."""
    scores = [selection_score(candidate.experiment, r.validation) for r in results.values()]
    return np.array(scores, float)


def _choose(method: Method, seeds: Sequence[int], workdir: Path, fold: Fold | None) -> _Choice:
    """Candidate with the best mean validation score over seeds, and its results."""

    def score(choice: _Choice) -> float:
        scores = validation_scores(*choice)
        return float(scores.mean()) if len(scores) else float("inf")

    choices = (_Choice(c, read_results(c, seeds, workdir, fold)) for c in method.candidates)
    return min(choices, key=score)


def _row(
    name: str,
    methods: Sequence[Method],
    chosen: Mapping[str, Sequence[_Choice]],
    metrics: Sequence[Metric],
    seeds: Sequence[int],
    folds: int,
) -> ComparisonRow:
    """Row of one method, or of the single-task networks of all tasks."""
    kind = methods[0].kind
    values = np.full((folds or len(seeds), len(metrics)), np.nan)
    settings: list[str] = []
    costs: dict[str, list[np.ndarray]] = {cost: [] for cost in COSTS}
    telemetry: Mapping[str, Estimate] = {}
    for method in methods:
        choices = chosen[method.name]
        for k, metric in enumerate(metrics):
            if metric.task in method.tasks:
                values[:, k] = _samples(choices, seeds, functools.partial(test_metric, metric))
        for cost in COSTS:
            costs[cost].append(_samples(choices, seeds, functools.partial(_cost, cost)))
        if kind != "stl":
            telemetry = _telemetry(choices, seeds, folds)
        if text := _settings(choices):
            settings.append(f"{method.tasks[0]}: {text}" if kind == "stl" else text)
    return ComparisonRow(
        name=name,
        kind=kind,
        settings="; ".join(settings),
        values=values,
        delta_m=np.full(len(values), np.nan),
        costs={cost: estimate(reduce(costs[cost], 0), folds) for cost, reduce in COSTS.items()},
        telemetry=telemetry,
        baseline="" if kind == "stl" else methods[0].baseline,
        folds=folds,
    )


def _samples(
    choices: Sequence[_Choice], seeds: Sequence[int], read: Callable[[RunResult], float | None]
) -> Float[np.ndarray, " S"]:
    """Value of each seed, or of each fold, as the mean over its seeds; NaN where it is unknown."""
    values = [
        [read(results[seed]) if seed in results else None for seed in seeds]
        for _, results in choices
    ]
    table = np.array(values, float)
    return table[0] if len(choices) == 1 else statistics.nanmean(table.T)


def test_metric(metric: Metric, result: RunResult) -> float:
    """Returns a metric on the test split."""
    return result.test[metric.task].get(metric.name, np.nan)


def _cost(name: str, result: RunResult) -> float | None:
    value = getattr(result, name)
    return value.total if value is not None and name == "parameters" else value


def _telemetry(choices: Sequence[_Choice], seeds: Sequence[int], folds: int) -> dict[str, Estimate]:
    results = [result for choice in choices for result in choice.results.values()]
    names = dict.fromkeys(name for result in results for name in result.telemetry)
    read = lambda result, name: result.telemetry.get(name)
    return {
        name: estimate(_samples(choices, seeds, functools.partial(read, name=name)), folds)
        for name in names
    }


def _settings(choices: Sequence[_Choice]) -> str:
    """Chosen settings as text, with their folds if these chose different ones."""
    folds: dict[str, list[str]] = {}
    for number, (candidate, _) in enumerate(choices, 1):
        folds.setdefault(candidate.settings, []).append(str(number))
    if len(folds) == 1:
        return choices[0].candidate.settings
    names = {text: "folds" if len(parts) > 1 else "fold" for text, parts in folds.items()}
    return ", ".join(f"{text} in {names[text]} {joined(p)}" for text, p in folds.items())


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
        difference=estimate(a - b, first.folds),
        p=statistics.paired_t_test(a, b, first.folds),
        metric=metric,
    )


def _adjusted(tests: Iterable[PairedTest]) -> tuple[PairedTest, ...]:
    """Tests with p values corrected for multiple testing."""
    tests = tuple(tests)
    p = statistics.holm_correction(np.array([test.p for test in tests])).tolist()
    return tuple(dataclasses.replace(t, adjusted_p=q) for t, q in zip(tests, p, strict=True))
