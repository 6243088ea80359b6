"""Pareto fronts: networks for several preferences over tasks, compared by their hypervolume."""

from mtljax.balancing.rays import hypervolume, rays

__all__ = ["hypervolume", "rays"]
