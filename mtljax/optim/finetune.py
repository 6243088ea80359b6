"""Fine-tuning methods as optax transformations."""

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int, PyTree

from mtljax.models.freezing import module_names, path_matches
from mtljax.models.layer_depth import StageOf, layer_distances, stage_distances
from mtljax.utils.registry import nearest
from mtljax.utils.tree import flatten


def scale_by_depth(decay: float, stage_of: StageOf) -> optax.GradientTransformation:
    """Layer-wise learning-rate decay: scales updates by decay ** (distance from the heads).

    Chain it after the optimizer, so that decoupled weight decay is scaled too, as with a separate
    learning rate per layer. Frozen layers do not count; one layer of the trunk must be trainable.

    Args:
      decay: Factor per layer, in (0, 1]; 1 for no effect.
      stage_of: Maps modules to trunk stages; see `Fusion.stage_of`.

    References:
      Clark et al., 2020, arXiv:2003.10555 (ELECTRA); Bao et al., 2021, arXiv:2106.08254 (BEiT)
    """
    if not 0 < decay <= 1:
        raise ValueError(f"layer_decay must be in (0, 1], not {decay}")

    def scale(updates: PyTree, params: PyTree | None) -> PyTree:
        distances = map_paths(lambda paths: layer_distances(paths, stage_of), updates)
        return jax.tree.map(lambda u, n: u * decay**n, updates, distances)

    return optax.stateless(scale)


def scale_by_module(scales: Mapping[str, float]) -> optax.GradientTransformation:
    """Learning-rate multipliers: scales the updates of modules, selected as by `freeze`.

    Chain it after the optimizer, so that decoupled weight decay is scaled too, as with a separate
    learning rate per module. Of several names that match a parameter, the last one counts.

    Args:
      scales: Name -> factor > 0; for names see `mtljax.models.freezing.path_matches`.
    """
    for name, factor in scales.items():
        if not 0 < factor < math.inf:
            raise ValueError(
                f"learning_rate_scales: {name} must be > 0 and finite, not {factor}; to keep a "
                f"module unchanged, freeze it: --freeze {name}"
            )

    def factors(paths: Mapping[str, PyTree]) -> dict[str, float]:
        for name in scales:
            if not any(path_matches(path, name) for path in paths):
                raise ValueError(
                    f"learning_rate_scales: unknown module {name!r} among those that train"
                    f"{nearest(name, module_names(paths))}"
                )
        return {
            path: ([1.0] + [x for name, x in scales.items() if path_matches(path, name)])[-1]
            for path in paths
        }

    def init(params: PyTree) -> optax.EmptyState:
        map_paths(factors, params)  # checks the names
        return optax.EmptyState()

    def update(
        updates: PyTree, state: optax.EmptyState, params: PyTree | None = None
    ) -> tuple[PyTree, optax.EmptyState]:
        return jax.tree.map(lambda u, x: u * x, updates, map_paths(factors, updates)), state

    return optax.GradientTransformation(init, update)


class UnfreezeState(NamedTuple):
    """Number of updates so far."""

    updates: Int[Array, ""]
    """Number of updates so far."""


def gradual_unfreezing(every: int, stage_of: StageOf) -> optax.GradientTransformation:
    """Gradual unfreezing: trunk stages start to train one after the other, from the last one.

    Heads and fusion train from the start, the last stage after `every` updates, the stage before it
    after 2 * `every` updates, and so on. Chain it last: updates of frozen stages are zero. Their
    gradients are computed, so that the states of optimizer and balancer are up to date.

    Args:
      every: Updates between two stages, at least 1. One stage must be trainable.
      stage_of: Maps modules to trunk stages; see `Fusion.stage_of`.

    References:
      Howard & Ruder, 2018, arXiv:1801.06146
    """
    if every < 1:
        raise ValueError(f"unfreeze_every must be >= 1 update, not {every}")

    def init(params: PyTree) -> UnfreezeState:
        return UnfreezeState(jnp.zeros((), jnp.int32))

    def update(
        updates: PyTree, state: UnfreezeState, params: PyTree | None = None
    ) -> tuple[PyTree, UnfreezeState]:
        unfrozen = lambda u, n: jnp.where(state.updates >= every * n, u, jnp.zeros_like(u))
        distances = map_paths(lambda paths: stage_distances(paths, stage_of), updates)
        count = optax.safe_increment(state.updates)
        return jax.tree.map(unfrozen, updates, distances), UnfreezeState(count)

    return optax.GradientTransformation(init, update)


class AnchorState(NamedTuple):
    """Initial parameters."""

    start: PyTree
    """Initial parameters."""


def add_l2_sp(strength: float) -> optax.GradientTransformation:
    """L2-SP: adds the gradient of strength / 2 * |w - w0|^2, with w0 the parameters at `init`.

    Chain it first, since the penalty is a part of the loss in the paper. Use `optax.masked` to
    restrict it to pretrained parameters. `strength` is the alpha of the paper, finite and >= 0.

    References:
      Li et al., 2018, arXiv:1802.01483
    """
    if not 0 <= strength < float("inf"):
        raise ValueError(f"l2_sp must be >= 0 and finite, not {strength}")

    init = lambda params: AnchorState(jax.tree.map(jnp.copy, params))

    def update(
        updates: PyTree, state: AnchorState, params: PyTree | None = None
    ) -> tuple[PyTree, AnchorState]:
        if params is None:
            raise ValueError("L2-SP needs params: optimizer.update(gradient, state, params)")
        regularize = lambda g, w, start: g + strength * (w - start)
        return jax.tree.map(regularize, updates, params, state.start), state

    return optax.GradientTransformation(init, update)


def map_paths(
    function: Callable[[Mapping[str, PyTree]], Mapping[str, PyTree]], tree: PyTree
) -> PyTree:
    """Applies a function {path: leaf} -> {path: value}; returns the values in the tree's shape."""
    leaves = flatten(tree)
    values = function(leaves)
    return jax.tree.unflatten(jax.tree.structure(tree), [values[path] for path in leaves])
