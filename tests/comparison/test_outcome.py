"""From result.json to tables and sentences: a golden table, and an independent computation."""

import csv
import io
import itertools
import json

import numpy as np
import pytest
from scipy import stats
from support.comparison import EXPERIMENT, write_result, write_results

from mtljax.comparison import table
from mtljax.comparison.conclusions import conclusions
from mtljax.comparison.plan import plan
from mtljax.comparison.results import collect
from mtljax.comparison.statistics import estimate

VALUES = {
    "STL": [(0.80, 2.0, 4.0), (0.80, 2.0, 4.0)],
    "ew": [(0.88, 1.5, 5.0), (0.88, 1.5, 5.0)],  # +10, (+25 - 25) / 2: 5
    "uw": [(0.84, 1.0, 4.0), (0.76, 1.0, 4.0)],  # 0 in the mean, (+50 + 0) / 2: 12.5
}
# ew: no spread, so no width. uw: delta_m is 15 and 10, so t(0.975, 1) = 12.7062 times 2.5.
# MR: ew is 1st, 2nd and 2nd; uw 2nd, 1st and 1st.
GOLDEN = """\
| method | digit accuracy ↑ | value mae ↓ | value rmse ↓ | Δm % ↑ | MR ↓ |
|---|---:|---:|---:|---:|---:|
| STL | 80.00 ± 0.00 % | 2 | 4 | reference |  |
| ew | 88.00 ± 0.00 % | 1.5 | 5 | +5.00 ± 0.00 | 1.67 |
| uw | 80.00 ± 50.82 % | 1 | 4 | +12.50 ± 31.77 | 1.33 |
"""


def made(workdir, values, seeds=2, **asked):
    return collect(EXPERIMENT, write_results(workdir, values, **asked), range(seeds), workdir)


def test_golden_table(tmp_path):
    found = made(tmp_path, VALUES, balancers=("ew", "uw"))
    assert table.to_markdown(found) == GOLDEN


@pytest.fixture(scope="module")
def noisy(tmp_path_factory):
    """(folder, comparison) of four methods, five seeds, and one run that is missing."""
    workdir, chance = tmp_path_factory.mktemp("noisy"), np.random.default_rng(0)
    names = ("ew", "uw", "pcgrad", "famo")
    values = {name: chance.uniform(0.5, 1, (5, 3)) + 0.1 * i for i, name in enumerate(names)}
    values = {name: [tuple(map(float, row)) for row in rows] for name, rows in values.items()}
    values["STL"] = [tuple(map(float, row)) for row in chance.uniform(0.5, 1, (5, 3))]
    values["famo"][3] = None
    return workdir, made(workdir, values, seeds=5, balancers=names)


def independently(workdir):
    """{method: values [5, 3]} straight from the files."""
    found = {}
    for file in sorted(workdir.glob("members/*/*/result.json")):
        result = json.loads(file.read_text())
        name = file.parent.parent.name.rsplit("-", 1)[0]
        test = result["test"]
        row = test["digit"]["accuracy"], test["value"]["mae"], test["value"]["rmse"]
        found.setdefault(name, np.full((5, 3), np.nan))[result["seed"]] = row
    single = found.pop("ew-digit"), found.pop("ew-value")
    found = {name.removesuffix("-digit-value"): values for name, values in found.items()}
    return {"STL": np.concatenate([single[0][:, :1], single[1][:, 1:]], 1), **found}


def test_every_number_is_that_of_an_independent_computation(noisy):
    workdir, found = noisy
    values = independently(workdir)
    sign, base = np.array([1, -1, -1]), values["STL"].mean(0)
    delta = {
        name: (lambda c: (c[:, 0] + (c[:, 1] + c[:, 2]) / 2) / 2)(
            100 * sign * (v - values["STL"]) / base
        )
        for name, v in values.items()
    }
    rows = {row.name: row for row in found.rows}
    assert rows.keys() == values.keys()
    for name in delta.keys() - {"STL"}:
        known = delta[name][~np.isnan(delta[name])]
        low, high = stats.t.interval(0.95, len(known) - 1, known.mean(), stats.sem(known))
        cell = estimate(rows[name].delta_m)
        np.testing.assert_allclose((cell.low, cell.high), (low, high), rtol=1e-12)
    means = np.array([np.nanmean(values[n], 0) for n in ("ew", "uw", "pcgrad", "famo")])
    ranks = stats.rankdata(-sign * means, axis=0).mean(1)
    np.testing.assert_allclose([rows[n].mean_rank for n in ("ew", "uw", "pcgrad", "famo")], ranks)
    raw = {
        frozenset(pair): stats.ttest_rel(*(delta[name] for name in pair), nan_policy="omit").pvalue
        for pair in itertools.combinations(delta, 2)
    }
    order = sorted(raw, key=raw.get)
    highest, corrected = 0.0, {}
    for k, pair in enumerate(order):
        corrected[pair] = highest = max(highest, min(1, (len(order) - k) * raw[pair]))
    assert len(found.tests) == len(raw) == 10
    for test in found.tests:
        pair = frozenset((test.first, test.second))
        np.testing.assert_allclose(test.p, raw[pair], rtol=1e-9)
        np.testing.assert_allclose(test.adjusted_p, corrected[pair], rtol=1e-9)


def test_csv_has_every_number(noisy):
    _, found = noisy
    text = table.to_csv(found, table.result_columns(found))
    lines = {line["method"]: line for line in csv.DictReader(io.StringIO(text))}
    for row in found.rows:
        assert float(lines[row.name]["value/mae"]) == row.metric(1).mean
        assert int(lines[row.name]["value/mae/seeds"]) == row.metric(1).seeds
    assert lines["STL"]["mean_rank"] == ""


