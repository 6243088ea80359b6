"""A multi-layer perceptron over the flattened image."""

from typing import Literal

import flax.linen as nn

from mtljax.models.layers import Norm, NormKind

Activation = Literal["relu", "gelu", "tanh"]


def mlp(
    widths: tuple[int, ...] = (256, 256, 256),
    norm: NormKind = "layer",
    dropout: float = 0.0,
    activation: Activation = "relu",
) -> tuple[nn.Module, ...]:
    """Multi-layer perceptron over the flattened image, a stage per layer.

    Args:
      widths: Units of each layer.
      norm: Normalisation before each activation.
      dropout: Share of units dropped after each activation.
      activation: What is not linear; with `gelu` or `tanh` the loss has no kinks.

    Returns:
      Stages: [B, H, W, C] -> [B, widths[0]] -> ... -> [B, widths[-1]].
    """
    return tuple(
        DenseStage(width=w, norm=norm, dropout=dropout, activation=activation) for w in widths
    )


class DenseStage(nn.Module):
    """Linear, normalise, activate, drop."""

    width: int
    norm: NormKind
    dropout: float
    activation: Activation

    @nn.compact
    def __call__(self, x, train):
        x = nn.Dense(self.width)(x.reshape(x.shape[0], -1))
        x = getattr(nn, self.activation)(Norm(self.norm)(x, train))
        return nn.Dropout(self.dropout, deterministic=not train)(x)
