"""The formulas on the pages of methods (docs/_ext/formulas.toml) give the directions of the code.

Each function below is one formula, written with NumPy and solved by a general solver in float64,
for the gradients J and the losses L of three tasks.
"""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import linprog, minimize

from mtljax import balancing

RANDOM = np.random.default_rng(0)
J, L = RANDOM.normal(size=(3, 5)), RANDOM.uniform(0.5, 2, 3)
G, T, P = J @ J.T, 3, np.full(3, 1 / 3)
NORMS = np.linalg.norm(J, axis=1)
U, MEAN = J / NORMS[:, None], J.mean(0)
RAY = np.full(3, 3**-0.5)


def best(objective, start, *, equal=None, least=None, bounds=None):
    """The minimum with `equal(x) == 0` and `least(x) >= 0`."""
    limits = [{"type": "eq", "fun": equal}] if equal else []
    limits += [{"type": "ineq", "fun": least}] if least else []
    settings = {"ftol": 1e-15, "maxiter": 1000}
    return minimize(objective, start, constraints=limits, bounds=bounds, options=settings).x


def on_simplex(objective):
    return best(objective, P, equal=lambda w: w.sum() - 1, bounds=[(0, 1)] * T)


def descend(objective):
    """Gradient of a function of the losses, by central differences."""
    steps = 1e-5 * np.eye(T)
    return np.array([(objective(L + e) - objective(L - e)) / 2e-5 for e in steps]) @ J


def cone(g):
    return best(lambda d: ((d - g) ** 2).sum(), g, least=lambda d: J @ d)


def at_length(direction, length):
    return direction * length / np.linalg.norm(direction)


def near_mean(trade_off):
    size = 0.5 * np.linalg.norm(MEAN)
    first, second = trade_off
    w = on_simplex(lambda w: first * w @ J @ MEAN + second * size * np.linalg.norm(w @ J))
    return MEAN + at_length(w @ J, size)


def imgrad():
    least = on_simplex(lambda w: w @ G @ w) @ J
    kappa = MEAN @ least / np.linalg.norm(MEAN) / np.linalg.norm(least)
    return near_mean((1.5 - kappa, kappa))


def fair(alpha):
    """Of any length: the direction with the largest sum of utilities in the unit ball."""
    power = lambda x: np.log(x) if alpha == 1 else x ** (1 - alpha) / (1 - alpha)
    utility = lambda d: -power(np.maximum(J @ d, 1e-6)).sum()
    start = at_length(cone(U.sum(0)), 1)
    return best(utility, start, least=lambda d: 1 - d @ d)


def pcd():
    f = J / np.sqrt(NORMS**2 + 1e-8)[:, None]
    progress = lambda d: f[1:] @ d - 0.02 * (f[1:] ** 2).sum(1)
    return at_length(best(lambda d: ((d - f[0]) ** 2).sum(), f[0], least=progress), NORMS[0])


def config():
    u = at_length(np.linalg.pinv(U) @ np.ones(T), 1)
    return (J @ u).sum() * u


def imtl_g():
    # The conditions are linear in w: equal projections, and sum 1.
    projections = U @ J.T
    conditions = np.vstack([projections[1:] - projections[0], np.ones(T)])
    return np.linalg.solve(conditions, [0, 0, 1]) @ J


def aligned_mtl():
    squares, v = np.linalg.eigh(G)
    s = np.sqrt(squares)
    return (s.min() * v @ np.diag(1 / s) @ v.T @ np.ones(T)) @ J


def dibs_mtl():
    x = np.zeros(5)
    for _ in range(3):
        if np.linalg.norm(x) <= 1:
            x = x - sum(np.linalg.norm(x + u) * u for u in U) / 3
    return -x


def db_mtl():
    rows = 0.1 * J / L[:, None]
    norms = np.linalg.norm(rows, axis=1)
    return (norms.max() / norms) @ rows


def sam_gs():
    pairs = itertools.combinations(NORMS, 2)
    similarity = np.mean([2 * a * b / (a**2 + b**2) for a, b in pairs])
    variance = (0.01 * (1 - similarity) ** 2 + 1e-8) / 0.01
    return (J * abs(J)).sum(0) / np.sqrt(variance)


def pmgda():
    across = (L - L @ RAY * RAY) / np.linalg.norm(L - L @ RAY * RAY)
    slope = across @ J
    units = np.vstack([U, at_length(slope, 1)])
    # Variables: the shares of the units, and the smallest gain.
    gains = np.column_stack([-J @ units.T, np.ones(T)])
    rate = np.append(-units @ slope, 0)
    limits = np.append(np.zeros(T), -0.8 * np.linalg.norm(slope))
    result = linprog(
        [0, 0, 0, 0, -1], np.vstack([gains, rate]), limits, [[1, 1, 1, 1, 0]], [1],
        bounds=[(0, None)] * 4 + [(None, None)],
    )  # fmt: skip
    return result.x[:4] @ units


