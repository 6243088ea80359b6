"""Vision transformers."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from mtljax.models.attention import dot_product_attention
from mtljax.models.layers import DropPath, dense, patches, resize
from mtljax.models.trunks.base import Activations, Carry, Stages, drop_path_rates, preset


def vit(
    width: int = 192,
    heads: int = 3,
    depth: int = 12,
    patch: int = 16,
    image_size: int = 224,
    stages: int = 4,
    dropout: float = 0.0,
    drop_path: float = 0.0,
) -> Stages:
    """Vision transformer.

    Each stage is a group of blocks and returns the tokens of the patches as a map; the last ends
    with layer normalization. `Carry.rest`: the class token, task tokens (fusion `task_prompt`).

    Args:
      width: Channels of a token.
      heads: Attention heads; must divide `width`.
      depth: Blocks.
      patch: Height and width of a patch in pixels; must divide those of the image.
      image_size: Image size of the position embeddings; they are interpolated for other sizes.
      stages: Number of groups of blocks; must divide `depth`.
      dropout: Dropout rate of the outputs of a block.
      drop_path: Rate of stochastic depth at the last block, growing linearly from 0 at the first.

    Returns:
      Stages: [B, H, W, 3] -> [B, H/patch, W/patch, width] -> ..., the same for all stages.

    References:
      Dosovitskiy et al., 2020, arXiv:2010.11929; Ti and S: Touvron et al., 2020, arXiv:2012.12877
    """
    if depth % stages:
        raise ValueError(f"vit: stages={stages} does not divide depth={depth}")
    if width % heads:
        raise ValueError(f"vit: heads={heads} does not divide width={width}")
    rates = drop_path_rates(drop_path, [depth // stages] * stages)
    return tuple(
        ViTStage(
            first=i == 0,
            last=i == stages - 1,
            width=width,
            heads=heads,
            patch=patch,
            grid=image_size // patch,
            dropout=dropout,
            rates=rates[i],
        )
        for i in range(stages)
    )


@preset(vit, width=192, heads=3)
def vit_ti() -> None:
    """ViT-Ti/16 (Touvron et al., 2020, arXiv:2012.12877); see `vit`."""


@preset(vit, width=384, heads=6)
def vit_s() -> None:
    """ViT-S/16 (Touvron et al., 2020, arXiv:2012.12877); see `vit`."""


@preset(vit, width=768, heads=12)
def vit_b() -> None:
    """ViT-B/16 (Dosovitskiy et al., 2020, arXiv:2010.11929); see `vit`."""


class ViTStage(nn.Module):
    """Patch embedding in the first stage, blocks, and layer normalization in the last stage."""

    first: bool
    """True for the first stage."""
    last: bool
    """True for the last stage."""
    width: int
    """Channels of a token."""
    heads: int
    """Number of attention heads."""
    patch: int
    """Height and width of a patch in pixels."""
    grid: int
    """Height and width of the position embeddings, in patches."""
    dropout: float
    """Dropout rate of the outputs of a block."""
    rates: tuple[float, ...]
    """Rate of stochastic depth of each block."""

    @nn.compact
    def __call__(self, x: Activations, train: bool) -> Carry:
        if self.first:
            x = self.embed(x)
        assert isinstance(x, Carry)
        batch, height, width, channels = x.features.shape
        tokens = jnp.concatenate([x.rest, x.features.reshape(batch, -1, channels)], 1)
        for i, rate in enumerate(self.rates):
            tokens = ViTBlock(self.heads, self.dropout, rate, name=f"block_{i}")(tokens, train)
        if self.last:
            tokens = nn.LayerNorm(name="norm")(tokens)
        count = x.rest.shape[1]
        return Carry(tokens[:, count:].reshape(x.features.shape), tokens[:, :count])

    def embed(self, image: Activations) -> Carry:
        """Patches as a map; `rest` is the tokens passed with the image, then the class token."""
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
    """Pre-normalized residual self-attention, then a pre-normalized two-layer perceptron."""

    heads: int
    """Number of attention heads."""
    dropout: float
    """Dropout rate of the attention's and the perceptron's output."""
    rate: float
    """Rate of stochastic depth."""

    @nn.compact
    def __call__(self, x: Float[Array, "B N F"], train: bool) -> Float[Array, "B N F"]:
        drop = lambda x: nn.Dropout(self.dropout, deterministic=not train)(x)
        width = x.shape[-1]
        y = SelfAttention(self.heads, name="attention")(nn.LayerNorm()(x))
        x = x + DropPath(self.rate)(drop(y), train)
        y = nn.gelu(dense(4 * width)(nn.LayerNorm()(x)), approximate=False)
        y = dense(width)(drop(y))
        return x + DropPath(self.rate)(drop(y), train)


class SelfAttention(nn.Module):
    """Multi-head self-attention with the softmax in float32."""

    heads: int
    """Number of attention heads."""

    @nn.compact
    def __call__(self, x: Float[Array, "B N F"]) -> Float[Array, "B N F"]:
        width = x.shape[-1]
        qkv = dense(3 * width, name="qkv")(x)
        qkv = qkv.reshape(*x.shape[:2], 3, self.heads, width // self.heads)
        query, key, value = jnp.moveaxis(qkv, 2, 0)
        out = dot_product_attention(query, key, value)
        return dense(width, name="out")(out.reshape(x.shape))
