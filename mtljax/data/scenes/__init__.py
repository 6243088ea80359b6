"""A procedural indoor world, ray cast in JAX: `render(key, size)` is an image with its labels."""

from mtljax.data.scenes.example import draw_scene, render
from mtljax.data.scenes.furnish import OBJECTS
from mtljax.data.scenes.labels import CLASSES
from mtljax.data.scenes.solids import KINDS
from mtljax.data.scenes.world import ROOM_TYPES

__all__ = ["CLASSES", "KINDS", "OBJECTS", "ROOM_TYPES", "draw_scene", "render"]
