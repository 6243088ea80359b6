"""End of every balancer on the toy problem of CAGrad and Nash-MTL, from the published starts."""

import importlib.util
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.tiers import full_except

from mtljax.balancing import BALANCERS

PATH = Path(__file__).parents[2] / "examples" / "toy.py"
spec = importlib.util.spec_from_file_location("toy", PATH)
toy = importlib.util.module_from_spec(spec)
spec.loader.exec_module(toy)

STEPS = 150_000  # a start reaches the Pareto set within 95,000 steps, or not within 260,000
FEWER_STEPS = {  # slow steps, or solvers that arrive early
    **dict.fromkeys(("nash_mtl", "fairgrad", "pivrg", "consmtl"), 20_000),
    **dict.fromkeys(("epo", "pmtl", "pmgda"), 50_000),
}
MARGIN = {"mocograd": 0.45}  # its momentum makes it oscillate; all others end within 0.2
BOTH = {0, 2}  # the two starts above the valleys, on the left and on the right

# Number of the starts from which a balancer is still in a valley: one loss is at its minimum there,
# and the sum of the weighted losses changes little along the valley.
IN_A_VALLEY = {
    **dict.fromkeys(("ew", "fixed", "dwa", "rlw", "uw_so", "stch", "cosmos", "ldc_mtl"), {2}),
    **dict.fromkeys(("graddrop", "trimmed_mean", "mocograd"), {2}),
    **dict.fromkeys(("modo", "sdmgrad", "epo"), {2}),
    **dict.fromkeys(("si", "gls", "uw", "imtl_l", "igb", "excess_mtl", "hypervolume"), BOTH),
    **dict.fromkeys(("go4align", "krum"), {0}),
    **dict.fromkeys(("pbi", "pmgda", "ferero"), {2, 4}),
}
# They leave the valley after 20,000 steps or 300,000, depending on the rounding.
UNDECIDED = {"moml": {2}, "forum": {2}, "modo": {0}}


def published(x, y):
    """The losses as in the code of CAGrad, in float64."""
    with np.errstate(divide="ignore"):
        first = np.log(np.maximum(np.abs(0.5 * (-x - 7) - np.tanh(-y)), 5e-6)) + 6
        second = np.log(np.maximum(np.abs(0.5 * (-x + 3) + np.tanh(-y) + 2), 5e-6)) + 6
    above, below = max(np.tanh(0.5 * y), 0), max(np.tanh(-0.5 * y), 0)
    bowls = [((-x + center) ** 2 + 0.1 * (-y - 8) ** 2) / 10 - 20 for center in (7, -7)]
    return above * np.array([first, second]) + below * np.array(bowls)


def test_is_the_published_problem():
    for x, y in np.random.default_rng(0).uniform(-10, 10, (40, 2)):
        found = toy.losses_of(jnp.float32([x, y])) / toy.SCALE
        np.testing.assert_allclose(found, published(x, y), atol=2e-4)


def test_no_loss_can_fall_along_the_line_without_a_rise_of_the_other():
    """The gradients are opposed on the line that the distances are measured to."""
    for x in np.linspace(-6.5, 6.5, 14):
        point = jnp.float32([x, toy.PARETO_Y])
        first, second = np.asarray(jax.jacobian(toy.losses_of)(point))
        cosine = first @ second / np.linalg.norm(first) / np.linalg.norm(second)
        assert cosine < -0.99


def distance_to_valley(points):
    """Horizontal distance of [..., 2] points to the nearest bottom of a valley, 7 at the ridge."""
    x, y = points[..., 0], np.maximum(points[..., 1], 0)
    return np.minimum(np.abs(x + 7 - 2 * np.tanh(y)), np.abs(x - 7 + 2 * np.tanh(y)))


@pytest.mark.parametrize("name", full_except(["mgda", "dibs_mtl"], sorted(BALANCERS)))
def test_ends_in_the_pareto_set_or_in_a_valley(name):
    steps = FEWER_STEPS.get(name, STEPS)
    end = np.asarray(toy.optimize(name, jnp.float32(toy.STARTS), steps))[:, -10:]
    reached = (toy.distance_to_pareto_set(end) <= MARGIN.get(name, 0.2)).all(1)
    stuck = set(np.flatnonzero(~reached).tolist())
    expected = IN_A_VALLEY.get(name, set())
    assert stuck ^ expected <= UNDECIDED.get(name, set())
    assert np.isfinite(end).all()
    for start in expected:
        assert (end[start, :, 1] > -0.05).all()
        assert (distance_to_valley(end[start]) < 0.15).all()
