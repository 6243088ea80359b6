"""What a comparison found, in words."""

import numpy as np

from mtljax.comparison import statistics
from mtljax.comparison.outcome import Comparison, Row, Test
from mtljax.comparison.statistics import Estimate, Metric, estimate
from mtljax.utils.text import count, joined, number

MOST = 3
"""Methods that are told with their numbers, each; the tables have all."""


def conclusions(found: Comparison) -> list[str]:
    """The findings, the most important first, each with how sure it is."""
    methods = [row for row in found.kind("method") if not np.isnan(row.values).all()]
    if not methods:
        return ["No method was trained to the end, so there is nothing to compare."]
    if not any(estimate(row.delta).seeds for row in found.kind("stl")):
        return ["The single-task baselines were not trained to the end, so Δm is unknown."]
    said = [against_single(found, methods)]
    if len(methods) > 1:
        said.append(against_first(found, methods))
    if len(found.metrics) > 1 and any(not np.isnan(test.p) for test in found.metric_tests):
        said.append(by_task(found))
    if found.kind("front"):
        said.append(against_front(found, methods))
    return [*said, how_sure(found)]


def against_single(found: Comparison, methods: list[Row]) -> str:
    """Whether learning together helped."""
    better, worse, open_ = [], [], []
    for row in methods:
        test = found.test(row.name, row.baseline)
        if test is None or not test.significant:
            open_.append(row)
        elif test.better:
            better.append(row)
        else:
            worse.append(row)
    parts = []
    if better:
        parts.append(f"Learning together helped with {_with_delta(better)}")
    if worse:
        parts.append(f"Learning together hurt with {_with_delta(worse)}")
    if open_:
        start = "with" if parts else "Learning together with"
        verb = "it is" if parts else "is"
        parts.append(
            f"{start} {_with_delta(open_)} {verb} not distinguishable from separate networks "
            f"at {count(_seeds(found), 'seed')}"
        )
    return f"{'; '.join(parts)}."


def against_first(found: Comparison, methods: list[Row]) -> str:
    """How the methods differ from the first one, the plain choice."""
    first, others = methods[0], methods[1:]
    tests = [(row, found.test(row.name, first.name)) for row in others]
    parts = [_verdict(row, test) for row, test in tests if test is not None and test.significant]
    same = [(row, test) for row, test in tests if test is None or not test.significant]
    if same:
        at = f"distinguishable from {first.name} at {count(_seeds(found), 'seed')}"
        if len(same) == len(others) > MOST:
            least = min((test for _, test in same if test is not None), key=lambda t: t.corrected)
            parts.append(f"No other method is {at} (smallest {_p(least)})")
        else:
            names = joined([f"{row.name} ({_p(test)})" for row, test in same])
            parts.append(f"{names} {'is' if len(same) == 1 else 'are'} not {at}")
    best = max(methods, key=lambda row: estimate(row.delta).mean)
    return f"{'; '.join(parts)}. In the mean, Δm is highest for {_with_delta([best])}."


def by_task(found: Comparison) -> str:
    """In which metrics methods differ from separate networks, and from the first method."""
    clear: dict[tuple[str, str, str], list[Test]] = {}
    for test in sorted(found.metric_tests, key=lambda test: test.corrected):
        if test.significant:
            verb = "better" if test.better else "worse"
            clear.setdefault((test.first, verb, test.second), []).append(test)
    if not clear:
        least = np.nanmin([test.corrected for test in found.metric_tests])
        return f"Task by task, no difference is clear (smallest p = {least:.2g})."
    parts = []
    for (first, verb, second), tests in list(clear.items())[:MOST]:
        named = [f"{_metric(found, test.metric)} ({_p(test)})" for test in tests[:MOST]]
        named += [f"{len(tests) - MOST} more"] * (len(tests) > MOST)
        parts.append(f"{first} is {verb} than {second} in {joined(named)}")
    if len(clear) > MOST:
        parts.append(f"and so on: {sum(map(len, clear.values()))} clear differences in all")
    return f"Task by task, {'; '.join(parts)}."


def against_front(found: Comparison, methods: list[Row]) -> str:
    """Which methods a fixed weighting beats in every metric."""
    front = [row for row in found.kind("front") if not np.isnan(row.values).all()]
    if not front:
        return "No fixed weighting was trained to the end."
    of = lambda row: [row.of(k).mean for k in range(len(found.metrics))]
    beaten: list[str] = []
    free: list[str] = []
    for row in methods:
        points = np.array([of(row), *map(of, front)])
        (free if statistics.on_front(points, found.metrics)[0] else beaten).append(row.name)
    parts = []
    if free:
        parts.append(f"{joined(free)} {_is(free)} on or beyond the front of fixed weightings")
    if beaten:
        parts.append(f"{joined(beaten)} {_is(beaten)} beaten by a fixed weighting in every metric")
    return f"By means over seeds, without a test: {'; '.join(parts)}."


def how_sure(found: Comparison) -> str:
    """What the tests are, and what they do not cover."""
    made = sum(not np.isnan(test.p) for test in found.tests)
    if not made:
        return "One seed says nothing about chance, so nothing was tested; --seeds 5 trains more."
    single = sum(not np.isnan(test.p) for test in found.metric_tests)
    apart = f" of Δm and, apart from them, {single} of single metrics" * (len(found.metrics) > 1)
    return (
        f"Paired t tests over {count(_seeds(found), 'seed')}, p corrected by Holm's method for "
        f"{count(made, 'comparison')}{apart}; intervals are 95 % by Student's t. They cover the "
        "chance in training, not that of which images are in the test split."
    )


def _verdict(row: Row, test: Test) -> str:
    verb = "better" if test.better else "worse"
    return (
        f"{row.name} is {verb} than {test.second} by {number(abs(test.difference.mean))} points "
        f"of Δm ({_p(test)})"
    )


def _with_delta(rows: list[Row]) -> str:
    if len(rows) > MOST:
        low, high = sorted(rows, key=lambda row: estimate(row.delta).mean)[:: len(rows) - 1]
        ends = f"{percent(estimate(low.delta))} ({low.name}) to "
        ends += f"{percent(estimate(high.delta))} ({high.name})"
        return f"{joined([row.name for row in rows])}, Δm from {ends},"
    return joined([f"{row.name} (Δm {percent(estimate(row.delta))})" for row in rows])


def percent(value: Estimate) -> str:
    """`+1.2 ± 0.3 %`."""
    if np.isnan(value.mean):
        return "n/a"
    half = "" if np.isnan(value.half) else f" ± {value.half:.2f}"
    return f"{value.mean:+.2f}{half} %"


def _metric(found: Comparison, metric: Metric | None) -> str:
    return "Δm" if metric is None else f"{metric.task} {found.spec(metric).label}"


def _p(test: Test | None) -> str:
    if test is None or np.isnan(test.corrected):
        return "not tested"
    return "p < 0.001" if test.corrected < 0.001 else f"p = {test.corrected:.2g}"


def _is(names: list[str]) -> str:
    return "is" if len(names) == 1 else "are"


def _seeds(found: Comparison) -> int:
    return min(
        (estimate(row.delta).seeds for row in found.rows if estimate(row.delta).seeds), default=0
    )
