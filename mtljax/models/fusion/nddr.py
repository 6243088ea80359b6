"""NDDR-CNN."""

import flax.linen as nn
import jax.numpy as jnp

from mtljax.models.fusion.exchange import Exchange, start
from mtljax.models.layers import Norm, NormKind, dense


class NDDR(Exchange):
    """Neural discriminative dimensionality reduction: after every stage, trunks are joined and cut.

    x_t <- ReLU(norm(W_t [x_1; ...; x_T])): all tasks' features are concatenated and a 1x1
    convolution per task brings them back to their width. What is shared and where the
    representation is: see `Exchange`.

    Attributes:
      same: W_t starts as `same` times the identity on the task's own features, the other tasks
        sharing 1 - same evenly.
      norm: Normalisation after each W_t.
      axis_name: For `norm="batch"` inside `pmap` or `shard_map`; see `Norm`.

    References:
      Gao et al., 2018, arXiv:1801.08297
    """

    same: float = 0.9
    norm: NormKind = "batch"
    axis_name: str | None = None

    def unit(self, own, name):
        weights = tuple(start(own, len(self.tasks), self.same))
        return Reduce(
            start=weights, norm=self.norm, axis_name=self.axis_name, parent=self, name=name
        )


class Reduce(nn.Module):
    """One task's reduction of all tasks' features."""

    start: tuple[float, ...]
    norm: NormKind
    axis_name: str | None

    @nn.compact
    def __call__(self, features, train):
        width = features[0].shape[-1]
        blocks = jnp.concatenate([weight * jnp.eye(width) for weight in self.start])
        joined = jnp.concatenate(features, -1)
        x = dense(
            width,
            use_bias=self.norm == "none",
            kernel_init=lambda key, shape, dtype: blocks.astype(dtype).reshape(shape),
        )(joined)
        return nn.relu(Norm(self.norm, self.axis_name)(x, train))
