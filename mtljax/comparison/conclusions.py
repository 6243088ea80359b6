"""Conclusions of a comparison as sentences."""

import numpy as np

from mtljax.comparison.outcome import Comparison, ComparisonRow, PairedTest
from mtljax.comparison.statistics import Estimate
from mtljax.utils.text import count, joined, number

MOST = 3
"""Maximum number of methods or metrics that a sentence lists with numbers."""


def conclusions(comparison: Comparison) -> list[str]:
    """Returns the conclusions, the most important first, each with its significance."""
    methods = [row for row in comparison.rows_of("method") if row.has_results]
    if not methods:
        return ["No run of a method was completed, so there is nothing to compare."]
    if not any(row.improvement.seeds for row in comparison.rows_of("stl")):
        return ["The runs of the single-task baselines were not completed, so Δm is unknown."]
    sentences = [_against_baselines(comparison, methods)]
    if len(methods) > 1:
        sentences.append(_against_first(comparison, methods))
    if len(comparison.metrics) > 1 and _tested(comparison.metric_tests):
        sentences.append(_per_metric(comparison))
    tuning = [] if comparison.tuning is None else [comparison.tuning.text]
    return [*sentences, *_unmeasured(comparison), *tuning, _tests(comparison)]


def format_percent(value: Estimate) -> str:
    """Formats an estimate in percent: `+1.20 ± 0.30 %`."""
    if np.isnan(value.mean):
        return "n/a"
    half_width = "" if np.isnan(value.half_width) else f" ± {value.half_width:.2f}"
    return f"{value.mean:+.2f}{half_width} %"


def _against_baselines(comparison: Comparison, methods: list[ComparisonRow]) -> str:
    undecided = "not significantly different from"
    groups: dict[str, list[ComparisonRow]] = {"better than": [], "worse than": [], undecided: []}
    for row in methods:
        test = comparison.test(row.name, row.baseline)
        relation = f"{_direction(test)} than" if test and test.significant else undecided
        groups[relation].append(row)
    parts = [
        f"{relation} single-task learning with {_with_delta_m(rows)}"
        for relation, rows in groups.items()
        if rows
    ]
    samples = f" at {_samples(comparison)}" * bool(groups[undecided])
    return f"Multi-task learning is {'; '.join(parts)}{samples}."


def _against_first(comparison: Comparison, methods: list[ComparisonRow]) -> str:
    """Sentence on the differences from the first method, which is usually the simplest."""
    first, *rest = methods
    tests = [(row, comparison.test(row.name, first.name)) for row in rest]
    parts = [
        f"{row.name} is {_direction(test)} than {first.name} by "
        f"{number(abs(test.difference.mean))} percentage points of Δm ({_p(test)})"
        for row, test in tests
        if test is not None and test.significant
    ]
    equal = [(row, test) for row, test in tests if test is None or not test.significant]
    if equal:
        different = f"significantly different from {first.name}"
        samples = f"at {_samples(comparison)}"
        if len(equal) == len(rest) > MOST:
            least = min((test for _, test in equal if test), key=lambda test: test.adjusted_p)
            parts.append(f"No other method is {different} {samples} (smallest {_p(least)})")
        else:
            names = [f"{row.name} ({_p(test)})" for row, test in equal]
            parts.append(f"{joined(names)} {_is(names)} not {different} {samples}")
    best = max(methods, key=lambda row: row.improvement.mean)
    return f"{'; '.join(parts)}. Highest mean Δm: {_with_delta_m([best])}."


