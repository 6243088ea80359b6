"""Rendering of random scenes to images with all of their labels."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, PyTree, UInt8

from mtljax.data.scenes import objects, scene
from mtljax.data.scenes.labels import make_labels
from mtljax.data.scenes.raycasting import Hits, ray_directions, trace
from mtljax.data.scenes.scene import Scene, Sensor
from mtljax.data.scenes.shading import shade


def draw_scene(key: jax.Array) -> Scene:
    """Returns a random scene."""
    n, materials = objects.OBJECTS, objects.MATERIALS
    shapes = (6,), (7,), (5,), (7,), (5,), (8,), (n, 6), (n, 27), (materials, 15)
    for_room, for_camera, for_window, for_lights, for_sensor, for_table, *for_objects = (
        uniform_numbers(key, *shapes)
    )
    for_shapes, for_places, for_materials = for_objects
    room = scene.draw_room(for_room)
    camera = scene.draw_camera(for_camera, room)
    window = scene.draw_window(for_window, room, camera)
    table = objects.draw_table(for_table, room, camera)
    solids = objects.place_objects(for_places, room, camera, table, objects.draw_shapes(for_shapes))
    return Scene(
        room=room,
        window=window,
        camera=camera,
        lights=scene.draw_lights(for_lights, room, camera, window),
        solids=jax.tree.map(lambda *x: jnp.concatenate(x), solids, objects.table_solids(table)),
        materials=objects.draw_materials(for_materials),
        sensor=scene.draw_sensor(for_sensor),
    )


def uniform_numbers(key: jax.Array, *shapes: tuple[int, ...]) -> list[Array]:
    """Returns uniform numbers in [0, 1) of several shapes from one draw, which compiles faster."""
    ends = np.cumsum([math.prod(shape) for shape in shapes])
    parts = jnp.split(jax.random.uniform(key, (ends[-1],)), ends[:-1])
    return [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]


def render(keys: Key[Array, " B"], size: int) -> dict[str, PyTree]:
    """Renders images and labels: {"image": [B, size, size, 3], "labels": {name: [B, ...]}}.

    A scene depends on its key only; `size` is only the resolution. Each stage is compiled
    separately: in one program, XLA would compute much of it several times and compile longer.
    """
    scenes = _draw(keys)
    hits = _trace(scenes, size)
    clean, image = _expose(scenes, _shade(scenes, hits), keys, size)
    return {"image": image, "labels": {**_label(scenes, hits, size), "image": clean}}


_draw = jax.jit(jax.vmap(draw_scene))
_shade = jax.jit(jax.vmap(shade))


@functools.partial(jax.jit, static_argnums=1)
def _trace(scenes: Scene, size: int) -> Hits:
    """Traces rays through the pixel centers, followed by rays through the pixel corners."""

    def trace_one(one: Scene) -> Hits:
        points = jnp.arange(size) + 0.5, jnp.arange(size + 1.0)
        rays = [ray_directions(one.camera, at, at, size) for at in points]
        return trace(one, jnp.concatenate(rays, -1))

    return jax.vmap(trace_one)(scenes)


@functools.partial(jax.jit, static_argnums=3)
def _expose(
    scenes: Scene, light: Float[Array, "B 3 R"], keys: Key[Array, " B"], size: int
) -> tuple[UInt8[Array, "B H W 3"], UInt8[Array, "B H W 3"]]:
    centers = light[..., : size**2].reshape(-1, 3, size, size)
    corners = light[..., size**2 :].reshape(-1, 3, size + 1, size + 1)
    light = jnp.moveaxis(antialias(centers, corners), 1, -1)
    fold = lambda key: jax.random.fold_in(key, 1)
    return jax.vmap(expose)(light, scenes.sensor, jax.vmap(fold)(keys))


@functools.partial(jax.jit, static_argnums=2)
def _label(scenes: Scene, hits: Hits, size: int) -> dict[str, PyTree]:
    at_centers = jax.tree.map(lambda x: x[..., : size**2], hits)
    return jax.vmap(functools.partial(make_labels, size=size))(scenes, at_centers)


def antialias(
    centers: Float[Array, "B 3 H W"], corners: Float[Array, "B 3 H+1 W+1"]
) -> Float[Array, "B 3 H W"]:
    """Averages the light over each pixel: 1/2 of its center and 1/8 of each of its corners."""
    corners = corners[..., 1:, :] + corners[..., :-1, :]
    return centers / 2 + (corners[..., 1:] + corners[..., :-1]) / 8


def expose(
    light: Float[Array, "H W 3"], sensor: Sensor, key: jax.Array
) -> tuple[UInt8[Array, "H W 3"], UInt8[Array, "H W 3"]]:
    """Returns the images (without noise, with noise) that the sensor records."""
    away = jnp.linspace(-1, 1, light.shape[0]) ** 2
    vignette = 1 - 0.12 * (away[:, None] + away)[..., None]
    gain = sensor.exposure * sensor.balance / jnp.maximum(light.mean(), 1e-6)
    light = 1 - jnp.exp(-1.2 * gain * vignette * light)
    # Photon noise grows with the square root of the light; a constant part exists in the dark.
    noise = sensor.noise * jnp.sqrt(0.3 * light + 0.01) * jax.random.normal(key, light.shape)
    values = lambda x: jnp.round(255 * jnp.sqrt(jnp.clip(x, 0, 1))).astype(jnp.uint8)
    return values(light), values(light + noise)
