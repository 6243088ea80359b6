"""NDDR-CNN."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array

from mtljax.models.fusion.exchange import Exchange, initial_weights
from mtljax.models.layers import Norm, NormKind, dense


class NDDR(Exchange):
    """Neural discriminative dimensionality reduction: concatenate features, then reduce them.

    x_t <- ReLU(norm(W_t [x_1; ...; x_T])) after every stage: a 1x1 convolution per task reduces the
    concatenated features to their width. Shared parameters, representation: see `Exchange`.

    Attributes:
      same: Initial factor of the identity in W_t for task t; other tasks share 1 - same evenly.
      norm: Normalization after each W_t.
      axis_name: Axis of `norm="batch"` inside `pmap` or `shard_map`; see `Norm`.

    References:
      Gao et al., 2018, arXiv:1801.08297
    """

    same: float = 0.9
    norm: NormKind = "batch"
    axis_name: str | None = None

    def unit(self, index: int, name: str) -> nn.Module:
        weights = initial_weights(index, len(self.tasks), self.same)
        return Reduce(
            start=weights, norm=self.norm, axis_name=self.axis_name, parent=self, name=name
        )


class Reduce(nn.Module):
    """Reduction of the features of all tasks, for one task."""

    start: tuple[float, ...]
    """Initial weights of the tasks."""
    norm: NormKind
    """Normalization after the reduction."""
    axis_name: str | None
    """Axis of batch normalization; see `Norm`."""

    @nn.compact
    def __call__(self, features: list[Array], train: bool) -> Array:
        width = features[0].shape[-1]
        blocks = jnp.concatenate([weight * jnp.eye(width) for weight in self.start])
        x = dense(
            width,
            use_bias=self.norm == "none",
            kernel_init=lambda key, shape, dtype: blocks.astype(dtype).reshape(shape),
        )(jnp.concatenate(features, -1))
        return nn.relu(Norm(self.norm, self.axis_name)(x, train))
