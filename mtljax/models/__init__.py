"""Models: trunks, fusions, heads, and how they are assembled."""

from mtljax.models.fusion import FUSIONS
from mtljax.models.multitask import MultiTask, build
from mtljax.models.partition import mark_representation, partition, task_of
from mtljax.models.trunks import TRUNKS

__all__ = [
    "FUSIONS",
    "TRUNKS",
    "MultiTask",
    "build",
    "mark_representation",
    "partition",
    "task_of",
]
