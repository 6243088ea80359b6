"""Multi-layer perceptron over the flattened image."""

from typing import Literal

import flax.linen as nn
from jaxtyping import Array, Float

from mtljax.models.layers import MOMENTUM, Norm, NormKind
from mtljax.models.trunks.base import Stages, with_spec

Activation = Literal["relu", "gelu", "tanh"]
"""Activation function."""


@with_spec
def mlp(
    widths: tuple[int, ...] = (256, 256, 256),
    norm: NormKind = "layer",
    dropout: float = 0.0,
    activation: Activation = "relu",
    momentum: float = MOMENTUM,
) -> Stages:
    """Multi-layer perceptron over the flattened image, with one stage per layer.

    Args:
      widths: Units of each layer.
      norm: Normalization before each activation.
      dropout: Dropout rate after each activation.
      activation: Nonlinearity; `gelu` and `tanh` make the loss smooth.
      momentum: Decay of the running statistics of `norm="batch"`.

    Returns:
      Stages: [B, H, W, C] -> [B, widths[0]] -> ... -> [B, widths[-1]].
    """
    return tuple(
        DenseStage(width=w, norm=norm, dropout=dropout, activation=activation, momentum=momentum)
        for w in widths
    )


class DenseStage(nn.Module):
    """Linear layer, normalization, activation and dropout."""

    width: int
    """Number of units."""
    norm: NormKind
    """Normalization after the linear layer."""
    dropout: float
    """Dropout rate."""
    activation: Activation
    """Activation function."""
    momentum: float
    """Decay of the running statistics of batch normalization."""

    @nn.compact
    def __call__(self, x: Float[Array, "B ..."], train: bool) -> Float[Array, "B F"]:
        x = nn.Dense(self.width)(x.reshape(x.shape[0], -1))
        x = getattr(nn, self.activation)(Norm(self.norm, momentum=self.momentum)(x, train))
        return nn.Dropout(self.dropout, deterministic=not train)(x)
