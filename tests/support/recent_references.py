"""References of methods added later, as `balancing_references`: NumPy, float64."""

import itertools

import numpy as np
from support.balancing_references import Adam, alpha_fair, norms, shortest_to, softmax, weighted

from mtljax.balancing.conflict import random_orders


def pivrg():
    """With windows of one step and the losses 1, 2, 3, ... of single-task learning."""
    scores = None

    def step(jacobian, losses, key):
        nonlocal scores
        scores = np.zeros_like(losses) if scores is None else scores
        temperature = max((scores.max() - scores.min()) / np.log(2), 10)
        shares = len(losses) * softmax(scores / temperature)
        scores = 100 * (losses / (1.0 + np.arange(len(losses))) - 1)
        return alpha_fair(jacobian, 2.0, shares) @ jacobian

    return step


def sam_gs():
    first, second, steps = 0.0, 0.0, 0

    def step(jacobian, losses, key):
        nonlocal first, second, steps
        if len(jacobian) == 1:
            return jacobian[0]
        size = norms(jacobian)
        pairs = itertools.combinations(size, 2)
        similarity = np.mean([2 * a * b / (a**2 + b**2) for a, b in pairs])
        steps += 1
        first = 0.9 * first + 0.1 * jacobian
        second = 0.99 * second + 0.01 * (1 - similarity) ** 2 + 1e-8
        if similarity < 0.1:
            return (jacobian / size[:, None]).sum(0) * size.mean()
        unbiased = first / (1 - 0.9**steps), second / (1 - 0.99**steps)
        return (jacobian * np.abs(unbiased[0])).sum(0) / np.sqrt(unbiased[1])

    return step


def mocograd():
    moment = None

    def step(jacobian, losses, key):
        nonlocal moment
        orders = np.asarray(random_orders(key, len(jacobian)))
        calibrated = jacobian.copy()
        for i, gradient in enumerate(calibrated if moment is not None else []):
            for j in orders[:, i]:
                if j != i and gradient @ jacobian[j] < 0:
                    own = 0.9 * moment + 0.1 * jacobian[j]
                    gradient += 0.1 * np.linalg.norm(jacobian[j]) / np.linalg.norm(own) * own
        total = calibrated.sum(0)
        moment = 0.1 * total + (0 if moment is None else 0.9 * moment)
        return total

    return step


def central(function, point, step=1e-6):
    """The gradient of a function by central differences."""
    moves = step * np.diag(np.maximum(np.abs(point), 1e-2))
    rise = [function(point + move) - function(point - move) for move in moves]
    return np.array(rise) / (2 * moves.diagonal())


def sigmoid(values):
    return 1 / (1 + np.exp(-values))


def ldc_mtl(penalty=0.01, normalize="none"):
    """Both gradients of the objective in the docstring, by differences."""
    logits, adam, first = None, Adam(1e-3), None

    def step(jacobian, losses, key):
        nonlocal logits, first
        if first is None:
            logits, first = np.ones_like(losses), losses
        total = sigmoid(logits).sum()

        def objective(losses, logits):
            if normalize == "rescaled":
                losses = losses / (first / first.min())
            elif normalize == "log":
                losses = np.log(losses / first)
            weighted = sigmoid(logits) * losses
            return weighted.sum() / total + penalty * np.abs(np.diff(weighted)).sum()

        used = logits
        logits = used + adam.step(central(lambda a: objective(losses, a), used))
        return central(lambda values: objective(values, used), losses) @ jacobian

    return step


def igb(window=100):
    seen = []

    def step(jacobian, losses, key):
        gaps = np.ones_like(losses)
        if len(seen) >= 2 * window:
            gaps = losses / np.mean(seen[window : 2 * window], axis=0)
        seen.append(losses)
        return len(losses) * softmax(gaps) / losses @ jacobian

    return step


def dibs_mtl(steps=1, radius=1.0):
    def step(jacobian, losses, key):
        units = jacobian / norms(jacobian)[:, None]
        moved = np.zeros(jacobian.shape[1])
        for _ in range(steps):
            if np.linalg.norm(moved) > radius:
                break
            apart = norms(moved + radius * units)
            moved = moved - radius / steps * apart @ units
        return -moved

    return step


def pcd(tau=0.02, beta=0.999, epsilon=1e-8, primary=0):
    """The nearest point of a polyhedron, by NNLS on all of the gradients as vectors."""
    squares, count = 0.0, 0

    def step(jacobian, losses, key):
        nonlocal squares, count
        count += 1
        squares = beta * squares + (1 - beta) * norms(jacobian) ** 2
        scale = 1 / np.sqrt(squares / (1 - beta**count) + epsilon)
        scaled = scale[:, None] * jacobian
        others = np.arange(len(jacobian)) != primary
        direction = scaled[primary]
        if others.any():
            sizes = norms(scaled)[others]
            units = scaled[others] / sizes[:, None]
            lift = shortest_to(units, tau * sizes - units @ direction)
            direction = direction if lift is None else direction + lift
        return direction * norms(jacobian)[primary] / np.linalg.norm(direction)

    return step


REFERENCES = {
    "pivrg": pivrg,
    "consmtl": weighted(lambda jacobian, losses: alpha_fair(jacobian, 2.0)),
    "sam_gs": sam_gs,
    "mocograd": mocograd,
    "ldc_mtl": ldc_mtl,
    "igb": igb,
    "dibs_mtl": dibs_mtl,
    "pcd": pcd,
}
"""Name -> a function that makes the reference's step."""
