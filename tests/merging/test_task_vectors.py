"""Merging of task vectors against the papers' formulas, entry by entry in float64."""

import numpy as np
import pytest

from mtljax.merging import MERGES, Problem
from mtljax.merging.task_vectors import MEAN_SCALES, SCALES, drop_entries
from mtljax.utils.registry import choose

SHAPES = {"a/kernel": (4, 6), "a/bias": (6,), "b/kernel": (6, 3)}


def random_problem(tasks=3, seed=0):
    rng = np.random.default_rng(seed)
    draw = lambda: {k: rng.standard_normal(s).astype(np.float32) for k, s in SHAPES.items()}
    start = draw()
    tuned = [{k: start[k] + 0.1 * x for k, x in draw().items()} for _ in range(tasks)]
    return Problem(start=start, tuned=tuned, seed=3)


def merged(method, problem):
    """{settings: merged parameters as one float64 vector} of all candidates."""
    candidates = list(choose("merging method", method, MERGES).build().candidates(problem))
    return {tuple(settings.values()): flat(shared) for settings, shared in candidates}


def flat(parameters):
    return np.concatenate([np.ravel(parameters[k]).astype(np.float64) for k in SHAPES])


def vectors(problem):
    return np.stack([flat(run) - flat(problem.start) for run in problem.tuned])


def ties_reference(tau, density, combine):
    """Algorithm 1 of the paper."""
    tau = tau.copy()
    for vector in tau:
        order = sorted(range(len(vector)), key=lambda i: -abs(vector[i]))
        for i in order[int(density * len(vector)) :]:
            vector[i] = 0.0
    result = np.zeros(tau.shape[1])
    for i, column in enumerate(tau.T):
        kept = [x for x in column if x != 0 and np.sign(x) == np.sign(column.sum())]
        if kept:
            result[i] = sum(kept) / (len(kept) if combine == "mean" else 1)
    return result


def test_average_is_the_mean_of_the_runs():
    problem = random_problem()
    (result,) = merged("average", problem).values()
    expected = np.mean([flat(run) for run in problem.tuned], axis=0)
    np.testing.assert_allclose(result, expected, atol=1e-6)


@pytest.mark.parametrize("tasks", [1, 2, 5])
def test_task_arithmetic_adds_the_scaled_sum_of_task_vectors(tasks):
    problem = random_problem(tasks)
    (result,) = merged("task_arithmetic:scale=0.4", problem).values()
    expected = flat(problem.start) + 0.4 * vectors(problem).sum(0)
    np.testing.assert_allclose(result, expected, atol=1e-6)


def test_task_arithmetic_of_scale_one_over_tasks_is_the_average():
    problem = random_problem(4)
    (result,) = merged("task_arithmetic:scale=0.25", problem).values()
    (average,) = merged("average", problem).values()
    np.testing.assert_allclose(result, average, atol=1e-6)


@pytest.mark.parametrize(
    ("method", "scales"),
    [("task_arithmetic", SCALES), ("ties", MEAN_SCALES), ("ties:combine=sum", SCALES)],
)
def test_scales_that_are_not_given_are_candidates(method, scales):
    assert [key for (key,) in merged(method, random_problem())] == list(scales)


@pytest.mark.parametrize("combine", ["mean", "sum"])
@pytest.mark.parametrize("density", [0.1, 0.2, 0.5, 1])
@pytest.mark.parametrize("seed", range(5))
def test_ties_is_the_algorithm_of_the_paper(density, combine, seed):
    problem = random_problem(seed=seed)
    method = f"ties:density={density},combine={combine},scale=0.7"
    (result,) = merged(method, problem).values()
    expected = ties_reference(vectors(problem), density, combine)
    np.testing.assert_allclose(result, flat(problem.start) + 0.7 * expected, atol=1e-6)


def test_ties_resolves_a_sum_of_zero_by_the_more_frequent_sign():
    start = {"w": np.zeros(4, np.float32)}
    runs = ([1, 2, 3, 1], [-1, 2, 3, 1])  # the first entries cancel; most sums are positive
    tuned = [{"w": np.array(run, np.float32)} for run in runs]
    (candidate,) = MERGES["ties"](density=1.0, scale=1.0).candidates(
        Problem(start=start, tuned=tuned)
    )
    np.testing.assert_array_equal(candidate.shared["w"], [1, 2, 3, 1])


def test_ties_of_equal_runs_and_density_one_is_their_task_vector():
    problem = random_problem(1)
    (result,) = merged("ties:density=1,scale=1", problem).values()
    np.testing.assert_allclose(result, flat(problem.tuned[0]), atol=1e-6)


@pytest.mark.parametrize("method", ["task_arithmetic", "ties", "average"])
def test_dare_that_drops_nothing_is_the_method_itself(method):
    problem = random_problem()
    plain, dropped = merged(method, problem), merged(f"dare:drop=0,method={method}", problem)
    assert plain.keys() == dropped.keys()
    for key, result in plain.items():
        np.testing.assert_allclose(dropped[key], result, atol=1e-6)


def test_dare_drops_the_given_fraction_and_keeps_the_expectation():
    entries = {"w": np.ones((200, 500), np.float32)}
    first, second = drop_entries([entries, entries], 0.9, seed=0)
    assert set(np.unique(first["w"])) == {0, np.float32(10)}
    # 1e5 entries: the standard error of the mean is 3 / sqrt(1e5) = 0.0095.
    assert abs(first["w"].mean() - 1) < 0.04
    assert (first["w"] != second["w"]).any()


def test_dare_depends_on_the_seed_only():
    method = "dare:drop=0.5,method='ties:density=0.3,scale=1'"
    first, again = (merged(method, random_problem()) for _ in range(2))
    np.testing.assert_array_equal(*(next(iter(x.values())) for x in (first, again)))


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("ties:density=0", "density must be in"),
        ("dare:drop=1", "drop must be in"),
        ("dare:method=fisher", "choose from average, task_arithmetic, ties"),
        ("dare:method='ties:density=2'", "density must be in"),
        ("fisher:examples=0", "examples >= 1"),
        ("regmean:alpha=1.5", "alpha in"),
        ("adamerging:steps=0", "steps >= 1"),
        ("tise", "did you mean 'ties'"),
    ],
)
def test_invalid_arguments_are_refused_in_one_line(method, message):
    with pytest.raises(ValueError, match=message) as error:
        choose("merging method", method, MERGES).build()
    assert "\n" not in str(error.value)
