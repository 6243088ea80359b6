"""Plan of Pareto fronts: a method of a comparison for each ray, and linear scalarization."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from mtljax.balancing.rays import rays
from mtljax.comparison import plan as comparison_plan
from mtljax.comparison.plan import Method
from mtljax.config import Experiment
from mtljax.config.balancers import balancer_from_text, with_preference

LINEAR = "linear scalarization"
"""Name of the front of separate networks with the weighted sum of the losses."""
MOST_TASKS = 4
"""Largest number of tasks: the volume costs the number of rays to the power of the tasks."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlannedFront:
    """Front to train: a method of a comparison per ray."""

    name: str
    is_linear: bool
    rays: Float[np.ndarray, "R T"]
    methods: tuple[Method, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class FrontPlan:
    """Fronts, and the single-task baselines."""

    baselines: tuple[Method, ...]
    fronts: tuple[PlannedFront, ...]
    """Methods, then linear scalarization."""

    @property
    def methods(self) -> list[Method]:
        """All methods of the comparison."""
        return [*self.baselines, *(m for front in self.fronts for m in front.methods)]


def plan(
    experiment: Experiment,
    methods: Sequence[str],
    count: int,
    *,
    grid: Sequence[str] = (),
    linear_steps: int | None = None,
) -> FrontPlan:
    """Returns the fronts of some methods and of linear scalarization.

    Args:
      methods: Balancers that read a preference, as text.
      count: Number of rays.
      grid: `field=value,value` per field; validation chooses for each ray and baseline.
      linear_steps: Number of steps of linear scalarization; None: that of the experiment.

    Raises:
      ValueError: A method has no preference, or the experiment has an unsuitable number of tasks.
    """
    tasks = len(experiment.tasks)
    if not 2 <= tasks <= MOST_TASKS:
        raise ValueError(f"front needs an experiment with 2 to {MOST_TASKS} tasks, not {tasks}")
    if count < 2:
        raise ValueError(f"--rays must be >= 2, not {count}")
    if not methods:
        raise ValueError("--method names no balancer; write --method epo")
    if linear_steps is not None and linear_steps < 1:
        raise ValueError(f"--linear-steps must be >= 1, not {linear_steps}")
    if "ew" in methods:
        raise ValueError(
            "linear scalarization, ew, is trained in any case; leave it out of --method"
        )
    preferences = rays(tasks, count)
    texts = [with_rays(method, count) for method in methods]
    for method, text in zip(methods, texts, strict=True):
        if not balancer_from_text(text).prefers:
            raise ValueError(
                f"--method {method} has no preference; use epo, pmtl, pmgda, ferero, hypervolume, "
                "chebyshev, stch or another that `list balancers` shows to take preferred"
            )
    every = [with_preference(text, ray) for text in texts for ray in preferences]
    planned = comparison_plan.plan(experiment, balancers=every, grid=grid)
    linear = dataclasses.replace(experiment, steps=linear_steps or experiment.steps)
    weighted = [with_preference("ew", ray) for ray in preferences]
    of_linear = comparison_plan.plan(linear, balancers=weighted, grid=grid)
    found = [method for method in planned if method.kind == "method"]
    fronts = [
        PlannedFront(
            name=text,
            is_linear=False,
            rays=preferences,
            methods=tuple(found[i * count : (i + 1) * count]),
        )
        for i, text in enumerate(texts)
    ]
    fronts.append(
        PlannedFront(
            name=LINEAR,
            is_linear=True,
            rays=preferences,
            methods=tuple(method for method in of_linear if method.kind == "method"),
        )
    )
    baselines = tuple(method for method in planned if method.kind == "stl")
    return FrontPlan(baselines=baselines, fronts=tuple(fronts))


def with_rays(method: str, count: int) -> str:
    """Adds the number of rays to a method that needs it and does not state it.

    Example:
      >>> with_rays("pmtl", 8)
      'pmtl:rays=8'
    """
    return f"pmtl:rays={count}" if method == "pmtl" else method
