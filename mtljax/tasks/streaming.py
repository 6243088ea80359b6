"""Building blocks of losses and metrics: masked and exact sums, rows per example, confusions."""

import abc
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree

from mtljax.tasks.base import SumAndCount
from mtljax.tasks.metric import Metrics, Present, TaskMetrics


def fill_absent(label: PyTree, present: Present) -> PyTree:
    """Returns the labels with zeros in place of missing labels.

    Without it a NaN in a missing label reaches the gradient: 0 * NaN is NaN.
    """
    return jax.tree.map(lambda x: jnp.where(of_rank(present, x.ndim), x, jnp.zeros_like(x)), label)


def of_rank(x: Array, ndim: int) -> Array:
    """Appends axes of length 1 up to `ndim` axes."""
    return x.reshape(x.shape + (1,) * (ndim - x.ndim))


def masked_sum(
    losses: Float[Array, "..."],
    mask: Bool[Array, "..."],
    weights: Float[Array, "..."] | None = None,
) -> SumAndCount:
    """Returns the sum of the losses in the mask and their number, or the sum of their weights.

    Losses are weighted already.
    """
    count = mask.sum() if weights is None else jnp.where(mask, weights, 0.0).sum()
    return jnp.where(mask, losses, 0.0).sum(), count.astype(jnp.float32)


def masked_mean(losses: Float[Array, "B ..."], mask: Bool[Array, "B ..."]) -> Float[Array, " B"]:
    """Returns the mean of the losses in the mask of each example, 0 for an empty mask."""
    axes = tuple(range(1, losses.ndim))
    count = jnp.maximum(mask.sum(axes), 1).astype(losses.dtype)
    return jnp.where(mask, losses, 0.0).sum(axes) / count


def precise_sum(x: Float[Array, "Q *N"]) -> Float[Array, "Q 2"]:
    """Sums over all axes but the first, as two numbers whose sum is exact to about 40 bits.

    A plain float32 sum over the pixels of a batch has an error of up to 1e-6, which varies with
    the batch size. Here the rounding error of each addition is accumulated (Knuth's two-sum).
    """
    x = x.reshape(x.shape[0], -1)
    zero = jnp.zeros((), x.dtype)
    return jnp.stack(jax.lax.reduce((x, jnp.zeros_like(x)), (zero, zero), _two_sum, (1,)), -1)


def precise_add(a: Float[Array, "Q 2"], b: Float[Array, "Q 2"]) -> Float[Array, "Q 2"]:
    """Adds two results of `precise_sum`."""
    return jnp.stack(_two_sum((a[:, 0], a[:, 1]), (b[:, 0], b[:, 1])), -1)


def _two_sum(a: tuple[Array, Array], b: tuple[Array, Array]) -> tuple[Array, Array]:
    (high, low), (other_high, other_low) = a, b
    total = high + other_high
    part = total - high
    low = low + other_low + ((high - (total - part)) + (other_high - part))
    high = total + low  # keeps `low` small, and with it the rounding error of its sums
    return high, low - (high - total)


class PerExample(Metrics):
    """Metrics that need rows of every example until the end.

    A state is `{}` for zero examples, `{"raw": {name: [B, ...]}, "present": [B]}` on the device,
    and `{"rows": {name: [N, ...]}}` after `merge` drops unlabelled examples and `compress`es rows.
    """

    names: ClassVar[tuple[str, ...]]
    """Names of the metrics, which are NaN without examples."""

    @abc.abstractmethod
    def describe(self, output: Any, label: Any) -> dict[str, Array]:
        """Returns the rows of a batch, {name: [B, ...]}: on the device, in 32 bits."""

    def compress(self, rows: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Returns smaller rows of the same examples, {name: [N, ...]}: on the host."""
        return rows

    @abc.abstractmethod
    def compute_from_rows(self, rows: dict[str, np.ndarray]) -> TaskMetrics:
        """Returns the metrics for the compressed rows of one or more examples."""

    def empty(self) -> PyTree:
        return {}

    def update(self, state: PyTree, output: Any, label: Any, present: Present) -> PyTree:
        raw = self.describe(output, fill_absent(label, present))
        if state:
            join = lambda old, new: jnp.concatenate([old, new])
            raw = jax.tree.map(join, state["raw"], raw)
            present = join(state["present"], present)
        return {"raw": raw, "present": present}

    def merge(self, a: PyTree, b: PyTree) -> PyTree:
        parts = [self._rows(state) for state in (a, b) if state]
        if not parts:
            return {}
        return {"rows": {name: np.concatenate([rows[name] for rows in parts]) for name in parts[0]}}

    def compute(self, state: PyTree) -> TaskMetrics:
        rows = self._rows(state) if state else {}
        if not rows or not len(next(iter(rows.values()))):
            return dict.fromkeys(self.names, float("nan"))
        return self.compute_from_rows(rows)

    def _rows(self, state: PyTree) -> dict[str, np.ndarray]:
        if "rows" in state:
            return state["rows"]
        present = np.asarray(state["present"])
        return self.compress({name: np.asarray(x)[present] for name, x in state["raw"].items()})


class ConfusionMatrix(Metrics):
    """Counts [C, C] of labels with a class: row the true class, column the predicted one."""

    def __init__(self, num_classes: int, ignore: int = -1):
        self.num_classes, self.ignore = num_classes, ignore

    def empty(self) -> PyTree:
        return {"confusion": np.zeros((self.num_classes, self.num_classes), np.int32)}

    def update(self, state: PyTree, output: Array, label: Array, present: Present) -> PyTree:
        size = self.num_classes
        valid = has_class(label, size, self.ignore) & of_rank(present, label.ndim)
        cell = jnp.where(valid, label, 0).astype(jnp.int32) * size
        cell += output.argmax(-1).astype(jnp.int32)
        counts = jnp.zeros(size**2, jnp.int32).at[cell].add(valid.astype(jnp.int32))
        return {"confusion": state["confusion"] + counts.reshape(size, size)}


def has_class(
    label: Int[Array, "*size"], num_classes: int, ignore: int = -1
) -> Bool[Array, "*size"]:
    """Returns the mask of labels that are a class index and not `ignore`."""
    return (label >= 0) & (label < num_classes) & (label != ignore)


def log_frequencies(labels: Int[np.ndarray, "..."], count: int) -> Float[np.ndarray, " C"]:
    """Returns the logarithms of class frequencies with one added to the count of each class."""
    counts = np.asarray([np.count_nonzero(labels == c) for c in range(count)]) + 1
    return np.log(counts / counts.sum()).astype(np.float32)
