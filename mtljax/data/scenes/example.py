"""From random keys to images and all of their labels."""

import functools
import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, UInt8

from mtljax.data.scenes import furnish, world
from mtljax.data.scenes.hits import directions, trace
from mtljax.data.scenes.labels import make_labels
from mtljax.data.scenes.shade import shade
from mtljax.data.scenes.world import Scene, Sensor


def draw_scene(key: jax.Array) -> Scene:
    """A scene at random."""
    n = furnish.OBJECTS
    (
        of_room,
        of_camera,
        of_window,
        of_lights,
        of_sensor,
        of_table,
        of_shapes,
        of_places,
        of_looks,
    ) = numbers(key, (6,), (7,), (5,), (7,), (5,), (8,), (n, 6), (n, 27), (furnish.LOOKS, 15))
    room = world.draw_room(of_room)
    camera = world.draw_camera(of_camera, room)
    window = world.draw_window(of_window, room, camera)
    table = furnish.draw_table(of_table, room, camera)
    objects = furnish.put_down(of_places, room, camera, table, furnish.draw_shapes(of_shapes))
    both = objects, furnish.table_solids(table)
    return Scene(
        room=room,
        window=window,
        camera=camera,
        lights=world.draw_lights(of_lights, room, camera, window),
        solids=jax.tree.map(lambda *parts: jnp.concatenate(parts), *both),
        materials=furnish.draw_materials(of_looks),
        sensor=world.draw_sensor(of_sensor),
    )


def numbers(key: jax.Array, *shapes: tuple[int, ...]) -> list[Array]:
    """Uniform numbers in [0, 1) of several shapes, from one draw: each takes long to compile."""
    sizes = [math.prod(shape) for shape in shapes]
    row, parts = jax.random.uniform(key, (sum(sizes),)), []
    for size, shape in zip(sizes, shapes, strict=True):
        parts.append(row[:size].reshape(shape))
        row = row[size:]
    return parts


def render(keys: Key[Array, " B"], size: int) -> dict:
    """Images and their labels, {"image": [B, size, size, 3], "labels": {name: [B, ...]}}.

    What is in a scene depends on its key alone; `size`, in pixels, is only how finely it is seen.
    Each part is compiled for itself: in one program, XLA would compute much of it several times
    over, and take longer to compile.

    Args:
      keys: One for each image.
      size: Height and width.
    """
    scenes = _draw(keys)
    hits = _look(scenes, size)
    clean, image = _expose(scenes, _light(scenes, hits), keys, size)
    return {"image": image, "labels": {**_label(scenes, hits, size), "image": clean}}


@jax.jit
@jax.vmap
def _draw(key):
    return draw_scene(key)


@functools.partial(jax.jit, static_argnums=1)
def _look(scenes, size):
    middles, corners = jnp.arange(size) + 0.5, jnp.arange(size + 1.0)

    def look(scene):
        rays = [directions(scene.camera, at, at, size) for at in (middles, corners)]
        return trace(scene, jnp.concatenate(rays, -1))

    return jax.vmap(look)(scenes)


_light = jax.jit(jax.vmap(shade))


@functools.partial(jax.jit, static_argnums=3)
def _expose(scenes, light, keys, size):
    def expose(scene, light, key):
        light = smooth(
            light[:, : size**2].reshape(3, size, size),
            light[:, size**2 :].reshape(3, size + 1, size + 1),
        )
        return develop(jnp.moveaxis(light, 0, -1), scene.sensor, jax.random.fold_in(key, 1))

    return jax.vmap(expose)(scenes, light, keys)


@functools.partial(jax.jit, static_argnums=2)
def _label(scenes, hits, size):
    def label(scene, hits):
        of_middles = jax.tree.map(lambda x: x[..., : size**2], hits)
        return make_labels(scene, of_middles, size)

    return jax.vmap(label)(scenes, hits)


def smooth(
    middles: Float[Array, "3 H W"], corners: Float[Array, "3 H+1 W+1"]
) -> Float[Array, "3 H W"]:
    """What each pixel gathers: half from its middle, an eighth from each of its corners."""
    corners = corners[:, 1:] + corners[:, :-1]
    return middles / 2 + (corners[:, :, 1:] + corners[:, :, :-1]) / 8


def develop(
    light: Float[Array, "H W 3"], sensor: Sensor, key: jax.Array
) -> tuple[UInt8[Array, "H W 3"], UInt8[Array, "H W 3"]]:
    """What a sensor makes of light: (the picture without its noise, the picture)."""
    away = jnp.linspace(-1, 1, light.shape[0]) ** 2
    vignette = 1 - 0.12 * (away[:, None] + away)[..., None]
    gain = sensor.exposure * sensor.balance / jnp.maximum(light.mean(), 1e-6)
    light = 1 - jnp.exp(-1.2 * gain * vignette * light)
    # That of photons grows with the root of the light; some is there in the dark.
    noise = sensor.noise * jnp.sqrt(0.3 * light + 0.01) * jax.random.normal(key, light.shape)
    values = lambda x: jnp.round(255 * jnp.sqrt(jnp.clip(x, 0, 1))).astype(jnp.uint8)
    return values(light), values(light + noise)
