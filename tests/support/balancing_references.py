"""Every balancer written down again from its paper: NumPy, float64, gradients as vectors.

A reference is a function that makes `step(jacobian [T, D], losses [T], key) -> direction [D]`,
which remembers what the method remembers. What is drawn at random is drawn with the step's own key.
"""

import itertools

import jax
import numpy as np
import scipy.optimize

from mtljax.balancing.conflict import random_orders


def stateless(direction):
    return lambda: lambda jacobian, losses, key: direction(jacobian, losses)


def weighted(weigh):
    return stateless(lambda jacobian, losses: weigh(jacobian, losses) @ jacobian)


def of_objective(objective):
    """The weights are the objective's derivatives by the losses, taken by central differences."""

    def weigh(jacobian, losses):
        step = 1e-6 * np.diag(losses)
        rise = [objective(losses + h) - objective(losses - h) for h in step]
        return np.array(rise) / (2 * step.diagonal())

    return weighted(weigh)


class Adam:
    """Kingma and Ba, with their defaults."""

    def __init__(self, rate):
        self.rate, self.first, self.second, self.count = rate, 0.0, 0.0, 0

    def step(self, gradient):
        self.count += 1
        self.first = 0.9 * self.first + 0.1 * gradient
        self.second = 0.999 * self.second + 0.001 * gradient**2
        first = self.first / (1 - 0.9**self.count)
        second = self.second / (1 - 0.999**self.count)
        return -self.rate * first / (np.sqrt(second) + 1e-8)


def norms(jacobian):
    return np.linalg.norm(jacobian, axis=1)


def softmax(values):
    values = np.exp(values - values.max())
    return values / values.sum()


# --- losses ---------------------------------------------------------------------------------------


def uw():
    log_variance, adam = 0.0, Adam(1e-2)

    def step(jacobian, losses, key):
        nonlocal log_variance
        precision = np.exp(-log_variance) * np.ones_like(losses)
        log_variance = log_variance + adam.step((1 - precision * losses) / 2)
        return precision / 2 @ jacobian

    return step


def imtl_l():
    scale, adam = 0.0, Adam(1e-2)

    def step(jacobian, losses, key):
        nonlocal scale
        weights = np.exp(scale) * np.ones_like(losses)
        scale = scale + adam.step(weights * losses - 1)
        return weights @ jacobian

    return step


def dwa():
    # windows of 100 steps: the first steps all have weight 1; test_rates.py goes further
    return lambda jacobian, losses, key: jacobian.sum(0)


def rlw():
    def step(jacobian, losses, key):
        return softmax(np.asarray(jax.random.normal(key, losses.shape), np.float64)) @ jacobian

    return step


def go4align():
    share = 1.0

    def step(jacobian, losses, key):
        nonlocal share
        share = share * np.exp(-1e-4 * losses)
        share = share / share.sum()
        values = losses.sum() / losses * share
        order = np.argsort(values)
        spread = lambda part: ((values[part] - values[part].mean()) ** 2).sum()
        splits = [(order[:k], order[k:]) for k in range(1, len(values))] or [(order,)]
        best = min(splits, key=lambda parts: sum(map(spread, parts)))
        weights = np.empty_like(values)
        for part in best:
            weights[part] = values[part].mean()
        return weights @ jacobian

    return step


def pbi(losses):
    ray = np.ones_like(losses) / np.sqrt(len(losses))
    along = losses @ ray
    return along + 5 * np.linalg.norm(losses - along * ray)


def cosmos(losses):
    ray = np.ones_like(losses) / len(losses)
    return ray @ losses - ray @ losses / np.linalg.norm(ray) / np.linalg.norm(losses)


# --- Gramian --------------------------------------------------------------------------------------


def gradnorm():
    weights, first, adam = None, None, Adam(0.025)

    def step(jacobian, losses, key):
        nonlocal weights, first
        if first is None:
            weights, first = np.ones_like(losses), losses
        used = weights
        size = used * norms(jacobian)
        rate = losses / first
        target = size.mean() * (rate / rate.mean()) ** 1.5
        weights = used + adam.step(np.sign(size - target) * norms(jacobian))
        weights = np.maximum(weights, 0.0)
        weights = weights / weights.sum() * len(losses)
        return used @ jacobian

    return step


