"""Recurrent network over the rows of the image."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from mtljax.models.trunks.base import Stages, with_spec


@with_spec
def rnn(width: int = 64, layers: int = 2, dropout: float = 0.0) -> Stages:
    """Bidirectional gated recurrent network over the rows of the image, with one stage per layer.

    Args:
      width: Units per direction.
      layers: Number of bidirectional layers; the last one returns its two final states.
      dropout: Dropout rate after each layer.

    Returns:
      Stages: [B, H, W, C] -> [B, H, 2 * width] -> ... -> [B, 2 * width].

    References:
      Cho et al., 2014, arXiv:1406.1078
    """
    return tuple(
        GRUStage(width=width, last=i == layers - 1, dropout=dropout) for i in range(layers)
    )


class GRUStage(nn.Module):
    """Two GRUs over the second axis, one per direction."""

    width: int
    """Units per direction."""
    last: bool
    """True to return the two final states only."""
    dropout: float
    """Dropout rate of the states."""

    @nn.compact
    def __call__(self, x: Float[Array, "B H ..."], train: bool) -> Float[Array, "B ..."]:
        rows = x.reshape(x.shape[0], x.shape[1], -1)
        down, up = RNN(self.width)(rows), RNN(self.width, reverse=True)(rows)
        if self.last:
            out = jnp.concatenate([down[-1], up[0]], -1)
        else:
            out = jnp.concatenate([jnp.stack(down, 1), jnp.stack(up, 1)], -1)
        return nn.Dropout(self.dropout, deterministic=not train)(out)


class RNN(nn.Module):
    """GRU over the rows, from the last one if `reverse`; returns its states in their order."""

    width: int
    """Number of units."""
    reverse: bool = False
    """True to start at the last row."""

    @nn.compact
    def __call__(self, rows: Float[Array, "B H F"]) -> list[Float[Array, "B G"]]:
        cell = nn.GRUCell(self.width, name="cell")
        state = jnp.zeros((rows.shape[0], self.width), rows.dtype)
        states = []
        for row in range(rows.shape[1])[:: -1 if self.reverse else 1]:
            state, _ = cell(state, rows[:, row])
            states.append(state)
        return states[::-1] if self.reverse else states
