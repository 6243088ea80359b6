"""The statistics of a comparison against numbers computed by hand, and against SciPy."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from mtljax.comparison import statistics
from mtljax.comparison.statistics import Metric, estimate

METRICS = (
    Metric("digit", "accuracy", True),
    Metric("value", "mae", False),
    Metric("value", "rmse", False),
)
BASE = np.array([[0.8, 2.0, 4.0], [0.8, 2.0, 4.0]])


def test_delta_m_by_hand():
    # +10 % accuracy; 25 % less mae, 25 % more rmse, so 0 for the second task; the mean is 5 %.
    values = np.array([[0.88, 1.5, 5.0], [0.88, 1.5, 5.0]])
    change = statistics.relative_change(values, BASE, METRICS)
    np.testing.assert_allclose(change[0], [10, 25, -25], rtol=1e-12)
    np.testing.assert_allclose(statistics.delta_m(change, METRICS), [5, 5], rtol=1e-12)


def test_delta_m_of_the_mean_is_the_mean_of_delta_m():
    chance = np.random.default_rng(0)
    base, values = chance.uniform(1, 2, (2, 6, 3))
    each = statistics.delta_m(statistics.relative_change(values, base, METRICS), METRICS)
    means = statistics.relative_change(values.mean(0)[None], base.mean(0)[None], METRICS)
    np.testing.assert_allclose(each.mean(), statistics.delta_m(means, METRICS)[0], rtol=1e-12)


def test_a_baseline_of_zero_has_no_relative_change():
    change = statistics.relative_change(BASE, np.zeros_like(BASE), METRICS)
    assert np.isnan(change).all()


def test_interval_by_hand():
    # Mean 2, standard error 1 / sqrt(3), t(0.975, 2 degrees of freedom) = 4.302653.
    found = estimate(np.array([1.0, 2.0, 3.0, np.nan]))
    assert found.seeds == 3
    assert found.mean == 2
    np.testing.assert_allclose(found.half_width, 4.302653 / np.sqrt(3), rtol=1e-6)
    np.testing.assert_allclose(
        (found.low, found.high), (2 - found.half_width, 2 + found.half_width)
    )


def test_one_seed_has_no_interval_and_none_has_no_mean():
    assert np.isnan(estimate(np.array([1.0])).half_width)
    assert np.isnan(estimate(np.array([np.nan])).mean)


def test_paired_p_by_hand():
    # Differences 1, 2, 3: t = 2 sqrt(3) with 2 degrees of freedom, p = 1 - t / sqrt(t^2 + 2).
    p = statistics.paired_t_test(np.array([2.0, 4.0, 6.0]), np.array([1.0, 2.0, 3.0]))
    t = 2 * np.sqrt(3)
    np.testing.assert_allclose(p, 1 - t / np.sqrt(t**2 + 2), rtol=1e-10)


def test_paired_p_of_equal_and_of_constantly_different_values():
    a = np.array([1.0, 2.0, 3.0])
    assert statistics.paired_t_test(a, a) == 1
    assert statistics.paired_t_test(a, a + 1) == 0
    assert np.isnan(statistics.paired_t_test(a[:1], a[1:2]))


def test_holm_by_hand():
    # In order .005 x 4, .01 x 3, .03 x 2, and .04 x 1, which may not be below the one before.
    p = np.array([0.01, 0.04, np.nan, 0.03, 0.005])
    np.testing.assert_allclose(
        statistics.holm_correction(p), [0.03, 0.06, np.nan, 0.06, 0.02], rtol=1e-12
    )


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_is_between_no_correction_and_bonferronis(p):
    p = np.array(p)
    corrected = statistics.holm_correction(p)
    assert (corrected >= p - 1e-12).all()
    assert (corrected <= np.minimum(1, len(p) * p) + 1e-12).all()
    order = np.argsort(p, kind="stable")
    assert (np.diff(corrected[order]) >= 0).all()


def test_mean_rank_by_hand():
    # Accuracy ranks 1, 2, 3; mae (lower is better) 2.5, 2.5, 1; rmse 3, 1, 2.
    means = np.array([[0.9, 2.0, 3.0], [0.8, 2.0, 1.0], [0.7, 1.0, 2.0]])
    np.testing.assert_allclose(
        statistics.mean_ranks(means, METRICS), [6.5 / 3, 5.5 / 3, 6 / 3], rtol=1e-12
    )


def test_a_method_that_is_missing_is_not_ranked():
    means = np.array([[0.9, 2.0, 3.0], [np.nan, 2.0, 1.0], [0.7, 1.0, 2.0]])
    ranks = statistics.mean_ranks(means, METRICS)
    assert np.isnan(ranks[1])
    np.testing.assert_allclose(ranks[[0, 2]], [5 / 3, 4 / 3])


def test_the_front_is_what_nothing_beats():
    points = np.array([[0.9, 2.0], [0.8, 1.0], [0.8, 2.0], [0.9, 2.0], [0.7, 3.0]])
    front = statistics.pareto_optimal(points, METRICS[:2])
    assert front.tolist() == [True, True, False, True, False]


@pytest.mark.parametrize("seeds", [2, 5, 30])
def test_tests_and_intervals_are_scipys(seeds):
    a, b = np.random.default_rng(seeds).normal(size=(2, seeds))
    np.testing.assert_allclose(
        statistics.paired_t_test(a, b), stats.ttest_rel(a, b).pvalue, rtol=1e-10
    )
    low, high = stats.t.interval(0.95, seeds - 1, a.mean(), stats.sem(a))
    np.testing.assert_allclose((estimate(a).low, estimate(a).high), (low, high), rtol=1e-10)