def least_norm(jacobian):
    """min |J' w| with sum w = 1, w >= 0, as a least squares problem with nonnegative unknowns."""
    scaled = jacobian.T / norms(jacobian).min()
    target = np.append(np.zeros(len(scaled)), 1.0)
    rows = np.vstack([scaled, np.ones(len(jacobian))])
    found, _ = scipy.optimize.nnls(rows, target, maxiter=10_000)
    return found / found.sum()


def pcgrad():
    def step(jacobian, losses, key):
        orders = np.asarray(random_orders(key, len(jacobian)))
        total = np.zeros(jacobian.shape[1])
        for i, gradient in enumerate(jacobian):
            projected = gradient.copy()
            for j in orders[:, i]:
                if j != i and projected @ jacobian[j] < 0:
                    other = jacobian[j]
                    projected -= projected @ other / (other @ other) * other
            total += projected
        return total

    return step


def gradvac():
    usual = None

    def step(jacobian, losses, key):
        nonlocal usual
        usual = np.zeros((len(jacobian), len(jacobian))) if usual is None else usual
        orders = np.asarray(random_orders(key, len(jacobian)))
        total = np.zeros(jacobian.shape[1])
        for i, gradient in enumerate(jacobian):
            turned = gradient.copy()
            for j in orders[:, i]:
                if j == i:
                    continue
                other, goal = jacobian[j], usual[i, j]
                own, size = np.linalg.norm(turned), np.linalg.norm(other)
                cosine = turned @ other / own / size
                if cosine < goal:
                    sine = lambda c: np.sqrt(1 - c**2)
                    factor = own * (goal * sine(cosine) - cosine * sine(goal))
                    turned = turned + factor / (size * sine(goal)) * other
                usual[i, j] = 0.99 * goal + 0.01 * cosine
            total += turned
        return total

    return step


def shortest_to(units, gaps):
    """The shortest v with units v >= gaps, by NNLS (least distance programming); or None."""
    rows = np.vstack([units.T, gaps])
    target = np.append(np.zeros(len(rows) - 1), 1.0)
    found, _ = scipy.optimize.nnls(rows, target, maxiter=10_000)
    rest = rows @ found - target
    return None if rest[-1] > -1e-12 else -rest[:-1] / rest[-1]


def worst_served_best(jacobian, center, radius):
    """argmax min <g_t, d> over |d - center| <= radius, by bisection on the value."""
    size, served = norms(jacobian), jacobian @ center
    units = jacobian / size[:, None]
    low, high = served.min(), served.min() + size.max() * radius
    best = np.zeros_like(center)
    for _ in range(200):
        middle = (low + high) / 2
        lift = shortest_to(units, (middle - served) / size / radius)
        if lift is None or np.linalg.norm(lift) > 1:
            high = middle
        else:
            low, best = middle, lift
        if np.linalg.norm(best) > 1 - 1e-7:
            break
    return center + radius * best


def cagrad(jacobian, losses):
    mean = jacobian.mean(0)
    return worst_served_best(jacobian, mean, 0.5 * np.linalg.norm(mean))


def imgrad(jacobian, losses):
    mean = jacobian.mean(0)
    size = np.linalg.norm(mean)
    least = least_norm(jacobian) @ jacobian
    cosine = mean @ least / size / np.linalg.norm(least)
    lift = worst_served_best(jacobian, mean, 0.5 * cosine / (1.5 - cosine) * size) - mean
    return mean + 0.5 * size * lift / np.linalg.norm(lift)


def alpha_fair(jacobian, alpha, shares=1.0):
    """G w = (shares / w)^(1 / alpha), as the minimum of a convex function, at unit norms."""
    size = norms(jacobian)
    cosines = jacobian @ jacobian.T / np.outer(size, size)
    mean = np.exp(np.log(size).mean())
    source = shares ** (1 / alpha) * (size / mean) ** (1 / alpha - 1)
    power = 1 - 1 / alpha
    utility = np.log if alpha == 1 else lambda x: x**power / power

    def value(x):
        return x @ cosines @ x / 2 - source @ utility(x) if x.min() > 0 else 1e300

    slope = lambda x: cosines @ x - source * np.abs(x) ** (-1 / alpha)
    inverse = lambda x: np.abs(x) ** (-1 / alpha - 1)  # trial points outside are rejected by value
    curvature = lambda x: cosines + np.diag(source / alpha * inverse(x))
    found = scipy.optimize.minimize(
        value,
        source ** (alpha / (1 + alpha)),
        jac=slope,
        hess=curvature,
        method="trust-exact",
        tol=1e-11,
    ).x
    for _ in range(5):  # far apart in scale, the trust region stops early
        found = found - np.linalg.solve(curvature(found), slope(found))
    assert np.abs(slope(found) / source * found ** (1 / alpha)).max() < 1e-7
    return found * mean ** ((1 - alpha) / (1 + alpha)) / size


