"""What the suites do to samples and their metrics."""

import jax
import numpy as np

TOLERANCES = {("normals", "median"): {"atol": 0.01}}
"""The median's error is stated to be below 0.01 degrees; all else is exact to 1e-6."""


def rows(tree, index):
    return jax.tree.map(lambda x: x[index], tree)


def garbage(x):
    """What may stand where there is no label."""
    return np.full_like(x, np.nan if x.dtype.kind == "f" else -7)


def hide(labels, present):
    """Labels with garbage where there is none."""
    keep = lambda x: np.where(present.reshape(-1, *[1] * (x.ndim - 1)), x, garbage(x))
    return jax.tree.map(keep, labels)


def assert_same(found, wanted, kind, rtol=1e-6, atol=1e-9):
    for name, value in wanted.items():
        # The loss is a sum in 32 bits over a batch; it steers, and is not a reported metric.
        tolerance = {"rtol": 1e-5 if name == "loss" else rtol, "atol": atol}
        tolerance |= TOLERANCES.get((kind, name), {})
        np.testing.assert_allclose(found[name], value, **tolerance, err_msg=f"{kind} {name}")
