"""What augmentations are made of."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax

from mtljax.tasks import Task

Batch = Mapping[str, Any]
Augment = Callable[[jax.Array, Batch], Batch]
"""`(keys [B], batch) -> batch`; a key of its own for every example."""


def per_example(change: Callable[[jax.Array, Batch], Batch]) -> Augment:
    """An augmentation of batches from one of single examples."""

    def augment(keys: jax.Array, batch: Batch) -> Batch:
        part = {"image": batch["image"], "labels": batch["labels"]}
        return {**batch, **jax.vmap(change)(keys, part)}

    return augment


def of_image(change: Callable[[jax.Array, jax.Array], jax.Array]) -> Augment:
    """An augmentation of batches from a function of (key, image) that no label notices."""

    def augment(keys: jax.Array, batch: Batch) -> Batch:
        return {**batch, "image": jax.vmap(change)(keys, batch["image"])}

    return augment


def labels_of(
    batch: Batch, tasks: Sequence[Task], change: Callable[[Task, Any, str], Any]
) -> dict[str, Any]:
    """Each label of a batch, or of an example, as its task changes it.

    Raises:
      ValueError: A label without a task that says what becomes of it.
    """
    by_name = {task.name: task for task in tasks}
    made = {}
    for name, label in batch["labels"].items():
        if name not in by_name:
            raise ValueError(
                f"no task says what becomes of the labels {name!r}: leave them out of the batch, "
                "or give the augmentation their task in `tasks`"
            )
        made[name] = change(by_name[name], label, name)
    return made


def require_strength(augmentation: str, most: float = math.inf, **values: float) -> None:
    """Raises ValueError unless each is a number in 0..most."""
    for name, value in values.items():
        if not 0 <= value <= most or value == math.inf:
            rule = ">= 0" if most == math.inf else f"in 0..{most:g}"
            raise ValueError(f"augmentation {augmentation}: {name} must be {rule}, not {value}")
