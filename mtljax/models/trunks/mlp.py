"""A multi-layer perceptron over the flattened image."""

import flax.linen as nn

from mtljax.models.layers import Norm, NormKind


def mlp(
    widths: tuple[int, ...] = (256, 256, 256), norm: NormKind = "layer", dropout: float = 0.0
) -> tuple[nn.Module, ...]:
    """Multi-layer perceptron over the flattened image, a stage per layer.

    Args:
      widths: Units of each layer.
      norm: Normalisation before each ReLU.
      dropout: Share of units dropped after each ReLU.

    Returns:
      Stages: [B, H, W, C] -> [B, widths[0]] -> ... -> [B, widths[-1]].
    """
    return tuple(DenseStage(width=w, norm=norm, dropout=dropout) for w in widths)


class DenseStage(nn.Module):
    """Linear, normalise, ReLU, drop."""

    width: int
    norm: NormKind
    dropout: float

    @nn.compact
    def __call__(self, x, train):
        x = nn.Dense(self.width)(x.reshape(x.shape[0], -1))
        x = nn.relu(Norm(self.norm)(x, train))
        return nn.Dropout(self.dropout, deterministic=not train)(x)
