"""Changes of place: what happens to an image, told to each task so that its labels follow.

A label is moved by its task (`Task.warp`), which asks a `Warp` where points go, what a map becomes,
and how directions turn. Positions are (y, x) in pixels; the pixel in row i covers i..i + 1.
"""

import dataclasses
from types import ModuleType
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.ndimage import map_coordinates
from jaxtyping import Array, Float, Int, Num

Pixels = tuple[int, int]
"""Height and width."""


class Warp(Protocol):
    """One image's change of place."""

    @property
    def size(self) -> Pixels:
        """Of the new image."""

    @property
    def xp(self) -> ModuleType:
        """NumPy or jax.numpy, whichever the labels are in."""

    @property
    def zoom(self) -> Any:
        """How much larger things appear because the camera is nearer to them."""

    @property
    def mirrored(self) -> bool:
        """Whether left and right are exchanged."""

    def points(self, at: Any) -> Any:
        """Where points of the old image [..., (y, x)] are in the new one, maybe outside of it."""

    def directions(self, along: Any) -> Any:
        """What directions [..., (y, x)] in the old image are in the new one, of the same length."""

    def plane(self, values: Any, fill: Any = None) -> Any:
        """A map [H, W, ...] of the old image for the new one; each value is one of the old ones.

        What comes in from outside is `fill`, or the map's own edge if that is None.
        """

    def smooth(self, values: Any) -> Any:
        """The same for maps whose values may be averaged, like an image, with its own edge."""


class _Still:
    """What a warp changes unless it says otherwise: nothing."""

    xp: ModuleType = jnp
    zoom: Any = 1.0
    mirrored: bool = False

    def directions(self, along: Any) -> Any:
        return along


@dataclasses.dataclass(frozen=True, kw_only=True)
class Resize(_Still):
    """On the host: the same view in another number of pixels."""

    old: Pixels
    size: Pixels
    xp = np

    def points(self, at):
        return (at * (np.asarray(self.size) / np.asarray(self.old))).astype(at.dtype)

    def plane(self, values, fill=None):
        del fill
        if self.old == self.size:
            return values
        rows, columns = (
            np.minimum(((np.arange(new) + 0.5) * old / new).astype(int), old - 1)
            for old, new in zip(self.old, self.size, strict=True)
        )
        return values[rows[:, None], columns]

    def smooth(self, values):
        """Averages where it becomes smaller, interpolates where it becomes larger."""
        return resize_image(values, self.size)


