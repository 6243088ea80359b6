"""A recurrent network that reads the image row by row."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float


def rnn(width: int = 64, layers: int = 2, dropout: float = 0.0) -> tuple[nn.Module, ...]:
    """Gated recurrent network over the rows of the image, both ways, a stage per layer.

    Args:
      width: Units of each direction.
      layers: Number of bidirectional layers; the last hands on its two final states.
      dropout: Share of units dropped after each layer.

    Returns:
      Stages: [B, H, W, C] -> [B, H, 2 * width] -> ... -> [B, 2 * width].

    References:
      Cho et al., 2014, arXiv:1406.1078
    """
    return tuple(
        GRUStage(width=width, last=i == layers - 1, dropout=dropout) for i in range(layers)
    )


class GRUStage(nn.Module):
    """Two GRUs over the second axis, one from each end."""

    width: int
    last: bool
    dropout: float

    @nn.compact
    def __call__(self, x, train):
        rows = x.reshape(x.shape[0], x.shape[1], -1)
        down, up = RNN(self.width)(rows), RNN(self.width, reverse=True)(rows)
        if self.last:
            out = jnp.concatenate([down[-1], up[0]], -1)
        else:
            out = jnp.concatenate([jnp.stack(down, 1), jnp.stack(up, 1)], -1)
        return nn.Dropout(self.dropout, deterministic=not train)(out)


class RNN(nn.Module):
    """A GRU over the second axis: its states, in the rows' order.

    Attributes:
      width: Units.
      reverse: Whether it reads from the last row on.
    """

    width: int
    reverse: bool = False

    @nn.compact
    def __call__(self, rows: Float[Array, "B H F"]) -> list[Float[Array, "B G"]]:
        cell = nn.GRUCell(self.width, name="cell")
        state = jnp.zeros((rows.shape[0], self.width), rows.dtype)
        states = []
        for row in range(rows.shape[1])[:: -1 if self.reverse else 1]:
            state, _ = cell(state, rows[:, row])
            states.append(state)
        return states[::-1] if self.reverse else states
