"""Several devices and processes: their start, the mesh, and the sharding of arrays over it."""

from mtljax.parallel.placement import AXIS, Placement, describe, place
from mtljax.parallel.processes import same_everywhere, start

__all__ = ["AXIS", "Placement", "describe", "place", "same_everywhere", "start"]
