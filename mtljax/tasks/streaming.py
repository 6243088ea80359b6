"""What exact metrics are made of: sums without rounding, and rows kept per example."""

import abc
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PyTree

from mtljax.tasks.base import Metrics


def fill_absent(label: PyTree, present: Bool[Array, " B"]) -> PyTree:
    """The labels with zeros in place of whatever stands where there is none.

    Without it a NaN in a missing label reaches the gradient: 0 * NaN is NaN.
    """
    return jax.tree.map(lambda x: jnp.where(of_rank(present, x.ndim), x, jnp.zeros_like(x)), label)


def of_rank(x: Array, ndim: int) -> Array:
    """[B, ...] with axes of length 1 appended."""
    return x.reshape(x.shape + (1,) * (ndim - x.ndim))


def precise_sum(x: Float[Array, "Q *N"]) -> Float[Array, "Q 2"]:
    """The sum over all axes but the first, as two numbers whose sum it is to about 40 bits.

    A plain float32 sum over the pixels of a batch is off by up to 1e-6, and by another amount for
    another batch size. Here each addition's rounding error is kept (Knuth's two-sum).
    """
    x = x.reshape(x.shape[0], -1)
    zero = jnp.zeros((), x.dtype)
    return jnp.stack(jax.lax.reduce((x, jnp.zeros_like(x)), (zero, zero), _two_sum, (1,)), -1)


def precise_add(a: Float[Array, "Q 2"], b: Float[Array, "Q 2"]) -> Float[Array, "Q 2"]:
    """The sum of two results of `precise_sum`."""
    return jnp.stack(_two_sum((a[:, 0], a[:, 1]), (b[:, 0], b[:, 1])), -1)


def _two_sum(a, b):
    (high, low), (other_high, other_low) = a, b
    total = high + other_high
    part = total - high
    low = low + other_low + ((high - (total - part)) + (other_high - part))
    high = total + low  # so that `low` stays small, and with it the error of its own sum
    return high, low - (high - total)


class PerExample(Metrics):
    """Metrics that need something of every example: rows, kept until the end.

    A state is `{}` for no examples, `{"raw": {name: [B, ...]}, "present": [B]}` as it comes from a
    device, and `{"rows": {name: [N, ...]}}` after `merge` has dropped the absent examples and
    `digest` has made the others small.
    """

    @abc.abstractmethod
    def describe(self, output: Any, label: Any) -> dict[str, Array]:
        """What is needed of each example, {name: [B, ...]}: on the device, in 32 bits."""

    def digest(self, rows: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The same examples in less memory, {name: [N, ...]}: on the host."""
        return rows

    @abc.abstractmethod
    def summarise(self, rows: dict[str, np.ndarray]) -> dict[str, Any]:
        """The metrics of at least one example's rows, from `digest`."""

    @property
    @abc.abstractmethod
    def names(self) -> tuple[str, ...]:
        """What `summarise` gives; NaN without examples."""

    def empty(self):
        return {}

    def update(self, state, output, label, present):
        raw = self.describe(output, fill_absent(label, present))
        if state:
            join = lambda old, new: jnp.concatenate([old, new])
            raw = jax.tree.map(join, state["raw"], raw)
            present = join(state["present"], present)
        return {"raw": raw, "present": present}

    def merge(self, a, b):
        parts = [self._rows(state) for state in (a, b) if state]
        if not parts:
            return {}
        return {"rows": {name: np.concatenate([rows[name] for rows in parts]) for name in parts[0]}}

    def compute(self, state):
        rows = self._rows(state) if state else {}
        if not rows or not len(next(iter(rows.values()))):
            return dict.fromkeys(self.names, float("nan"))
        return self.summarise(rows)

    def _rows(self, state: PyTree) -> dict[str, np.ndarray]:
        if "rows" in state:
            return state["rows"]
        present = np.asarray(state["present"])
        return self.digest({name: np.asarray(x)[present] for name, x in state["raw"].items()})
