"""Groups of tasks by their affinity, against a search over all partitions."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtljax.comparison.grouping import search
from mtljax.comparison.grouping.group import affinity_table, conclusions
from mtljax.comparison.grouping.search import best_groups, recommend, score


def partitions(tasks):
    """Every way to group a list."""
    if not tasks:
        yield []
        return
    first, *rest = tasks
    for part in partitions(rest):
        yield [[first], *part]
        for i, group in enumerate(part):
            yield [*part[:i], [first, *group], *part[i + 1 :]]


def total(affinity, groups):
    return sum(score(affinity, group) for group in groups)


def test_score_by_hand():
    # Onto 0: (1 + 3) / 2; onto 1: (5 + 7) / 2; onto 2: (2 + 4) / 2. The diagonal does not count.
    affinity = np.array([[9.0, 5.0, 2.0], [1.0, 9.0, 4.0], [3.0, 7.0, 9.0]])
    assert score(affinity, (0, 1, 2)) == 2 + 6 + 3
    assert score(affinity, (0, 2)) == 3 + 2
    assert score(affinity, (1,)) == 0


@given(st.integers(2, 6), st.sampled_from([None, 1, 2, 3]), st.integers(0, 2**32 - 1))
@settings(max_examples=30, deadline=None)
def test_no_partition_is_better(tasks, most, seed):
    affinity = np.random.default_rng(seed).normal(size=(tasks, tasks))
    found = best_groups(affinity, most)
    allowed = [p for p in partitions(list(range(tasks))) if most is None or len(p) <= most]
    best = max(total(affinity, part) for part in allowed)
    assert sorted(task for group in found for task in group) == list(range(tasks))
    assert most is None or len(found) <= most
    np.testing.assert_allclose(total(affinity, found), best, atol=1e-9)


def test_many_tasks_are_grouped_by_local_search(monkeypatch):
    monkeypatch.setattr(search, "EXACT", 3)
    blocks = np.kron(np.eye(3), np.ones((4, 4)))
    affinity = 2 * blocks - 1 + 0.1 * np.random.default_rng(0).normal(size=(12, 12))
    assert best_groups(affinity, most=3) == ((0, 1, 2, 3), (4, 5, 6, 7), (8, 9, 10, 11))
    assert len(best_groups(affinity, most=2)) <= 2


@pytest.mark.parametrize(("noise", "word"), [(0.01, "high"), (30.0, "low")])
def test_how_sure_it_is_depends_on_the_noise(noise, word):
    truth = np.array([[0.0, 1, -1], [1, 0, -1], [-1, -1, 0]])
    chance = np.random.default_rng(0)
    measured = [truth + noise * chance.normal(size=(20, 3, 3)) for _ in range(3)]
    found = recommend(measured)
    said = conclusions(("a", "b", "c"), found)
    assert f"Confidence: {word}." in said[-1]
    if word == "high":
        assert found.groups == ((0, 1), (2,))
        assert said[0] == "Train together: a and b."
        assert said[1] == "Train separately: c; grouping does not improve the score."


def test_measurements_where_a_task_had_no_label_are_left_out():
    measured = np.full((4, 2, 2), 0.5)
    measured[1] = np.nan
    assert recommend([measured]).groups == ((0, 1),)
    np.testing.assert_allclose(recommend([measured]).affinity, 0.5)


def test_an_affinity_matrix_wider_than_the_terminal_is_told_by_its_extremes():
    names = [f"task_number_{i}" for i in range(9)]
    affinity = np.arange(81).reshape(9, 9) / 100.0
    shown = affinity_table(names, affinity, 80)
    assert shown.row_count == 9
    assert len(shown.columns) == 3
    first = [list(column.cells)[0] for column in shown.columns]
    assert first == ["task_number_0", "task_number_8  +72", "task_number_1  +9"]
    assert len(affinity_table(names, affinity, 500).columns) == 10
