"""Augmentation of training batches in the compiled step, images and labels together.

An augmentation is a pure function of keys and a batch, with one key per example, so its result
depends neither on the devices nor on other examples (except mixup and cutmix, which combine each
example with the previous one in the batch).
"""

import inspect
from collections.abc import Callable, Sequence

import jax

from mtljax.data.augment.base import Augment
from mtljax.data.augment.color import blur, cutout, jitter
from mtljax.data.augment.geometric import affine, crop, flip, shift
from mtljax.data.augment.mixing import cutmix, mixup
from mtljax.data.base import Batch
from mtljax.tasks import Task
from mtljax.utils.registry import choose


def none() -> None:
    """No augmentation."""


AUGMENTATIONS: dict[str, Callable[..., Augment | None]] = {
    "none": none,
    "flip": flip,
    "shift": shift,
    "crop": crop,
    "affine": affine,
    "jitter": jitter,
    "blur": blur,
    "cutout": cutout,
    "mixup": mixup,
    "cutmix": cutmix,
}
"""Name -> function that returns the augmentation, or None. With an argument `tasks`, which is not
set by the user, it also transforms labels, by methods of each task."""


def require_mirror_rules(texts: Sequence[str], tasks: Sequence[Task]) -> None:
    """Raises ValueError if images are mirrored and a task does not state how its labels change."""
    for text in texts:
        choice = choose("augmentation", text, AUGMENTATIONS, hidden=("tasks",))
        if choice.factory is flip and choice.arguments.get("share", 1):
            for task in tasks:
                task.check_mirror(vertical=choice.arguments.get("vertical", False))


def make_augment(texts: Sequence[str], tasks: Sequence[Task]) -> Augment | None:
    """Returns the composition of augmentations, each as in `name:argument=value`; None if none.

    The augmentation raises ValueError, when traced, if it cannot transform a task's labels.
    """
    augments = []
    for text in texts:
        choice = choose("augmentation", text, AUGMENTATIONS, hidden=("tasks",))
        has_tasks = "tasks" in inspect.signature(choice.factory).parameters
        augment = choice.build(**({"tasks": tuple(tasks)} if has_tasks else {}))
        if augment is not None:
            augments.append(augment)
    if len(augments) < 2:
        return augments[0] if augments else None

    def composition(keys: jax.Array, batch: Batch) -> Batch:
        for i, augment in enumerate(augments):
            batch = augment(jax.vmap(lambda key, i=i: jax.random.fold_in(key, i))(keys), batch)
        return batch

    return composition


__all__ = ["AUGMENTATIONS", "Augment", "make_augment", "require_mirror_rules"]
