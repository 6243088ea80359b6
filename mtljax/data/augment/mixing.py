"""Augmentations that put two examples together, where their labels allow that."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from mtljax.data.augment.base import Augment, Batch, labels_of, require_strength
from mtljax.data.augment.color import region
from mtljax.tasks import Task
from mtljax.tasks.warps import like


def mixup(alpha: float = 0.2, *, tasks: Sequence[Task] = ()) -> Augment:
    """Averages each example with the one before it in the batch, image and labels.

    Args:
      alpha: The share of one of them is drawn from Beta(alpha, alpha).
      tasks: Whose labels the batches have; classes, numbers and images can be averaged, maps,
        boxes and points cannot.

    References:
      Zhang et al., 2017, arXiv:1710.09412
    """
    _require_alpha("mixup", alpha)

    def one(key, image, other, labels):
        share = jax.random.beta(key, alpha, alpha)
        mixed = share * image.astype(jnp.float32) + (1 - share) * other.astype(jnp.float32)
        return like(mixed, image), labels(lambda task, mine, its: task.mix(mine, its, share))

    return _with_neighbour(one, tasks)


def cutmix(alpha: float = 1.0, *, tasks: Sequence[Task] = ()) -> Augment:
    """Pastes a rectangle of the example before it in the batch into each image and its maps.

    Args:
      alpha: The share that is left is drawn from Beta(alpha, alpha); labels of the whole image are
        averaged by the share of pixels that is.
      tasks: Whose labels the batches have; boxes and points cannot be pasted.

    References:
      Yun et al., 2019, arXiv:1905.04899
    """
    _require_alpha("cutmix", alpha)

    def one(key, image, other, labels):
        how, where = jax.random.split(key)
        side = jnp.sqrt(1 - jax.random.beta(how, alpha, alpha))
        pasted = region(image.shape[:2], jnp.stack([side, side]), jax.random.uniform(where, (2,)))
        share = 1 - pasted.mean(dtype=jnp.float32)
        new = jnp.where(pasted[..., None], other, image)
        return new, labels(lambda task, mine, its: task.paste(mine, its, pasted, share))

    return _with_neighbour(one, tasks)


def _require_alpha(augmentation: str, alpha: float) -> None:
    require_strength(augmentation, alpha=alpha)
    if alpha == 0:
        raise ValueError(f"augmentation {augmentation}: alpha must be > 0, not 0")


def _with_neighbour(one: Callable, tasks: Sequence[Task]) -> Augment:
    """An augmentation from a function of (key, image, other image, change of the labels)."""

    def augment(keys: jax.Array, batch: Batch) -> Batch:
        before = jax.tree.map(lambda x: jnp.roll(x, 1, axis=0), dict(batch))

        def example(key, mine, its):
            def labels(change: Callable[[Task, Any, Any], Any]) -> dict[str, Any]:
                other = its["labels"]
                return labels_of(mine, tasks, lambda task, label, n: change(task, label, other[n]))

            image, changed = one(key, mine["image"], its["image"], labels)
            return {"image": image, "labels": changed}

        part = lambda whole: {"image": whole["image"], "labels": whole["labels"]}
        made = jax.vmap(example)(keys, part(batch), part(before))
        present = {n: known & before["present"][n] for n, known in batch["present"].items()}
        return {**batch, **made, "present": present}

    return augment
