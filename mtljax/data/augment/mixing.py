"""Augmentations that combine two examples, for labels that can be combined."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from mtljax.data.augment.base import Augment, Image, images_of, map_labels, require_strength
from mtljax.data.augment.color import region
from mtljax.data.base import Batch
from mtljax.tasks import Task
from mtljax.tasks.warps import like

Combine = Callable[[Task, Any, Any], Any]
"""Function (task, label, label of the other example) -> label."""


def mixup(alpha: float = 0.2, *, tasks: Sequence[Task] = ()) -> Augment:
    """Averages each example with the previous one in the batch, images and labels.

    Labels that are classes, numbers or images can be averaged; maps, boxes and points cannot.

    Args:
      alpha: The weight is drawn from Beta(alpha, alpha).

    References:
      Zhang et al., 2017, arXiv:1710.09412
    """
    _require_alpha("mixup", alpha)

    def combine(key: jax.Array, image: Image, other: Image) -> tuple[Image, Combine]:
        weight = jax.random.beta(key, alpha, alpha)
        mixed = weight * image.astype(jnp.float32) + (1 - weight) * other.astype(jnp.float32)
        return like(mixed, image), lambda task, a, b: task.mix(a, b, weight)

    return _with_previous(combine, tasks)


def cutmix(alpha: float = 1.0, *, tasks: Sequence[Task] = ()) -> Augment:
    """Pastes a rectangle of the previous example in the batch into each image and its maps.

    Labels of the entire image are averaged, weighted by area; boxes and points cannot be pasted.

    Args:
      alpha: The remaining share of the image is drawn from Beta(alpha, alpha).

    References:
      Yun et al., 2019, arXiv:1905.04899
    """
    _require_alpha("cutmix", alpha)

    def combine(key: jax.Array, image: Image, other: Image) -> tuple[Image, Combine]:
        how, where = jax.random.split(key)
        side = jnp.sqrt(1 - jax.random.beta(how, alpha, alpha))
        pasted = region(image.shape[:2], jnp.stack([side, side]), jax.random.uniform(where, (2,)))
        weight = 1 - pasted.mean(dtype=jnp.float32)
        image = jnp.where(pasted[..., None], other, image)
        return image, lambda task, a, b: task.paste(a, b, pasted, weight)

    return _with_previous(combine, tasks)


def _require_alpha(augmentation: str, alpha: float) -> None:
    require_strength(augmentation, alpha=alpha)
    if alpha == 0:
        raise ValueError(f"augmentation {augmentation}: alpha must be > 0, not 0")


def _with_previous(
    combine: Callable[[jax.Array, Image, Image], tuple[Image, Combine]], tasks: Sequence[Task]
) -> Augment:
    """Returns an augmentation from a function (key, image, previous image) -> image, Combine."""

    def augment(keys: jax.Array, batch: Batch) -> Batch:
        previous = jax.tree.map(lambda x: jnp.roll(x, 1, axis=0), dict(batch))

        def change(key: jax.Array, one: Batch, other: Batch) -> Batch:
            image, combine_labels = combine(key, one["image"], other["image"])
            pair = lambda task, label, name: combine_labels(task, label, other["labels"][name])
            return {"image": image, "labels": map_labels(one["labels"], tasks, pair)}

        part = lambda examples: {"image": images_of(examples), "labels": examples["labels"]}
        combined = jax.vmap(change)(keys, part(batch), part(previous))
        present = {n: mask & previous["present"][n] for n, mask in batch["present"].items()}
        return {**batch, **combined, "present": present}

    return augment
