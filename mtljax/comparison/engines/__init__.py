"""Engines that train the runs of a comparison: this process, a Ray cluster, Slurm."""

from collections.abc import Callable, Mapping

from mtljax.comparison.engines.base import Engine, Local
from mtljax.comparison.engines.ray_cluster import Ray
from mtljax.comparison.engines.slurm import Slurm
from mtljax.utils.registry import choose

ENGINES: Mapping[str, Callable[..., Engine]] = {"local": Local, "ray": Ray, "slurm": Slurm}
"""Name -> engine."""


def make_engine(text: str) -> Engine:
    """Makes an engine from text such as `ray:cpus=4,gpus=1`.

    Raises:
      ValueError: The name or an argument is unknown or invalid.
    """
    return choose("engine", text, ENGINES).build()