def impartial(jacobian):
    """sum w = 1 and equal projections on the unit gradients: a linear system in w * norms."""
    size = norms(jacobian)
    units = jacobian / size[:, None]
    last = np.append(1 / size, 0.0)
    system = np.vstack([np.column_stack([units @ units.T, -np.ones(len(size))]), last])
    return np.linalg.solve(system, np.append(np.zeros(len(size)), 1.0))[:-1] / size


def imtl():
    scale, adam = 0.0, Adam(1e-2)

    def step(jacobian, losses, key):
        nonlocal scale
        factors = np.exp(scale) * np.ones_like(losses)
        scaled = factors[:, None] * jacobian
        scale = scale + adam.step(factors * losses - 1)
        return impartial(scaled) @ scaled

    return step


def aligned_mtl(jacobian, losses):
    left, sizes, right = np.linalg.svd(jacobian, full_matrices=False)
    return sizes.min() * (left @ right).sum(0)


def config(jacobian, losses):
    units = jacobian / norms(jacobian)[:, None]
    best = np.linalg.pinv(units) @ np.ones(len(units))
    best = best / np.linalg.norm(best)
    return (jacobian @ best).sum() * best


def harmless(jacobian, gradient):
    """The projection of a gradient on {d: J d >= 0}: g + J' x with x >= 0, by NNLS."""
    units = jacobian / norms(jacobian)[:, None]
    found, _ = scipy.optimize.nnls(units.T, -gradient, maxiter=10_000)
    return gradient + units.T @ found


def krum(jacobian, losses):
    count = len(jacobian)
    distances = ((jacobian[:, None] - jacobian[None]) ** 2).sum(-1)
    neighbors = min(max(count - 2, 1), count - 1)
    scores = [np.sort(np.delete(row, t))[:neighbors].sum() for t, row in enumerate(distances)]
    return jacobian[np.argmin(scores)]


def nearest_on_simplex(point):
    """By the root of sum max(p - c, 0) = 1."""
    excess = lambda c: np.maximum(point - c, 0).sum() - 1
    level = scipy.optimize.brentq(excess, point.min() - 1, point.max(), xtol=1e-15)
    return np.maximum(point - level, 0)


def modo():
    weights = None

    def step(jacobian, losses, key):
        nonlocal weights
        weights = np.full(len(losses), 1 / len(losses)) if weights is None else weights
        pull = jacobian @ (jacobian.T @ weights) + 0.1 * weights
        weights = nearest_on_simplex(weights - 1e-3 * pull)
        return weights @ jacobian

    return step


def sdmgrad():
    weights = None

    def step(jacobian, losses, key):
        nonlocal weights
        mean = np.full(len(losses), 1 / len(losses))
        weights = mean if weights is None else weights
        products = jacobian @ jacobian.T / norms(jacobian).mean() ** 2
        velocity = 0.0
        for _ in range(20):
            velocity = 0.5 * velocity + products @ (weights + 0.3 * mean)
            weights = nearest_on_simplex(weights - 0.5 * velocity)
        return (weights + 0.3 * mean) @ jacobian / 1.3

    return step


def cr_mogm():
    smooth = None

    def step(jacobian, losses, key):
        nonlocal smooth
        own = least_norm(jacobian)
        smooth = own if smooth is None else 0.9 * smooth + 0.1 * own
        return smooth @ jacobian

    return step


# --- Jacobian -------------------------------------------------------------------------------------


def graddrop():
    def step(jacobian, losses, key):
        (leaf,) = jax.random.split(key, 1)
        draws = np.asarray(jax.random.uniform(leaf, jacobian.shape[1:]))
        purity = 0.5 * (1 + jacobian.sum(0) / np.abs(jacobian).sum(0))
        return np.where(purity > draws, jacobian.clip(0), jacobian.clip(None, 0)).sum(0)

    return step


