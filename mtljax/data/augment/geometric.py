"""Augmentations that move what is in the image, and its labels with it."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from mtljax.data.augment.base import Augment, labels_of, per_example, require_strength
from mtljax.tasks import Task
from mtljax.tasks.warps import Mirror, Pixels, Turn, Warp, Window


def moving(draw: Callable[[jax.Array, Pixels], Warp], tasks: Sequence[Task]) -> Augment:
    """An augmentation from a function of (key, image size) that says how things move."""

    def one(key, example):
        image = example["image"]
        warp = draw(key, image.shape[:2])
        labels = labels_of(example, tasks, lambda task, label, _: task.warp(label, warp))
        return {"image": warp.smooth(image), "labels": labels}

    return per_example(one)


def flip(share: float = 0.5, vertical: bool = False, *, tasks: Sequence[Task] = ()) -> Augment:
    """Mirrors left and right, some of the images; normals and paired keypoints follow.

    Args:
      share: Of the images.
      vertical: Mirror top and bottom instead, where nothing says which way is up.
      tasks: Whose labels the batches have.
    """
    require_strength("flip", 1.0, share=share)
    mirror = moving(lambda key, size: Mirror(size=size, axis=0 if vertical else 1), tasks)

    def augment(keys, batch):
        chosen = jax.vmap(lambda key: jax.random.bernoulli(key, share))(keys)
        pick = lambda new, old: jnp.where(chosen.reshape(-1, *[1] * (new.ndim - 1)), new, old)
        return jax.tree.map(pick, dict(mirror(keys, batch)), dict(batch))

    return augment


def shift(pixels: int = 4, *, tasks: Sequence[Task] = ()) -> Augment:
    """Moves each image by whole pixels, its edge coming in from outside.

    Args:
      pixels: Farthest move along each axis.
      tasks: Whose labels the batches have.
    """
    require_strength("shift", pixels=pixels)

    def draw(key, size):
        corner = jax.random.randint(key, (2,), -pixels, pixels + 1).astype(jnp.float32)
        return Window(size=size, corner=corner, zoom=jnp.float32(1.0))

    return moving(draw, tasks)


def crop(zooms: tuple[float, ...] = (1.0, 1.2, 1.5), *, tasks: Sequence[Task] = ()) -> Augment:
    """Cuts a part out of each image and enlarges it to the full size; depths become smaller.

    Args:
      zooms: One of them is drawn for each image; the place is drawn, too.
      tasks: Whose labels the batches have.

    References:
      Liu et al., 2019, arXiv:1803.10704, whose code draws 1.0, 1.2 or 1.5 for NYUv2 and Cityscapes
    """
    if not zooms or not all(1 <= zoom < 100 for zoom in zooms):
        raise ValueError(f"augmentation crop: zooms must be in 1..100, not {zooms}")

    def draw(key, size):
        which, where = jax.random.split(key)
        zoom = jax.random.choice(which, jnp.asarray(zooms, jnp.float32))
        room = jnp.asarray(size, jnp.float32) * (1 - 1 / zoom)
        return Window(size=size, corner=room * jax.random.uniform(where, (2,)), zoom=zoom)

    return moving(draw, tasks)


def affine(
    shift: float = 1.0, rotate: float = 10.0, zoom: float = 0.1, *, tasks: Sequence[Task] = ()
) -> Augment:
    """Moves, turns and zooms each image at random; what comes in from outside is its edge.

    Args:
      shift: Farthest move along each axis, in pixels.
      rotate: Largest turn, in degrees.
      zoom: Largest change of size, as a share.
      tasks: Whose labels the batches have.

    Raises:
      ValueError: One of them is not a number >= 0.
    """
    require_strength("affine", shift=shift, rotate=rotate, zoom=zoom)

    def draw(key, size):
        at = jax.random.uniform(key, (4,), minval=-1.0, maxval=1.0)
        return Turn(
            size=size,
            angle=jnp.deg2rad(rotate) * at[0],
            zoom=jnp.exp(jnp.log1p(zoom) * at[1]),
            shift=shift * at[2:],
        )

    return moving(draw, tasks)
