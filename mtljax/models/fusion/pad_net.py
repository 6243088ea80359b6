"""Prediction-and-distillation network."""

import functools

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from mtljax.models.fusion.base import Features, Fusion, require_maps
from mtljax.models.layers import Norm, NormKind, conv
from mtljax.models.partition import TASK_PREFIX


class PADNet(Fusion):
    """PAD-Net: each task computes initial features, then receives those of other tasks by a gate.

    F_t = ReLU(norm(conv(trunk))), and the head of task t reads F_t + G_t * sum_{s != t} W_ts F_s
    with attention G_t = sigmoid(conv(F_t)) in (0, 1) (module C of the paper). A fusion has no
    access to labels: it distills the features behind the paper's intermediate predictions, which
    are supervised by the final losses only. The trunk and the layers for F_t are shared; gates and
    W_ts are task-specific. `level="features"` takes all F_t. Gates are sown as `intermediates`.

    Attributes:
      width: Channels of F_t.
      norm: Normalization of F_t.
      axis_name: Axis of `norm="batch"` inside `pmap` or `shard_map`; see `Norm`.

    References:
      Xu et al., 2018, arXiv:1805.04915
    """

    width: int = 128
    norm: NormKind = "batch"
    axis_name: str | None = None

    @nn.compact
    def __call__(self, image: Array, *, train: bool) -> dict[str, Features]:
        *lower, last = self.run_trunk(self.trunk, image, train)
        require_maps("pad_net", [last])
        layer = functools.partial(InitialFeatures, self.width, self.norm, self.axis_name)
        initial = {task: layer(name=f"{task}_features")(last, train) for task in self.tasks}
        lower, initial = self.represent((lower, initial))
        fused = {}
        for task in self.tasks:
            rest = [initial[other] for other in self.tasks if other != task]
            fused[task] = (*lower, Distillation(name=TASK_PREFIX + task)(initial[task], rest))
        return fused


class InitialFeatures(nn.Module):
    """3x3 convolution, normalization and ReLU: the initial features of a task."""

    width: int
    """Number of channels."""
    norm: NormKind
    """Normalization after the convolution."""
    axis_name: str | None
    """Axis of batch normalization; see `Norm`."""

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"], train: bool) -> Float[Array, "B H W F"]:
        x = conv(self.width, 3, use_bias=self.norm == "none")(x)
        return nn.relu(Norm(self.norm, self.axis_name)(x, train))


class Distillation(nn.Module):
    """x + sigmoid(conv(x)) * conv(rest): attention-guided messages from the other tasks."""

    @nn.compact
    def __call__(
        self, x: Float[Array, "B H W C"], rest: list[Float[Array, "B H W C"]]
    ) -> Float[Array, "B H W C"]:
        if not rest:
            return x
        width = x.shape[-1]
        gate = nn.sigmoid(conv(width, 3, name="look")(x))
        self.sow("intermediates", "gate", gate)
        # One convolution of the concatenated maps equals the sum of one convolution per map.
        messages = conv(width, 3, name="messages")(jnp.concatenate(rest, -1))
        return x + gate * messages
