"""Fusions: how tasks share a trunk and exchange features. One file each."""

from mtljax.models.fusion.attention import CrossTaskAttention
from mtljax.models.fusion.base import Fusion
from mtljax.models.fusion.independent import Independent
from mtljax.models.fusion.none import HardSharing

FUSIONS = {
    "none": HardSharing,
    "independent": Independent,
    "attention": CrossTaskAttention,
}
"""Name -> Linen module: `(trunk, tasks, taps, **own arguments)`."""

__all__ = ["FUSIONS", "Fusion"]
