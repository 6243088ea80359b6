"""Building blocks of augmentations."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
from jaxtyping import Array, Num, PyTree

from mtljax.data.base import Batch
from mtljax.tasks import Task

Image = Num[Array, "H W C"]
"""Image of one example."""
Augment = Callable[[jax.Array, Batch], Batch]
"""Function (keys [B], batch) -> batch, with one key per example."""


def per_image(change: Callable[[jax.Array, Image], Image]) -> Augment:
    """Returns an augmentation that applies a function of (key, image) and keeps the labels."""
    return lambda keys, batch: {**batch, "image": jax.vmap(change)(keys, images_of(batch))}


def images_of(batch: Batch) -> Num[Array, "B H W C"]:
    """Returns the images of a batch; ValueError unless each example has exactly one."""
    image = batch["image"]
    if getattr(image, "ndim", 0) != 4:
        has = f"arrays of shape {image.shape}" if hasattr(image, "ndim") else "several inputs"
        raise ValueError(
            f"augmentations take one array of images [B, H, W, C], but batch['image'] has {has}; "
            "leave augment out, or write your own function of (keys, batch)"
        )
    return image


def map_labels(
    labels: Mapping[str, Any], tasks: Sequence[Task], change: Callable[[Task, Any, str], Any]
) -> dict[str, PyTree]:
    """Returns the labels of a batch or an example after `change(task, label, name)`."""
    by_name = {task.name: task for task in tasks}
    for name in labels:
        if name not in by_name:
            raise ValueError(
                f"the labels {name!r} have no task that transforms them: remove them from the "
                "batch, or pass their task in the argument `tasks` of the augmentation"
            )
    return {name: change(by_name[name], label, name) for name, label in labels.items()}


def require_strength(augmentation: str, most: float = math.inf, **values: float) -> None:
    """Raises ValueError unless each value is a number in 0..most."""
    for name, value in values.items():
        if not 0 <= value <= most or value == math.inf:
            rule = ">= 0" if most == math.inf else f"in 0..{most:g}"
            raise ValueError(f"augmentation {augmentation}: {name} must be {rule}, not {value}")
