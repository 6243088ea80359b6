"""Solvers on a problem whose front is known."""

import numpy as np
import pytest
import scipy.optimize
from support.tiers import full_except

from mtljax.balancing import chebyshev, epo, ew, ferero, hypervolume, pmgda, pmtl, stch
from mtljax.balancing.rays import hypervolume as dominated_volume
from mtljax.balancing.rays import rays
from mtljax.pareto.toy import Toy

RAYS = rays(2, 4)
# The tolerances are those at which the methods stop to approach the ray: the defaults, 1e-4 and
# 1e-2, are as large as the distance that is asserted here.
EXACT = {
    "epo": epo(tolerance=1e-5),
    "pmgda": pmgda(tolerance=1e-3),
    "ferero": ferero(),
    "chebyshev": chebyshev(),
    "stch": stch(mu=1e-3),
}
SHAPES = ("convex", "concave")


@pytest.mark.parametrize(
    ("name", "shape"),
    full_except(
        [("epo", "concave"), ("ferero", "concave"), ("pmgda", "convex")],
        [(name, shape) for name in EXACT for shape in SHAPES],
    ),
)
def test_every_solver_reaches_the_exact_point_of_its_ray(name, shape):
    toy = Toy(shape)
    reached = toy.descend(EXACT[name], RAYS)
    expected = np.array([toy.point(ray) for ray in RAYS])
    np.testing.assert_allclose(reached, expected, atol=1e-2)


def test_linear_scalarization_reaches_a_convex_front_but_only_the_ends_of_a_concave_one():
    convex, concave = Toy("convex"), Toy("concave")
    reached = convex.descend(ew(), RAYS)
    # The weighted mean of two squares is least at the weighted mean of the centers.
    first = RAYS[:, 0] / 2
    squares = np.stack([(2 - 2 * first) ** 2, (2 * first) ** 2], 1)
    np.testing.assert_allclose(reached, squares, atol=1e-3)
    ends = 1 - np.exp(-4.0 * np.array([[0, 1], [1, 0]]))
    distances = np.abs(concave.descend(ew(), RAYS)[:, None] - ends).max(-1).min(1)
    assert distances.max() < 1e-2


@pytest.mark.parametrize("shape", full_except(["concave"], SHAPES))
def test_pmtl_reaches_the_front_within_the_part_of_its_ray(shape):
    toy = Toy(shape)
    reached = toy.descend(pmtl(rays=len(RAYS)), RAYS)
    assert max(map(toy.distance, reached)) < 1e-2
    units = 1 / RAYS / np.linalg.norm(1 / RAYS, axis=1, keepdims=True)
    angles = reached / np.linalg.norm(reached, axis=1, keepdims=True) @ units.T
    assert (angles.diagonal() >= angles.max(1) - 1e-2).all()


@pytest.mark.parametrize("shape", full_except(["concave"], SHAPES))
def test_hypervolume_spreads_the_rays_as_the_optimum_does(shape):
    toy, corner = Toy(shape), np.full(2, 1.1 if shape == "concave" else 4.4)
    reached = toy.descend(hypervolume(reference=tuple(corner)), RAYS)
    lost = lambda a: -dominated_volume(toy.front(np.clip(a, -1, 1)), corner)
    start = np.linspace(0.8, -0.8, len(RAYS))
    best = scipy.optimize.minimize(lost, start, method="Nelder-Mead", options={"xatol": 1e-9})
    order = lambda points: points[np.argsort(points[:, 0])]
    expected = order(toy.front(np.clip(best.x, -1, 1)))
    np.testing.assert_allclose(order(reached), expected, atol=1e-2)
    assert dominated_volume(reached, corner) == pytest.approx(-best.fun, rel=1e-4)


def test_the_distance_from_the_front_is_that_of_the_nearest_point():
    toy = Toy("convex")
    assert toy.distance(toy.front(0.3)) < 1e-9
    # (a + 1)^2, (a - 1)^2 is symmetric: (1, 1) is nearest to the points below it on the diagonal.
    assert toy.distance(np.array([0.5, 0.5])) == pytest.approx(np.sqrt(0.5), abs=1e-6)
