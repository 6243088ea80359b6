"""Procedural indoor scenes, ray cast in JAX: `render(keys, size)` returns images and labels."""

from mtljax.data.scenes.labels import CLASSES
from mtljax.data.scenes.objects import OBJECTS
from mtljax.data.scenes.rendering import draw_scene, render
from mtljax.data.scenes.scene import ROOM_TYPES
from mtljax.data.scenes.solids import KINDS

__all__ = ["CLASSES", "KINDS", "OBJECTS", "ROOM_TYPES", "draw_scene", "render"]
