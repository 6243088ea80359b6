"""Fine-tuning as optax transformations: each is a link of an optimizer's chain."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int, PyTree

from mtljax.models.layer_depth import StageOf, layer_distances, stage_distances
from mtljax.utils.tree import flatten


def scale_by_depth(decay: float, stage_of: StageOf) -> optax.GradientTransformation:
    """Layer-wise learning-rate decay: each update times decay ** (distance from the heads).

    It follows the optimizer, so that decoupled weight decay shrinks with the learning rate, as it
    does where every layer has a learning rate of its own. Frozen layers do not count.

    Args:
      decay: In (0, 1]; 1 changes nothing.
      stage_of: Of the model's fusion.

    Raises:
      ValueError: Another decay; at the first update, that nothing of the trunk learns.

    References:
      Clark et al., 2020, arXiv:2003.10555 (ELECTRA); Bao et al., 2021, arXiv:2106.08254 (BEiT)
    """
    if not 0 < decay <= 1:
        raise ValueError(f"layer_decay must be in (0, 1], not {decay}")

    def scaled(updates: PyTree, params: PyTree | None) -> PyTree:
        del params
        away = map_by_path(lambda paths: layer_distances(paths, stage_of), updates)
        return jax.tree.map(lambda u, n: u * decay**n, updates, away)

    return optax.stateless(scaled)


class UnfreezeState(NamedTuple):
    """How far it has come."""

    updates: Int[Array, ""]


def unfreeze(every: int, stage_of: StageOf) -> optax.GradientTransformation:
    """Gradual unfreezing: the trunk's stages learn one after the other, from the heads downwards.

    Heads and fusion learn at once, the last stage after `every` updates, the one below it after as
    many more. It ends the chain, so until its turn a parameter does not change at all. Its gradient
    is taken all the same: the optimizer's moments and the balancer are ready when it begins.

    Args:
      every: Updates between one stage and the next.
      stage_of: Of the model's fusion.

    Raises:
      ValueError: Less than 1; at the first update, that nothing of the trunk learns.

    References:
      Howard & Ruder, 2018, arXiv:1801.06146
    """
    if every < 1:
        raise ValueError(f"unfreeze_every must be >= 1 update, not {every}")

    def init(params: PyTree) -> UnfreezeState:
        del params
        return UnfreezeState(jnp.zeros((), jnp.int32))

    def update(
        updates: PyTree, state: UnfreezeState, params: PyTree | None = None
    ) -> tuple[PyTree, UnfreezeState]:
        del params
        begun = lambda u, turn: jnp.where(state.updates >= every * turn, u, jnp.zeros_like(u))
        turn = map_by_path(lambda paths: stage_distances(paths, stage_of), updates)
        count = optax.safe_increment(state.updates)
        return jax.tree.map(begun, updates, turn), UnfreezeState(count)

    return optax.GradientTransformation(init, update)


class AnchorState(NamedTuple):
    """The parameters that training started from."""

    start: PyTree


def add_l2_sp(strength: float) -> optax.GradientTransformation:
    """L2-SP: adds the gradient of strength / 2 * |w - w0|^2, w0 the parameters at `init`.

    It begins the chain, since it belongs to the loss, as in the paper. Wrap it in `optax.masked`
    for those parameters that did start from something.

    Args:
      strength: Alpha of the paper, >= 0.

    Raises:
      ValueError: A negative strength; at an update, that it is not given the parameters.

    References:
      Li et al., 2018, arXiv:1802.01483
    """
    if not 0 <= strength < float("inf"):
        raise ValueError(f"l2_sp must be >= 0 and finite, not {strength}")

    def init(params: PyTree) -> AnchorState:
        return AnchorState(jax.tree.map(jnp.copy, params))

    def update(
        updates: PyTree, state: AnchorState, params: PyTree | None = None
    ) -> tuple[PyTree, AnchorState]:
        if params is None:
            raise ValueError(
                "L2-SP needs the parameters: optimizer.update(gradient, state, params)"
            )
        pulled = lambda g, w, start: g + strength * (w - start)
        return jax.tree.map(pulled, updates, params, state.start), state

    return optax.GradientTransformation(init, update)


def map_by_path(values: Callable[[dict[str, Any]], Mapping[str, Any]], tree: PyTree) -> PyTree:
    """A tree like this one of what a function of {path: leaf} says of each path."""
    leaves = flatten(tree)
    found = values(leaves)
    return jax.tree.unflatten(jax.tree.structure(tree), [found[path] for path in leaves])
