"""Augmentations that move the content of the image, and its labels with it."""

from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from mtljax.data.augment.base import Augment, Image, images_of, map_labels, require_strength
from mtljax.data.base import Batch
from mtljax.tasks import Task
from mtljax.tasks.warps import Mirror, Pixels, Turn, Warp, Window


def warp_augment(draw: Callable[[jax.Array, Pixels], Warp], tasks: Sequence[Task]) -> Augment:
    """Returns an augmentation from a function (key, image size) -> random warp."""

    def change(key: jax.Array, image: Image, labels: Mapping[str, PyTree]) -> Batch:
        height, width, _ = image.shape
        warp = draw(key, (height, width))
        labels = map_labels(labels, tasks, lambda task, label, _: task.warp(label, warp))
        return {"image": warp.smooth(image), "labels": labels}

    return lambda keys, batch: {
        **batch,
        **jax.vmap(change)(keys, images_of(batch), batch["labels"]),
    }


def flip(share: float = 0.5, vertical: bool = False, *, tasks: Sequence[Task] = ()) -> Augment:
    """Mirrors some of the images left to right; normals and paired keypoints are mirrored too.

    Tasks whose labels may change in a mirror image must state how: see `mirror` of `Regression`,
    `Keypoints` and classes named left or right. That is checked before training.

    Args:
      share: Share of the images.
      vertical: Mirror top to bottom instead, for images without an up direction.
    """
    require_strength("flip", 1.0, share=share)
    mirror = warp_augment(lambda key, size: Mirror(size=size, axis=0 if vertical else 1), tasks)

    def augment(keys: jax.Array, batch: Batch) -> Batch:
        chosen = jax.vmap(lambda key: jax.random.bernoulli(key, share))(keys)
        pick = lambda new, old: jnp.where(chosen.reshape(-1, *[1] * (new.ndim - 1)), new, old)
        return jax.tree.map(pick, dict(mirror(keys, batch)), dict(batch))

    return augment


def shift(pixels: int = 4, *, tasks: Sequence[Task] = ()) -> Augment:
    """Moves each image by an integer number of pixels, repeating the pixels at its edge.

    Args:
      pixels: Largest move along each axis.
    """
    require_strength("shift", pixels=pixels)

    def draw(key: jax.Array, size: Pixels) -> Warp:
        corner = jax.random.randint(key, (2,), -pixels, pixels + 1).astype(jnp.float32)
        return Window(size=size, corner=corner, zoom=jnp.float32(1.0))

    return warp_augment(draw, tasks)


def crop(zooms: tuple[float, ...] = (1.0, 1.2, 1.5), *, tasks: Sequence[Task] = ()) -> Augment:
    """Crops a random part of each image and enlarges it to the full size; depths become smaller.

    Args:
      zooms: Magnifications, of which one is drawn for each image.

    References:
      Liu et al., 2019, arXiv:1803.10704, whose code draws 1.0, 1.2 or 1.5 for NYUv2 and Cityscapes
    """
    if not zooms or not all(1 <= zoom < 100 for zoom in zooms):
        raise ValueError(f"augmentation crop: zooms must be in 1..100, not {zooms}")

    def draw(key: jax.Array, size: Pixels) -> Warp:
        which, where = jax.random.split(key)
        zoom = jax.random.choice(which, jnp.asarray(zooms, jnp.float32))
        room = jnp.asarray(size, jnp.float32) * (1 - 1 / zoom)
        return Window(size=size, corner=room * jax.random.uniform(where, (2,)), zoom=zoom)

    return warp_augment(draw, tasks)


def affine(
    shift: float = 1.0, rotate: float = 10.0, zoom: float = 0.1, *, tasks: Sequence[Task] = ()
) -> Augment:
    """Moves, rotates and zooms each image at random, repeating the pixels at its edge.

    Args:
      shift: Largest move along each axis, in pixels.
      rotate: Largest rotation, in degrees.
      zoom: Largest relative change of size.
    """
    require_strength("affine", shift=shift, rotate=rotate, zoom=zoom)

    def draw(key: jax.Array, size: Pixels) -> Warp:
        at = jax.random.uniform(key, (4,), minval=-1.0, maxval=1.0)
        angle, scale = jnp.deg2rad(rotate) * at[0], jnp.exp(jnp.log1p(zoom) * at[1])
        return Turn(size=size, angle=angle, zoom=scale, shift=shift * at[2:])

    return warp_augment(draw, tasks)