def _per_metric(comparison: Comparison) -> str:
    """Sentence on the significant differences in single metrics."""
    significant: dict[tuple[str, str, str], list[str]] = {}
    for test in sorted(comparison.metric_tests, key=lambda test: test.adjusted_p):
        if test.significant and test.metric is not None:
            metric = f"{test.metric.task} {comparison.spec(test.metric).label} ({_p(test)})"
            key = test.first, _direction(test), test.second
            significant.setdefault(key, []).append(metric)
    if not significant:
        least = np.nanmin([test.adjusted_p for test in comparison.metric_tests])
        return f"Per metric, no difference is significant (smallest p = {least:.2g})."
    parts = []
    for (first, direction, second), names in list(significant.items())[:MOST]:
        metrics = names[:MOST] + [f"{len(names) - MOST} more"] * (len(names) > MOST)
        parts.append(f"{first} is {direction} than {second} in {joined(metrics)}")
    if len(significant) > MOST:
        total = sum(map(len, significant.values()))
        parts.append(f"{count(total, 'difference')} in total are significant")
    return f"Per metric, {'; '.join(parts)}."


def _unmeasured(comparison: Comparison) -> list[str]:
    """Sentence on the metrics that some folds do not have, although they were trained."""
    folds: dict[str, int] = {}
    for k, metric in enumerate(comparison.metrics):
        values = np.array([row.values for row in comparison.rows])
        missing = np.isnan(values[:, :, k]) & ~np.isnan(values).all(2)
        if comparison.folds and missing.any():
            name = f"{metric.task} {comparison.spec(metric).label}"
            folds[name] = comparison.folds - int(missing.any(0).sum())
    parts = [f"{name} in {count} of {comparison.folds} folds" for name, count in folds.items()]
    return [f"Measured in some folds only: {joined(parts)}; Δm is over those."] if parts else []


def _tests(comparison: Comparison) -> str:
    """Sentence on the statistical tests and their scope."""
    of_delta_m, of_metrics = _tested(comparison.tests), _tested(comparison.metric_tests)
    if not of_delta_m and comparison.folds:
        return "No tests: fewer than two folds were completed by two methods."
    if not of_delta_m:
        return "No tests: one seed gives no variance estimate; train more with --seeds 5."
    separate = f" of Δm and, separately, {of_metrics} of single metrics"
    scope = (
        f"p values adjusted by Holm's method for {count(of_delta_m, 'comparison')}"
        f"{separate * (len(comparison.metrics) > 1)}; 95 % confidence intervals by Student's t"
    )
    if comparison.folds:
        return (
            f"Corrected resampled t tests (Nadeau and Bengio, 2003), paired by fold, over "
            f"{comparison.samples}, {scope} with the same correction. They cover the choice of "
            "training and test examples, approximately: training sets of folds overlap."
        )
    return (
        f"Paired t tests over {_samples(comparison)}, {scope}. They cover the variance between "
        "training runs, not the sampling of the test split."
    )


def _with_delta_m(rows: list[ComparisonRow]) -> str:
    """Names with delta_m; of many methods only the range."""
    if len(rows) > MOST:
        ordered = sorted(rows, key=lambda row: row.improvement.mean)
        low, high = (
            f"{format_percent(row.improvement)} ({row.name})" for row in (ordered[0], ordered[-1])
        )
        return f"{joined([row.name for row in rows])}, Δm from {low} to {high},"
    return joined([f"{row.name} (Δm {format_percent(row.improvement)})" for row in rows])


def _direction(test: PairedTest) -> str:
    return "better" if test.better else "worse"


def _p(test: PairedTest | None) -> str:
    if test is None or np.isnan(test.adjusted_p):
        return "not tested"
    return format_p(test.adjusted_p)


def format_p(p: float) -> str:
    """Formats a p value: `p = 0.03`, `p < 0.001`."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.2g}"


def _is(names: list[str]) -> str:
    return "is" if len(names) == 1 else "are"


def _tested(tests: tuple[PairedTest, ...]) -> int:
    return sum(not np.isnan(test.p) for test in tests)


def _samples(comparison: Comparison) -> str:
    """Smallest number of finished seeds or folds of a row that has any."""
    samples = [row.improvement.seeds for row in comparison.rows]
    return count(min(filter(None, samples), default=0), comparison.unit)
