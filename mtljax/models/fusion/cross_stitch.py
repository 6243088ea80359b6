"""Cross-stitch networks."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array

from mtljax.models.fusion.exchange import Exchange, initial_weights


class CrossStitch(Exchange):
    """Cross-stitch network: a trunk per task, mixed linearly after every stage.

    x_t <- sum_s a_ts x_s, with a learned scalar a_ts per stage and pair of tasks. For the shared
    parameters and the representation see `Exchange`.

    Attributes:
      same: Initial a_tt; other tasks share 1 - same evenly. With 1 the trunks start independent.

    References:
      Misra et al., 2016, arXiv:1604.03539
    """

    same: float = 0.9

    def unit(self, index: int, name: str) -> nn.Module:
        weights = initial_weights(index, len(self.tasks), self.same)
        return Stitch(start=weights, parent=self, name=name)


class Stitch(nn.Module):
    """Row of a cross-stitch unit, for one task."""

    start: tuple[float, ...]
    """Initial weights of the tasks."""

    @nn.compact
    def __call__(self, features: list[Array], train: bool) -> Array:
        del train
        row = self.param("row", lambda _: jnp.asarray(self.start))
        return sum(weight.astype(x.dtype) * x for weight, x in zip(row, features, strict=True))
