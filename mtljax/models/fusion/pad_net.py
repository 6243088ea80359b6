"""Prediction-and-distillation network."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from mtljax.models.fusion.base import Fusion, require_maps
from mtljax.models.layers import Norm, NormKind, conv
from mtljax.models.partition import TASK_PREFIX


class PADNet(Fusion):
    """PAD-Net: each task makes first features, then takes from the others' through a gate.

    F_t = ReLU(norm(conv(trunk))); task t's head reads F_t + G_t * sum_{s != t} W_ts F_s with the
    attention G_t = sigmoid(conv(F_t)), in (0, 1) (the paper's module C). A fusion knows no labels:
    what is distilled are the features that the paper's intermediate predictions are made from, and
    they are supervised by the final losses only. The trunk and the makers of F_t are shared; gates
    and W_ts are task-specific. The representation for `level="features"` is all F_t. Gates are sown
    as `intermediates`.

    Attributes:
      width: Channels of F_t.
      norm: Normalisation in the makers of F_t.
      axis_name: For `norm="batch"` inside `pmap` or `shard_map`; see `Norm`.

    References:
      Xu et al., 2018, arXiv:1805.04915
    """

    width: int = 128
    norm: NormKind = "batch"
    axis_name: str | None = None

    @nn.compact
    def __call__(self, image, *, train):
        *lower, last = self.run_trunk(self.trunk, image, train)
        require_maps("pad_net", [last])
        first = {
            task: FirstFeatures(self.width, self.norm, self.axis_name, name=f"{task}_features")(
                last, train
            )
            for task in self.tasks
        }
        lower, first = self.represent((lower, first))
        fused = {}
        for task in self.tasks:
            others = [first[other] for other in self.tasks if other != task]
            fused[task] = (*lower, Distillation(name=TASK_PREFIX + task)(first[task], others))
        return fused


class FirstFeatures(nn.Module):
    """3x3 convolution, normalisation, ReLU: what a task would make its first prediction from."""

    width: int
    norm: NormKind
    axis_name: str | None

    @nn.compact
    def __call__(self, x, train):
        x = conv(self.width, 3, use_bias=self.norm == "none")(x)
        return nn.relu(Norm(self.norm, self.axis_name)(x, train))


class Distillation(nn.Module):
    """own + sigmoid(conv(own)) * conv(others): attention-guided messages from the other tasks."""

    @nn.compact
    def __call__(
        self, own: Float[Array, "B H W C"], others: list[Float[Array, "B H W C"]]
    ) -> Float[Array, "B H W C"]:
        if not others:
            return own
        width = own.shape[-1]
        gate = nn.sigmoid(conv(width, 3, name="look")(own))
        self.sow("intermediates", "gate", gate)
        # One convolution of all maps together is the sum of one of each.
        messages = conv(width, 3, name="messages")(jnp.concatenate(others, -1))
        return own + gate * messages
