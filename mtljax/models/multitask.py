"""The model: image -> normalise -> trunk and fusion -> a head per task."""

from collections.abc import Callable, Sequence

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Num

from mtljax.models.fusion.base import Fusion
from mtljax.models.partition import PREFIX
from mtljax.tasks import Task

FEATURES = "features"
"""A collection, for whoever asks for it: the last features that each task's head reads."""


class MultiTask(nn.Module):
    """`apply(variables, image, train=...) -> {task: output}`.

    Attributes:
      fusion: Trunk and fusion.
      tasks: In the order of the Jacobian's rows.
      mean, std: Statistics of the training images, in the images' own unit. They are kept with the
        model's variables (collection `constants`), so whoever loads the weights has them.
    """

    fusion: Fusion
    tasks: tuple[Task, ...]
    mean: float | tuple[float, ...] = 0.0
    std: float | tuple[float, ...] = 1.0

    @nn.compact
    def __call__(
        self, image: Num[Array, "B H W C"], *, train: bool
    ) -> dict[str, Float[Array, "..."]]:
        mean = self.variable("constants", "mean", lambda: jnp.asarray(self.mean, jnp.float32))
        std = self.variable("constants", "std", lambda: jnp.asarray(self.std, jnp.float32))
        dtype = image.dtype if jnp.issubdtype(image.dtype, jnp.floating) else jnp.float32
        image = ((image.astype(jnp.float32) - mean.value) / std.value).astype(dtype)
        features = self.fusion(image, train=train)
        outputs = {}
        for task in self.tasks:
            head = task.head().clone(parent=self, name=PREFIX + task.name)
            own = features[task.name][-task.taps :]
            if not self.is_initializing():  # else they would be among the model's variables
                last = lambda _, new: new
                self.sow(FEATURES, task.name, own[-1], init_fn=lambda: None, reduce_fn=last)
            outputs[task.name] = head(own, size=image.shape[1:3], train=train)
        return outputs


def with_maps(model: nn.Module) -> nn.Module:
    """The same function of the same variables, whose `FEATURES` are never averaged over space."""
    if isinstance(model, MultiTask) and model.fusion.pools:
        return model.clone(fusion=model.fusion.clone(pools=False))
    return model


def build(
    trunk: Sequence[nn.Module],
    fusion: Callable[..., Fusion],
    tasks: Sequence[Task],
    *,
    mean: float | tuple[float, ...] = 0.0,
    std: float | tuple[float, ...] = 1.0,
    remat: bool = False,
    **fusion_args,
) -> MultiTask:
    """Assembles a model from a trunk's stages and a kind of fusion.

    Args:
      trunk: Stages, from `TRUNKS`.
      fusion: From `FUSIONS`, or anything that is called as those are.
      tasks: At least one, with different names.
      mean, std: Statistics of the training images.
      remat: Recompute each stage's activations in the backward pass: less memory, more time.
      **fusion_args: The fusion's own arguments.

    Raises:
      ValueError: No task, two of the same name, or a task reads more stages than the trunk has.
    """
    names = tuple(task.name for task in tasks)
    if not names:
        raise ValueError("no task: an experiment needs at least one")
    if len(set(names)) < len(names):
        raise ValueError(f"two tasks have the same name: {', '.join(names)}")
    taps = max(task.taps for task in tasks)
    if taps > len(trunk):
        raise ValueError(f"a task reads {taps} stages, but the trunk has only {len(trunk)}")
    pools = taps == 1 and all(getattr(task.head(), "pools", False) for task in tasks)
    settings = {"taps": taps, "remat": remat, "pools": pools}
    return MultiTask(
        fusion=fusion(trunk=tuple(trunk), tasks=names, **settings, **fusion_args),
        tasks=tuple(tasks),
        mean=mean,
        std=std,
    )
