"""A recurrent network that reads the image row by row."""

import flax.linen as nn
import jax.numpy as jnp


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
        read = lambda **way: nn.RNN(
            nn.GRUCell(self.width), return_carry=True, unroll=rows.shape[1], **way
        )(rows)
        down, down_rows = read()
        up, up_rows = read(reverse=True, keep_order=True)
        parts = (down, up) if self.last else (down_rows, up_rows)
        out = jnp.concatenate(parts, -1)
        return nn.Dropout(self.dropout, deterministic=not train)(out)
