"""Several devices and processes: their start, the mesh, and the sharding of arrays over it."""

from mtljax.parallel.placement import Placement, describe, place
from mtljax.parallel.processes import is_on_host, same_everywhere, start, to_host
from mtljax.parallel.shardings import SHARDINGS, Constraints, make_sharding

__all__ = [
    "SHARDINGS", "Constraints", "Placement", "describe", "is_on_host", "make_sharding", "place",
    "same_everywhere", "start", "to_host",
]  # fmt: skip
