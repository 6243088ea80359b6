"""Plan of Pareto fronts: methods of a comparison, for each ray or for a conditioned network."""

import dataclasses
import inspect
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from mtljax.balancing import BALANCERS
from mtljax.balancing.base import BalancerSpec
from mtljax.balancing.rays import rays
from mtljax.comparison import plan as comparison_plan
from mtljax.comparison.plan import Method
from mtljax.config import Experiment
from mtljax.config.balancers import balancer_from_text, split_preference, with_preference
from mtljax.models.conditioning import make_conditioning
from mtljax.utils.spec import to_text

LINEAR = "linear scalarization"
"""Name of the front of separate networks with the weighted sum of the losses."""
MOST_TASKS = 4
"""Largest number of tasks: the volume costs the number of rays to the power of the tasks."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlannedFront:
    """Front to train."""

    name: str
    """Name of the method."""
    is_linear: bool = False
    """True for linear scalarization."""
    is_conditioned: bool = False
    """True for one network that has the preference as an input."""
    rays: Float[np.ndarray, "R T"]
    """Preferences over tasks, with mean 1."""
    methods: tuple[Method, ...]
    """One per ray, or one for all if the network is conditioned."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class FrontPlan:
    """Fronts, and the single-task baselines."""

    baselines: tuple[Method, ...]
    """Single-task networks."""
    fronts: tuple[PlannedFront, ...]
    """Methods, conditioned networks, then linear scalarization."""

    @property
    def methods(self) -> list[Method]:
        """All methods of the comparison."""
        return [*self.baselines, *(m for front in self.fronts for m in front.methods)]


def plan(
    experiment: Experiment,
    methods: Sequence[str],
    count: int,
    *,
    conditions: Sequence[str] = (),
    grid: Sequence[str] = (),
    linear_steps: int | None = None,
    conditioned_steps: int | None = None,
) -> FrontPlan:
    """Returns the fronts of some methods, conditioned networks and linear scalarization.

    Args:
      methods: Balancers that read a preference, as text.
      count: Number of rays.
      conditions: Conditionings of a network on the preference, one network for all rays each.
      grid: `field=value,value` per field; validation chooses for each ray and baseline.
      linear_steps: Number of steps of linear scalarization; None: that of the experiment.
      conditioned_steps: Number of steps of a conditioned network; None: that of the experiment.

    Raises:
      ValueError: A method has no preference, or the experiment has an unsuitable number of tasks.
    """
    tasks = len(experiment.tasks)
    if not 2 <= tasks <= MOST_TASKS:
        raise ValueError(f"front needs an experiment with 2 to {MOST_TASKS} tasks, not {tasks}")
    if count < 2:
        raise ValueError(f"--rays must be >= 2, not {count}")
    if experiment.condition != "none":
        raise ValueError(
            f"front trains separate networks without condition={experiment.condition}; write "
            f"--conditions {experiment.condition} to add the front of a conditioned one"
        )
    if not methods and not conditions:
        raise ValueError("--method names no balancer; write --method epo")
    for flag, steps in {"linear": linear_steps, "conditioned": conditioned_steps}.items():
        if steps is not None and steps < 1:
            raise ValueError(f"--{flag}-steps must be >= 1, not {steps}")
    if conditions and grid:
        raise ValueError("--grid tunes separate networks; leave it out with --conditions")
    preferences, texts = rays(tasks, count), _checked(methods, count)
    fronts = [
        PlannedFront(
            name=text, rays=preferences, methods=_per_ray(experiment, text, preferences, grid)
        )
        for text in texts
    ]
    longer = dataclasses.replace(experiment, steps=conditioned_steps or experiment.steps)
    fronts += [
        PlannedFront(
            name=f"conditioned: {condition}",
            is_conditioned=True,
            rays=preferences,
            methods=(_conditioned(longer, condition),),
        )
        for condition in conditions
    ]
    linear = dataclasses.replace(experiment, steps=linear_steps or experiment.steps)
    of_linear = _per_ray(linear, "ew", preferences, grid)
    fronts.append(PlannedFront(name=LINEAR, is_linear=True, rays=preferences, methods=of_linear))
    plain = dataclasses.replace(experiment, balancer="ew")
    baselines = [m for m in comparison_plan.plan(plain, grid=grid) if m.kind == "stl"]
    names = [front.name for front in fronts]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"front {name!r} is listed twice; remove one")
    return FrontPlan(baselines=tuple(baselines), fronts=tuple(fronts))


def _checked(methods: Sequence[str], count: int) -> list[str]:
    """Returns the methods with the number of rays.

    Raises:
      ValueError: One reads no preference, has one of its own, or is linear scalarization.
    """
    texts = [with_rays(method, count) for method in methods]
    for method, text in zip(methods, texts, strict=True):
        name, preference = split_preference(method)
        if preference is not None:
            raise ValueError(
                f"--method {method} has a preference, but the rays are those of --rays; write "
                f"--method {name}"
            )
        if method == "ew":
            raise ValueError(
                "linear scalarization, ew, is trained in any case; leave it out of --method"
            )
        if not balancer_from_text(text).prefers:
            raise ValueError(
                f"--method {method} has no preference; use epo, pmtl, pmgda, ferero, hypervolume, "
                "chebyshev, stch or another that `list balancers` shows to take preferred"
            )
    return texts


def _per_ray(
    experiment: Experiment,
    text: str,
    preferences: Float[np.ndarray, "R T"],
    grid: Sequence[str],
) -> tuple[Method, ...]:
    """Methods of a balancer with each preference."""
    balancers = [with_preference(text, ray) for ray in preferences]
    methods = comparison_plan.plan(experiment, balancers=balancers, grid=grid)
    return tuple(method for method in methods if method.kind == "method")


def _conditioned(experiment: Experiment, condition: str) -> Method:
    """Method of one network for all preferences, trained with the balancer of its paper."""
    conditioning = make_conditioning(condition)
    if conditioning is None:
        raise ValueError("--conditions none is no network for all preferences; leave it out")
    balancer = conditioning.balancer
    conditioned = dataclasses.replace(experiment, condition=condition, balancer=balancer)
    *_, method = comparison_plan.plan(conditioned)
    return dataclasses.replace(method, name=f"conditioned: {condition}")


def with_rays(method: str, count: int) -> str:
    """Adds the number of rays to methods that have it as an argument, unless they state it.

    So the runs of fronts with other numbers of rays, which share some of them, are not reused.

    Example:
      >>> with_rays("pmtl", 8)
      'pmtl:rays=8'
    """

    def added(value: Any) -> Any:
        if not isinstance(value, BalancerSpec):
            return tuple(map(added, value)) if isinstance(value, tuple) else value
        arguments = {name: added(inner) for name, inner in value.arguments.items()}
        make = BALANCERS.get(value.name)
        if make is not None and "rays" in inspect.signature(make).parameters:
            arguments = {"rays": count, **arguments}
        return BalancerSpec(value.name, arguments)

    spec = balancer_from_text(method).spec
    changed = added(spec)
    return method if changed == spec else to_text(changed)
