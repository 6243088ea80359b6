"""Multi-task model: image -> normalization -> trunk and fusion -> one head per task."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Num

from mtljax.models.conditioning.base import PREFERENCE, Conditioning
from mtljax.models.fusion.base import Fusion
from mtljax.models.partition import OVERWRITE, TASK_PREFIX

FEATURES = "features"
"""Optional mutable collection: the last features that the head of each task reads."""


class HeadSpec(Protocol):
    """Task as seen by the model; implemented by `mtljax.tasks.Task`."""

    @property
    def name(self) -> str:
        """Key of the task in the outputs."""

    @property
    def taps(self) -> int:
        """Number of last trunk stages that the head reads."""

    def head(self) -> nn.Module:
        """Module `(features, size=(H, W), train=...) -> output`; see `mtljax.models.heads`."""


class MultiTask(nn.Module):
    """`apply(variables, image, train=...) -> {task: output}`.

    Attributes:
      fusion: Trunk and fusion.
      tasks: Tasks, in the order of the rows of the Jacobian.
      mean: Mean of the training images, in their unit; all channels, or per channel. A variable of
        the model (collection `constants`) and therefore part of its checkpoints.
      std: Standard deviation of the training images, likewise.
      conditioning: Dependence of trunk and fusion on the preference over tasks, which is then a
        variable of the model as well, `PREFERENCE`.
    """

    fusion: Fusion
    tasks: tuple[HeadSpec, ...]
    mean: float | tuple[float, ...] = 0.0
    std: float | tuple[float, ...] = 1.0
    conditioning: Conditioning | None = None

    @nn.compact
    def __call__(
        self, image: Num[Array, "B H W C"], *, train: bool
    ) -> dict[str, Float[Array, "..."]]:
        mean = self.variable("constants", "mean", lambda: jnp.asarray(self.mean, jnp.float32))
        std = self.variable("constants", "std", lambda: jnp.asarray(self.std, jnp.float32))
        dtype = image.dtype if jnp.issubdtype(image.dtype, jnp.floating) else jnp.float32
        image = ((image.astype(jnp.float32) - mean.value) / std.value).astype(dtype)
        if self.conditioning is None:
            features = self.fusion(image, train=train)
        else:
            equal = lambda: jnp.full(len(self.tasks), 1 / len(self.tasks), jnp.float32)
            preference = self.variable("constants", PREFERENCE, equal).value
            features = self.conditioning(self.fusion, image, preference, train=train)
        outputs = {}
        for task in self.tasks:
            head = task.head().clone(parent=self, name=TASK_PREFIX + task.name)
            inputs = features[task.name][-task.taps :]
            if not self.is_initializing():  # `init` would return this collection
                self.sow(FEATURES, task.name, inputs[-1], **OVERWRITE)
            outputs[task.name] = head(inputs, size=image.shape[1:3], train=train)
        return outputs


def without_pooling(model: nn.Module) -> nn.Module:
    """The same function of the same variables, with unpooled maps in the collection `FEATURES`."""
    if isinstance(model, MultiTask) and model.fusion.pools:
        return model.clone(fusion=model.fusion.clone(pools=False))
    return model


def build(
    trunk: Sequence[nn.Module],
    fusion: Callable[..., Fusion],
    tasks: Sequence[HeadSpec],
    *,
    mean: float | tuple[float, ...] = 0.0,
    std: float | tuple[float, ...] = 1.0,
    remat: bool = False,
    conditioning: Conditioning | None = None,
    **fusion_args: Any,
) -> MultiTask:
    """Builds a multi-task model.

    Args:
      trunk: Stages, from a function of `TRUNKS`.
      fusion: Class from `FUSIONS`, or a callable with the same arguments.
      tasks: At least one task; names are unique, and no task reads more stages than `trunk` has.
      mean, std: Normalization of the images; see `MultiTask`.
      remat: Recompute the activations of each stage in the backward pass: less memory, more time.
      conditioning: See `mtljax.models.conditioning`; needs at least two tasks.
    """
    names = tuple(task.name for task in tasks)
    if not names:
        raise ValueError("no task: an experiment needs at least one")
    if len(set(names)) < len(names):
        raise ValueError(f"two tasks have the same name: {', '.join(names)}")
    if conditioning is not None and len(names) < 2:
        raise ValueError(
            f"a network conditioned on the preference needs at least two tasks, not only {names[0]}"
        )
    taps = max(task.taps for task in tasks)
    if taps > len(trunk):
        name = next(task.name for task in tasks if task.taps == taps)
        raise ValueError(
            f"task {name!r} reads {taps} stages of the trunk, which has {len(trunk)}: choose one "
            f"with more, such as cnn:widths=({','.join(['32'] * taps)})"
        )
    pools = taps == 1 and all(getattr(task.head(), "pools", False) for task in tasks)
    settings = {"taps": taps, "remat": remat, "pools": pools}
    fused = fusion(trunk=tuple(trunk), tasks=names, **settings, **fusion_args)
    return MultiTask(
        fusion=fused, tasks=tuple(tasks), mean=mean, std=std, conditioning=conditioning
    )