def ferero():
    across = np.eye(T) - np.outer(RAY, RAY)
    rate = lambda z: (across @ J @ z[:-1] - 0.5 * across @ L)[:2]
    floor = lambda z: J @ z[:-1] - z[-1]
    gain = lambda z: z[:-1] @ z[:-1] / 2 - z[-1]
    return best(gain, np.zeros(6), equal=rate, least=floor)[:-1]


def go4align():
    p = np.exp(-1e-4 * L) / np.exp(-1e-4 * L).sum()
    values = L.sum() / L * p
    order = np.argsort(values)
    splits = [(order[:i], order[i:]) for i in (1, 2)]
    spread = lambda parts: sum(len(part) * np.var(values[part]) for part in parts)
    weights = np.empty(T)
    for part in min(splits, key=spread):
        weights[part] = values[part].mean()
    return weights @ J


def ldc_mtl():
    s = 1 / (1 + np.exp(-1.0))  # of a = 1; the sum of s is a constant
    steps = lambda x: 0.01 * (abs(s * x[0] - s * x[1]) + abs(s * x[1] - s * x[2]))
    return descend(lambda x: (s * x).sum() / (3 * s) + steps(x))


PENALTY = lambda x: x @ RAY + 5 * np.linalg.norm(x - x @ RAY * RAY)
SOFTMAX = lambda x: np.exp(x) / np.exp(x).sum()
FORMULAS = {
    "ew": lambda: J.sum(0),
    "si": lambda: descend(lambda x: np.log(x).sum()),
    "gls": lambda: descend(lambda x: x.prod() ** (1 / 3)),
    "chebyshev": lambda: J[np.argmax(L)] / 3,
    "stch": lambda: descend(lambda x: np.log(np.exp(x / 3).sum())),
    "pbi": lambda: descend(PENALTY),
    "cosmos": lambda: descend(lambda x: P @ x - P @ x / np.linalg.norm(P) / np.linalg.norm(x)),
    "uw": lambda: J.sum(0) / 2,
    "imtl_l": lambda: J.sum(0),
    "uw_so": lambda: SOFTMAX(1 / L) @ J,
    "famo": lambda: (1 / L) @ J / (1 / L).sum(),
    "go4align": go4align,
    "ldc_mtl": ldc_mtl,
    "mgda": lambda: on_simplex(lambda w: w @ G @ w) @ J,
    "cagrad": lambda: near_mean((1, 1)),
    "imgrad": imgrad,
    "upgrad": lambda: sum(map(cone, J)),
    "dualproj": lambda: cone(J.sum(0)),
    "pcd": pcd,
    "sam_gs": sam_gs,
    "imtl_g": imtl_g,
    "config": config,
    "nash_mtl": lambda: fair(1),
    "fairgrad:alpha=2": lambda: fair(2),
    "dibs_mtl:steps=3": dibs_mtl,
    "aligned_mtl": aligned_mtl,
    "ntkmtl": lambda: np.sqrt((NORMS**2).sum() / NORMS**2) @ J,
    "db_mtl": db_mtl,
    "trimmed_mean": lambda: np.sort(J, axis=0)[1],
    "pmgda": pmgda,
    "ferero": ferero,
}
ANY_LENGTH = {"nash_mtl", "fairgrad:alpha=2"}


@pytest.mark.full
@pytest.mark.parametrize("text", FORMULAS)
def test_the_formula_of_a_balancer_gives_its_direction(text):
    name, _, arguments = text.partition(":")
    words = dict(word.split("=") for word in arguments.split(",") if word)
    balancer = balancing.BALANCERS[name](**{key: int(value) for key, value in words.items()})
    arrays = (jnp.asarray(x, jnp.float32) for x in (J, L))
    direction = np.asarray(balancing.aggregate(balancer, *arrays), np.float64)
    expected = FORMULAS[text]()
    if text in ANY_LENGTH:
        direction, expected = at_length(direction, 1), at_length(expected, 1)
    np.testing.assert_allclose(direction, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("name", "power"), [("nash_mtl", -1), ("fairgrad", -1), ("consmtl", -0.5)])
def test_weights_of_fair_updates_solve_the_equation_that_is_shown(name, power):
    arrays = (jnp.asarray(x, jnp.float32) for x in (J, L))
    direction = np.asarray(balancing.aggregate(balancing.BALANCERS[name](), *arrays), np.float64)
    weights = np.linalg.lstsq(J.T, direction)[0]
    np.testing.assert_allclose(G @ weights, weights**power, rtol=1e-4)
