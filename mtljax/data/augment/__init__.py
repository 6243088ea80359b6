"""What is done to training examples in the compiled step, image and labels together.

An augmentation is a function of keys and a batch, nothing else: a key of its own for every
example, so what becomes of it depends neither on the devices nor on the other examples (but for
mixup and cutmix, which take the one before it in the batch).
"""

import inspect
from collections.abc import Callable, Sequence

import jax

from mtljax.data.augment.base import Augment
from mtljax.data.augment.color import blur, cutout, jitter
from mtljax.data.augment.geometric import affine, crop, flip, shift
from mtljax.data.augment.mixing import cutmix, mixup
from mtljax.tasks import Task
from mtljax.utils.registry import choose


def none() -> None:
    """Leaves the examples as they are."""


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
"""Name -> function that makes the augmentation, or None.

Those that have an argument `tasks` change labels too, each as its task says.
"""


def make_augment(texts: Sequence[str], tasks: Sequence[Task]) -> Augment | None:
    """Augmentations one after the other; None if there are none.

    Args:
      texts: Each as in `name:argument=value`.
      tasks: Whose labels the batches have.

    Raises:
      ValueError: There is no such augmentation, or a task's labels cannot follow it (this only when
        it is first traced).
    """
    made = []
    for text in texts:
        choice = choose("augmentation", text, AUGMENTATIONS, hidden=("tasks",))
        follows = "tasks" in inspect.signature(choice.make).parameters
        augment = choice.made(**({"tasks": tuple(tasks)} if follows else {}))
        if augment is not None:
            made.append(augment)
    if len(made) < 2:
        return made[0] if made else None

    def in_turn(keys, batch):
        for i, augment in enumerate(made):
            batch = augment(jax.vmap(lambda key, i=i: jax.random.fold_in(key, i))(keys), batch)
        return batch

    return in_turn


__all__ = ["AUGMENTATIONS", "Augment", "make_augment"]
