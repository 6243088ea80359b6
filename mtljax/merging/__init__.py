"""Merging of single-task networks that started from the same weights into one multi-task network.

A merging method combines the shared parameters of the runs; the heads are those of the runs. Each
is a function in `MERGES` that returns a `Merger`.
"""

from collections.abc import Callable

from mtljax.merging.adamerging import adamerging
from mtljax.merging.base import Candidate, Merger, Network, Problem
from mtljax.merging.fisher import fisher
from mtljax.merging.regmean import regmean
from mtljax.merging.task_vectors import average, dare, task_arithmetic, ties

MERGES: dict[str, Callable[..., Merger]] = {
    "average": average,
    "task_arithmetic": task_arithmetic,
    "ties": ties,
    "dare": dare,
    "fisher": fisher,
    "regmean": regmean,
    "adamerging": adamerging,
}
"""Name -> function that makes a merging method."""

__all__ = ["MERGES", "Candidate", "Merger", "Network", "Problem"]
