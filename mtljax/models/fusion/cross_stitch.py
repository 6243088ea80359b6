"""Cross-stitch networks."""

import flax.linen as nn
import jax.numpy as jnp

from mtljax.models.fusion.exchange import Exchange, start


class CrossStitch(Exchange):
    """Cross-stitch network: a trunk per task, mixed linearly after every stage.

    x_t <- sum_s a_ts x_s, with a learned number a_ts per stage and pair of tasks. What is shared
    and where the representation is: see `Exchange`.

    Attributes:
      same: a_tt at the start; the other tasks share 1 - same evenly. At 1 the trunks start
        independent of each other.

    References:
      Misra et al., 2016, arXiv:1604.03539
    """

    same: float = 0.9

    def unit(self, own, name):
        weights = tuple(start(own, len(self.tasks), self.same))
        return Stitch(start=weights, parent=self, name=name)


class Stitch(nn.Module):
    """One task's row of a cross-stitch unit."""

    start: tuple[float, ...]

    @nn.compact
    def __call__(self, features, train):
        del train
        row = self.param("row", lambda _: jnp.asarray(self.start))
        return sum(weight.astype(x.dtype) * x for weight, x in zip(row, features, strict=True))