def trimmed_mean(jacobian, losses):
    drop = min(1, (len(jacobian) - 1) // 2)
    return np.sort(jacobian, axis=0)[drop : len(jacobian) - drop].mean(0)


def moco():
    rows, weights = 0.0, None

    def step(jacobian, losses, key):
        nonlocal rows, weights
        step.count += 1
        weights = np.full(len(losses), 1 / len(losses)) if weights is None else weights
        rows = rows - 0.5 / step.count**0.5 * (rows - jacobian)
        weights = nearest_on_simplex(weights - 0.1 / step.count**0.5 * rows @ (rows.T @ weights))
        return weights @ rows

    step.count = 0
    return step


def db_mtl():
    rows = 0.0

    def step(jacobian, losses, key):
        nonlocal rows
        rows = 0.9 * rows + 0.1 * jacobian / losses[:, None]
        return (norms(rows).max() / norms(rows)) @ rows

    return step


def excess_mtl():
    squares, first, weights = 0.0, None, None

    def step(jacobian, losses, key):
        nonlocal squares, first, weights
        squares = squares + jacobian**2
        excess = (jacobian**2 / np.sqrt(squares + 1e-7)).sum(1)
        if first is None:
            first, weights = excess, np.ones_like(losses)
        else:
            weights = weights * np.exp(1e-2 * excess / first)
            weights = weights / weights.sum() * len(losses)
        return weights @ jacobian

    return step


REFERENCES = {
    "ew": stateless(lambda jacobian, losses: jacobian.sum(0)),
    "fixed": weighted(lambda jacobian, losses: 1.0 + np.arange(len(losses))),
    "si": of_objective(lambda losses: np.log(losses).sum()),
    "gls": of_objective(lambda losses: np.exp(np.log(losses).mean())),
    "uw": uw,
    "uw_so": weighted(lambda jacobian, losses: softmax(1 / losses)),
    "imtl_l": imtl_l,
    "dwa": dwa,
    "rlw": rlw,
    "famo": weighted(lambda jacobian, losses: 1 / losses / (1 / losses).sum()),
    "go4align": go4align,
    "chebyshev": of_objective(lambda losses: losses.max() / len(losses)),
    "stch": of_objective(lambda losses: np.log(np.exp(losses / len(losses)).sum())),
    "pbi": of_objective(pbi),
    "cosmos": of_objective(cosmos),
    "gradnorm": gradnorm,
    "mgda": weighted(lambda jacobian, losses: least_norm(jacobian)),
    "pcgrad": pcgrad,
    "gradvac": gradvac,
    "cagrad": stateless(cagrad),
    "imgrad": stateless(imgrad),
    "imtl_g": weighted(lambda jacobian, losses: impartial(jacobian)),
    "imtl": imtl,
    "nash_mtl": weighted(lambda jacobian, losses: alpha_fair(jacobian, 1.0)),
    "fairgrad": weighted(lambda jacobian, losses: alpha_fair(jacobian, 1.0)),
    "aligned_mtl": stateless(aligned_mtl),
    "config": stateless(config),
    "ntkmtl": weighted(
        lambda jacobian, losses: np.sqrt((jacobian**2).sum() / (jacobian**2).sum(1))
    ),
    "upgrad": stateless(lambda jacobian, losses: sum(harmless(jacobian, g) for g in jacobian)),
    "dualproj": stateless(lambda jacobian, losses: harmless(jacobian, jacobian.sum(0))),
    "krum": stateless(krum),
    "cr_mogm": cr_mogm,
    "sdmgrad": sdmgrad,
    "modo": modo,
    "graddrop": graddrop,
    "trimmed_mean": stateless(trimmed_mean),
    "moco": moco,
    "db_mtl": db_mtl,
    "excess_mtl": excess_mtl,
}
"""Name -> a function that makes the reference's step."""


def best_clusters(values, groups):
    """Each value replaced by the mean of its cluster, for the best of all partitions into runs."""
    order = np.argsort(values)
    best, chosen = np.inf, None
    for cuts in itertools.combinations(range(1, len(values)), min(groups, len(values)) - 1):
        parts = np.split(order, cuts)
        cost = sum(((values[part] - values[part].mean()) ** 2).sum() for part in parts)
        if cost < best:
            best, chosen = cost, parts
    means = np.empty_like(values)
    for part in chosen:
        means[part] = values[part].mean()
    return means