def test_latex_can_be_typeset():
    assert table.escape_latex("a_b ± 50 % & x^2 \\") == (
        r"a\_b $\pm$ 50 \% \& x\textasciicircum{}2 \textbackslash{}"
    )


def test_validation_chooses_between_settings_whatever_the_test_split_says(tmp_path):
    methods = plan(EXPERIMENT, grid=("learning-rate=1e-3,1e-2",))
    for method in methods:
        for validation, accuracy, candidate in zip(
            (0.5, 0.4), (0.9, 0.7), method.candidates, strict=True
        ):
            folder = candidate.folder(tmp_path, 0)
            write_result(folder, accuracy, 1.0, 1.0, validation=validation)
    found = collect(EXPERIMENT, methods, [0], tmp_path)
    assert [row.settings for row in found.rows] == [
        "digit: learning_rate=1e-2; value: learning_rate=1e-2",
        "learning_rate=1e-2",
    ]
    assert found.rows[1].metric(0).mean == 0.7


def test_words_of_no_difference(tmp_path):
    values = {
        "STL": [(0.80, 2.0, 4.0), (0.82, 2.1, 4.1), (0.79, 1.9, 4.2)],
        "ew": [(0.81, 2.1, 4.0), (0.80, 1.9, 4.2), (0.80, 2.0, 4.0)],
        "pcgrad": [(0.80, 2.0, 4.1), (0.81, 2.0, 4.0), (0.80, 1.9, 4.1)],
    }
    said = conclusions(made(tmp_path, values, seeds=3, balancers=("ew", "pcgrad")))
    assert "not significantly different from single-task learning with ew" in said[0]
    assert "at 3 seeds" in said[0]
    assert said[1].startswith("pcgrad (p = ")
    assert "is not significantly different from ew at 3 seeds" in said[1]
    assert "Holm's method for 3 comparisons" in said[-1]


def test_words_of_a_clear_difference(tmp_path):
    chance = np.random.default_rng(0)
    near = lambda row: [
        tuple(np.array(row) * (1 + 0.001 * chance.normal(size=3))) for _ in range(5)
    ]
    values = {
        "STL": near((0.8, 2.0, 4.0)),
        "ew": near((0.9, 1.5, 3.0)),
        "uw": near((0.7, 2.5, 5.0)),
    }
    said = conclusions(made(tmp_path, values, seeds=5, balancers=("ew", "uw")))
    assert said[0].startswith(
        "Multi-task learning is better than single-task learning with ew (Δm +"
    )
    assert "worse than single-task learning with uw" in said[0]
    assert "uw is worse than ew by" in said[1]
    assert "(p < 0.001)" in said[1]


def test_single_metrics_are_tested_and_corrected_for_their_number(noisy):
    workdir, found = noisy
    values = independently(workdir)
    pairs = [(name, "STL") for name in values if name != "STL"]
    pairs += [(name, "ew") for name in values if name not in ("STL", "ew")]
    expected = {}
    for first, second in pairs:
        for k, metric in enumerate(found.metrics):
            both = values[first][:, k], values[second][:, k]
            known = ~np.isnan(both[0] - both[1])
            p = stats.ttest_rel(both[0][known], both[1][known]).pvalue
            expected[first, second, metric] = p, (both[0] - both[1])[known].mean()
    assert len(expected) == len(found.metric_tests) == 7 * 3
    ranked = sorted(expected, key=lambda key: expected[key][0])
    highest = 0.0
    by_key = {(test.first, test.second, test.metric): test for test in found.metric_tests}
    for i, key in enumerate(ranked):
        p, difference = expected[key]
        highest = max(highest, min(1.0, p * (len(ranked) - i)))
        test = by_key[key]
        np.testing.assert_allclose((test.p, test.adjusted_p), (p, highest), rtol=1e-9)
        np.testing.assert_allclose(test.difference.mean, difference, rtol=1e-9)
        assert test.better == ((difference > 0) == test.metric.higher_is_better)


def test_words_say_in_which_tasks_a_difference_is_clear(tmp_path):
    chance = np.random.default_rng(1)
    near = lambda row: [tuple(np.array(row) * (1 + 1e-3 * chance.normal(size=3))) for _ in range(5)]
    values = {
        "STL": near((0.8, 2.0, 4.0)),
        "ew": near((0.9, 2.0, 4.0)),
        "uw": near((0.9, 2.0, 5.0)),
    }
    said = conclusions(made(tmp_path / "a", values, seeds=5, balancers=("ew", "uw")))
    assert said[2].startswith("Per metric, ")
    assert "ew is better than STL in digit accuracy (p < 0.001)" in said[2]
    assert "uw is worse than ew in value root mean square error (p < 0.001)" in said[2]
    assert "absolute" not in said[2]
    assert "9 of single metrics" in said[-1]
    alike = {name: near((0.8, 2.0, 4.0)) for name in values}
    said = conclusions(made(tmp_path / "b", alike, seeds=5, balancers=("ew", "uw")))
    assert said[2].startswith("Per metric, no difference is significant (smallest p = ")


def test_words_of_one_seed_and_of_nothing(tmp_path):
    one = {"STL": [(0.8, 2.0, 4.0)], "ew": [(0.9, 1.5, 3.0)]}
    said = conclusions(made(tmp_path / "one", one, seeds=1))
    assert "one seed gives no variance estimate" in said[-1]
    none = made(tmp_path / "none", {"STL": [None], "ew": [None]}, seeds=1)
    assert conclusions(none) == [
        "No run of a method was completed, so there is nothing to compare."
    ]
    only = made(tmp_path / "only", {"STL": [None], "ew": one["ew"]}, seeds=1)
    assert "baselines were not completed" in conclusions(only)[0]