def resize_image(image: Num[np.ndarray, "H W C"], size: Pixels) -> Num[np.ndarray, "h w C"]:
    """An image in another number of pixels: averaged if smaller, interpolated if larger."""
    from PIL import Image

    if image.shape[:2] == size:
        return image
    if image.dtype == np.uint8 and image.shape[-1] in (1, 3):
        small = Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image)
        return np.asarray(small.resize(size[::-1], Image.Resampling.BILINEAR)).reshape(
            *size, image.shape[-1]
        )
    planes = [
        np.asarray(Image.fromarray(plane).resize(size[::-1], Image.Resampling.BILINEAR))
        for plane in np.moveaxis(image.astype(np.float32), -1, 0)
    ]
    made = np.stack(planes, -1)
    return np.round(made).astype(image.dtype) if image.dtype.kind in "ui" else made


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mirror(_Still):
    """Left becomes right, or, along axis 0, top becomes bottom."""

    size: Pixels
    axis: int = 1
    mirrored = True

    def points(self, at):
        across = jnp.arange(2) == self.axis
        return jnp.where(across, jnp.asarray(self.size, at.dtype) - at, at)

    def directions(self, along):
        return jnp.where(jnp.arange(2) == self.axis, -along, along)

    def plane(self, values, fill=None):
        del fill
        return jnp.flip(values, self.axis)

    def smooth(self, values):
        return jnp.flip(values, self.axis)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Window(_Still):
    """A part of the image, with its upper left corner at `corner`, brought back to the full size.

    Rows and columns are worked through one after the other, by matrix products and whole rows:
    many times faster on CPUs than to gather every pixel by itself.
    """

    size: Pixels
    corner: Float[Array, "2"]
    zoom: Float[Array, ""]

    def points(self, at):
        return (at - self.corner) * self.zoom

    def plane(self, values, fill=None):
        for axis in (0, 1):
            index = self._index(axis)
            last = values.shape[axis] - 1
            values = jnp.take(values, jnp.clip(index, 0, last), axis=axis)
            if fill is not None:
                shape = [1] * values.ndim
                shape[axis] = -1
                inside = ((index >= 0) & (index <= last)).reshape(shape)
                values = jnp.where(inside, values, jnp.asarray(fill, values.dtype))
        return values

    def _index(self, axis: int) -> Int[Array, " n"]:
        middle = (jnp.arange(self.size[axis]) + 0.5) / self.zoom + self.corner[axis]
        return jnp.floor(middle).astype(jnp.int32)

    def smooth(self, values):
        made = values.astype(jnp.float32)
        made = jnp.einsum("hH,HWC->hWC", self._weights(0, made.shape[0]), made)
        made = jnp.einsum("wW,hWC->hwC", self._weights(1, made.shape[1]), made)
        return like(made, values)

    def _weights(self, axis: int, count: int) -> Float[Array, "n N"]:
        """Linear interpolation between the two nearest rows, as a matrix."""
        at = (jnp.arange(self.size[axis]) + 0.5) / self.zoom + self.corner[axis] - 0.5
        at = jnp.clip(at, 0, count - 1)
        return jnp.maximum(1 - jnp.abs(at[:, None] - jnp.arange(count)), 0.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Turn(_Still):
    """Turned around the middle by `angle` (radians), then zoomed and moved by `shift` (pixels)."""

    size: Pixels
    angle: Float[Array, ""]
    zoom: Float[Array, ""]
    shift: Float[Array, "2"]

    @property
    def _matrix(self) -> Float[Array, "2 2"]:
        cos, sin = jnp.cos(self.angle), jnp.sin(self.angle)
        return jnp.stack([cos, -sin, sin, cos]).reshape(2, 2)

    @property
    def _middle(self) -> Float[np.ndarray, "2"]:
        return np.asarray(self.size, np.float32) / 2

    def directions(self, along):
        return jnp.einsum("...j,ij->...i", along, self._matrix)

    def points(self, at):
        turned = self.directions(at.astype(jnp.float32) - self._middle)
        return turned * self.zoom + self._middle + self.shift

    def _sources(self) -> Float[Array, "h w 2"]:
        """Where in the old image the middle of each new pixel was."""
        grid = np.moveaxis(np.indices(self.size, np.float32), 0, -1) + 0.5
        back = (grid - self._middle - self.shift) / self.zoom
        return jnp.einsum("...j,ji->...i", back, self._matrix) + self._middle

    def plane(self, values, fill=None):
        at = jnp.floor(self._sources()).astype(jnp.int32)
        last = np.asarray(values.shape[:2], np.int32) - 1
        inner = jnp.clip(at, 0, last)
        made = values[inner[..., 0], inner[..., 1]]
        if fill is None:
            return made
        inside = (at == inner).all(-1).reshape(*self.size, *[1] * (values.ndim - 2))
        return jnp.where(inside, made, jnp.asarray(fill, values.dtype))

    def smooth(self, values):
        at = self._sources() - 0.5
        read = lambda plane: map_coordinates(plane, (at[..., 0], at[..., 1]), 1, "nearest")
        return like(jax.vmap(read, -1, -1)(values.astype(jnp.float32)), values)


def like(values: Float[Array, "..."], old: Num[Array, "..."]) -> Num[Array, "..."]:
    """In the type of the old ones; whole numbers are rounded and kept within their range."""
    if not jnp.issubdtype(old.dtype, jnp.integer):
        return values.astype(old.dtype)
    info = jnp.iinfo(old.dtype)
    return jnp.clip(jnp.round(values), info.min, info.max).astype(old.dtype)
