"""Geometric changes of an image, which each task applies to its labels.

`Task.warp` transforms a label: a `Warp` computes the new positions of points, the new maps and the
new directions. Positions are (y, x) in pixels; the pixel in row i covers i..i + 1.
"""

import abc
import dataclasses
import functools
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.ndimage import map_coordinates
from jaxtyping import Array, Float, Int, Num

Pixels = tuple[int, int]
"""Height and width."""
# Positions of pixels need more than the ten bits that accelerators give to products by default.
einsum = functools.partial(jnp.einsum, precision="highest")
"""`jax.numpy.einsum` in full precision."""


class Warp(abc.ABC):
    """Geometric change of one image."""

    size: Pixels
    """Size of the new image."""
    xp: ModuleType = jnp
    """Library of the labels, NumPy or jax.numpy."""
    zoom: Any = 1.0
    """Magnification of objects by a camera that is nearer to them."""
    mirrored: bool = False
    """True if left and right are exchanged."""

    @abc.abstractmethod
    def points(self, points: Any) -> Any:
        """Returns the new positions of points [..., (y, x)], which can be outside of the image."""

    def directions(self, vectors: Any) -> Any:
        """Returns the new directions of vectors [..., (y, x)]; their length is preserved."""
        return vectors

    @abc.abstractmethod
    def plane(self, values: Any, fill: Any = None) -> Any:
        """Returns the new map for a map [H, W, ...], without interpolation.

        Positions from outside of the image are `fill`, or the nearest value if that is None.
        """

    @abc.abstractmethod
    def smooth(self, values: Any) -> Any:
        """Returns the new map with interpolation; outside of the image the nearest value."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Resize(Warp):
    """Change of resolution, on the host."""

    old: Pixels
    """Size of the old image."""
    size: Pixels
    xp = np

    def points(self, points: Float[np.ndarray, "*n 2"]) -> Float[np.ndarray, "*n 2"]:
        return (points * (np.asarray(self.size) / np.asarray(self.old))).astype(points.dtype)

    def plane(self, values: np.ndarray, fill: Any = None) -> np.ndarray:
        if self.old == self.size:
            return values
        return values[self._nearest(0)[:, None], self._nearest(1)]

    def _nearest(self, axis: int) -> Int[np.ndarray, " n"]:
        """Returns the old row of the middle of each new row, or of each column."""
        old, new = self.old[axis], self.size[axis]
        return np.minimum(((np.arange(new) + 0.5) * old / new).astype(int), old - 1)

    def largest(self, values: Any) -> Any:
        """Returns the map [H, W] with the largest value in each new pixel: no line vanishes.

        Each old pixel belongs to one new pixel, so that a line becomes no wider than it was.
        """
        for axis in (0, 1):
            old, new = self.old[axis], self.size[axis]
            if new < old:
                starts = -(-np.arange(new) * old // new)
                values = np.maximum.reduceat(values, starts, axis)
            elif new > old:
                values = values.take(self._nearest(axis), axis)
        return values

    def smooth(self, values: np.ndarray) -> np.ndarray:
        """Averages where the map shrinks, interpolates where it grows."""
        return resize_image(values, self.size)


def resize_image(image: Num[np.ndarray, "H W C"], size: Pixels) -> Num[np.ndarray, "h w C"]:
    """Resizes an image: averages if it shrinks, interpolates if it grows."""
    from PIL import Image

    if image.shape[:2] == size:
        return image

    def resize(values: np.ndarray) -> np.ndarray:
        resized = Image.fromarray(values).resize(size[::-1], Image.Resampling.BILINEAR)
        return np.asarray(resized)

    if image.dtype == np.uint8 and image.shape[-1] in (1, 3):
        resized = resize(image.squeeze(-1) if image.shape[-1] == 1 else image)
        return resized.reshape(*size, image.shape[-1])
    channels = np.moveaxis(image.astype(np.float32), -1, 0)
    resized = np.stack([resize(channel) for channel in channels], -1)
    return np.round(resized).astype(image.dtype) if image.dtype.kind in "ui" else resized


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mirror(Warp):
    """Exchange of left and right, or, along axis 0, of top and bottom."""

    size: Pixels
    axis: int = 1
    """Axis that is reversed."""
    mirrored = True

    def points(self, points: Float[Array, "*n 2"]) -> Float[Array, "*n 2"]:
        mirrored = jnp.asarray(self.size, points.dtype) - points
        return jnp.where(jnp.arange(2) == self.axis, mirrored, points)

    def directions(self, vectors: Float[Array, "*n 2"]) -> Float[Array, "*n 2"]:
        return jnp.where(jnp.arange(2) == self.axis, -vectors, vectors)

    def plane(self, values: Array, fill: Any = None) -> Array:
        return jnp.flip(values, self.axis)

    def smooth(self, values: Array) -> Array:
        return jnp.flip(values, self.axis)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Window(Warp):
    """Part of the image with the upper left corner `corner`, enlarged to the size of the image.

    Rows and columns are processed separately, by matrix products and by indices of rows: on CPUs
    many times faster than a gather of every pixel.
    """

    size: Pixels
    corner: Float[Array, "2"]
    """y and x of the corner, in pixels."""
    zoom: Float[Array, ""]

    def points(self, points: Float[Array, "*n 2"]) -> Float[Array, "*n 2"]:
        return (points - self.corner) * self.zoom

    def plane(self, values: Array, fill: Any = None) -> Array:
        for axis in (0, 1):
            index = jnp.floor(self._sources(axis)).astype(jnp.int32)
            last = values.shape[axis] - 1
            values = jnp.take(values, jnp.clip(index, 0, last), axis=axis)
            if fill is not None:
                shape = [1] * values.ndim
                shape[axis] = -1
                inside = ((index >= 0) & (index <= last)).reshape(shape)
                values = jnp.where(inside, values, jnp.asarray(fill, values.dtype))
        return values

    def smooth(self, values: Num[Array, "H W C"]) -> Num[Array, "h w C"]:
        result = values.astype(jnp.float32)
        result = einsum("hH,HWC->hWC", self._weights(0, values.shape[0]), result)
        result = einsum("wW,hWC->hwC", self._weights(1, values.shape[1]), result)
        return like(result, values)

    def _sources(self, axis: int) -> Float[Array, " n"]:
        """Returns the old coordinates of the middles of the new pixels."""
        return (jnp.arange(self.size[axis]) + 0.5) / self.zoom + self.corner[axis]

    def _weights(self, axis: int, count: int) -> Float[Array, "n N"]:
        """Returns the matrix of linear interpolation between the two nearest rows."""
        sources = jnp.clip(self._sources(axis) - 0.5, 0, count - 1)
        return jnp.maximum(1 - jnp.abs(sources[:, None] - jnp.arange(count)), 0.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Turn(Warp):
    """Rotation around the middle by `angle` (radians), then zoom, then `shift` (pixels)."""

    size: Pixels
    angle: Float[Array, ""]
    """Angle in radians."""
    zoom: Float[Array, ""]
    shift: Float[Array, "2"]
    """Shift along y and x, in pixels."""

    @property
    def _matrix(self) -> Float[Array, "2 2"]:
        cos, sin = jnp.cos(self.angle), jnp.sin(self.angle)
        return jnp.stack([cos, -sin, sin, cos]).reshape(2, 2)

    @property
    def _middle(self) -> Float[np.ndarray, "2"]:
        return np.asarray(self.size, np.float32) / 2

    def directions(self, vectors: Float[Array, "*n 2"]) -> Float[Array, "*n 2"]:
        return einsum("...j,ij->...i", vectors, self._matrix)

    def points(self, points: Float[Array, "*n 2"]) -> Float[Array, "*n 2"]:
        turned = self.directions(points.astype(jnp.float32) - self._middle)
        return turned * self.zoom + self._middle + self.shift

    def _sources(self) -> Float[Array, "h w 2"]:
        """Returns the old positions of the middles of the new pixels."""
        grid = np.moveaxis(np.indices(self.size, np.float32), 0, -1) + 0.5
        back = (grid - self._middle - self.shift) / self.zoom
        return einsum("...j,ji->...i", back, self._matrix) + self._middle

    def plane(self, values: Array, fill: Any = None) -> Array:
        index = jnp.floor(self._sources()).astype(jnp.int32)
        last = np.asarray(values.shape[:2], np.int32) - 1
        inner = jnp.clip(index, 0, last)
        result = values[inner[..., 0], inner[..., 1]]
        if fill is None:
            return result
        inside = (index == inner).all(-1).reshape(*self.size, *[1] * (values.ndim - 2))
        return jnp.where(inside, result, jnp.asarray(fill, values.dtype))

    def smooth(self, values: Num[Array, "H W C"]) -> Num[Array, "h w C"]:
        sources = self._sources() - 0.5
        coordinates = sources[..., 0], sources[..., 1]
        interpolate = lambda plane: map_coordinates(plane, coordinates, 1, "nearest")
        return like(jax.vmap(interpolate, -1, -1)(values.astype(jnp.float32)), values)


def like(values: Float[Array, "..."], old: Num[Array, "..."]) -> Num[Array, "..."]:
    """Converts to the dtype of `old`; integers are rounded and clipped to their range."""
    if not jnp.issubdtype(old.dtype, jnp.integer):
        return values.astype(old.dtype)
    info = jnp.iinfo(old.dtype)
    return jnp.clip(jnp.round(values), info.min, info.max).astype(old.dtype)
