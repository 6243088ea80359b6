"""References of PIVRG, SAM-GS and MoCoGrad, as `balancing_references`: NumPy, float64."""

import itertools

import numpy as np
from support.balancing_references import alpha_fair, norms, softmax

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


REFERENCES = {"pivrg": pivrg, "sam_gs": sam_gs, "mocograd": mocograd}
"""Name -> a function that makes the reference's step."""
