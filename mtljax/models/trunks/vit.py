"""Vision transformers."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mtljax.models.layers import DropPath, dense, patches, resize
from mtljax.models.trunks.base import Carry


def vit(
    width: int,
    heads: int,
    depth: int = 12,
    patch: int = 16,
    image_size: int = 224,
    stages: int = 4,
    dropout: float = 0.0,
    drop_path: float = 0.0,
) -> tuple[nn.Module, ...]:
    """Vision transformer; `vit_ti`, `vit_s`, `vit_b` set the first two arguments.

    Every stage is a group of blocks and gives its patches' tokens as a map; the class token and,
    with the fusion `task_prompt`, the tasks' tokens travel beside it. The last stage ends with the
    final layer normalisation.

    Args:
      width: Channels of a token.
      heads: Attention heads.
      depth: Blocks.
      patch: Height and width of a patch in pixels.
      image_size: Whose patches the position embeddings are made for; for images of another size
        they are interpolated, so weights serve any size.
      stages: How many groups the blocks are cut into; must divide `depth`.
      dropout: Share of a block's outputs dropped in training.
      drop_path: Rate of stochastic depth at the last block, growing linearly from 0 at the first.

    Returns:
      Stages: [B, H, W, 3] -> [B, H/patch, W/patch, width] -> ... all alike.

    Raises:
      ValueError: `stages` does not divide `depth`, `heads` not `width`, or `patch` not the image.

    References:
      Dosovitskiy et al., 2020, arXiv:2010.11929; Ti and S: Touvron et al., 2020, arXiv:2012.12877
    """
    if depth % stages:
        raise ValueError(f"vit: stages={stages} does not divide depth={depth}")
    if width % heads:
        raise ValueError(f"vit: heads={heads} does not divide width={width}")
    each = depth // stages
    rates = [drop_path * i / max(1, depth - 1) for i in range(depth)]
    return tuple(
        ViTStage(
            first=i == 0,
            last=i == stages - 1,
            width=width,
            heads=heads,
            patch=patch,
            grid=image_size // patch,
            dropout=dropout,
            rates=tuple(rates[i * each : (i + 1) * each]),
        )
        for i in range(stages)
    )


vit_ti = functools.partial(vit, width=192, heads=3)
vit_s = functools.partial(vit, width=384, heads=6)
vit_b = functools.partial(vit, width=768, heads=12)


class ViTStage(nn.Module):
    """Patches become tokens, if it is the first stage; then blocks; then, if the last, the norm."""

    first: bool
    last: bool
    width: int
    heads: int
    patch: int
    grid: int
    dropout: float
    rates: tuple[float, ...]

    @nn.compact
    def __call__(self, x, train):
        if self.first:
            x = self.embed(x)
        batch, height, width, channels = x.features.shape
        tokens = jnp.concatenate([x.rest, x.features.reshape(batch, -1, channels)], 1)
        for i, rate in enumerate(self.rates):
            tokens = ViTBlock(self.heads, self.dropout, rate, name=f"block_{i}")(tokens, train)
        if self.last:
            tokens = nn.LayerNorm(name="norm")(tokens)
        count = x.rest.shape[1]
        return Carry(tokens[:, count:].reshape(x.features.shape), tokens[:, :count])

    def embed(self, image: Float[Array, "B H W C"] | Carry) -> Carry:
        """Patches and the class token, in front of it the tokens that came with the image."""
        extra = [image.rest] if isinstance(image, Carry) else []
        image = image.features if isinstance(image, Carry) else image
        if image.shape[1] % self.patch or image.shape[2] % self.patch:
            raise ValueError(
                f"vit: patch={self.patch} does not divide the image's {image.shape[1]} x "
                f"{image.shape[2]} pixels; choose a patch that does"
            )
        x = patches(self.width, self.patch)(image)
        small = nn.initializers.truncated_normal(0.02)
        class_token = self.param("class_token", small, (1, 1, self.width))
        position = self.param("position", small, (1, 1 + self.grid**2, self.width))
        grid = position[:, 1:].reshape(1, self.grid, self.grid, self.width)
        x = x + resize(grid, x.shape[1:3]).astype(x.dtype)
        token = jnp.broadcast_to(class_token + position[:, :1], (x.shape[0], 1, self.width))
        return Carry(x, jnp.concatenate([*extra, token.astype(x.dtype)], 1))


class ViTBlock(nn.Module):
    """Self-attention, then a two-layer perceptron, each on normalised tokens and added to them."""

    heads: int
    dropout: float
    rate: float

    @nn.compact
    def __call__(self, x, train):
        drop = lambda x: nn.Dropout(self.dropout, deterministic=not train)(x)
        width = x.shape[-1]
        y = SelfAttention(self.heads, name="attention")(nn.LayerNorm()(x))
        x = x + DropPath(self.rate)(drop(y), train)
        y = nn.gelu(dense(4 * width)(nn.LayerNorm()(x)), approximate=False)
        y = dense(width)(drop(y))
        return x + DropPath(self.rate)(drop(y), train)


class SelfAttention(nn.Module):
    """Multi-head attention of tokens to each other; the softmax is in float32."""

    heads: int

    @nn.compact
    def __call__(self, x):
        width = x.shape[-1]
        qkv = dense(3 * width, name="qkv")(x)
        query, key, value = jnp.moveaxis(
            qkv.reshape(*x.shape[:2], 3, self.heads, width // self.heads), 2, 0
        )
        out = jax.nn.dot_product_attention(query, key, value)
        return dense(width, name="out")(out.reshape(x.shape))
