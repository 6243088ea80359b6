"""Weights per group of shared parameters."""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from mtljax.balancing import base
from mtljax.balancing.combinators.wrapping import around, refuse_balancer

GROUPS = ("all", "stage", "module", "parameter")
"""Values of `by`: parts of the network with separate weights."""


@base.with_spec
def grouped(balancer: base.Balancer, by: str = "stage") -> base.Balancer:
    """A balancer with one Gramian and one state per group of shared parameters.

    Each group gets separate weights, and its part of the update is the sum of its parts of the task
    gradients with these weights.

    Convention: each head receives the gradient of its loss.

    Args:
      balancer: A balancer that reads the Gramian of one sample.
      by: Groups: "stage" (one per stage of the trunk, and per module beside it), "module" (the
        parameters of one layer), "parameter" (one array) or "all".

    References:
      Sener and Koltun, 2018, arXiv:1810.04650; Yu et al., 2020, arXiv:2001.06782 (per layer)
    """
    refuse = functools.partial(refuse_balancer, "grouped", balancer)
    if by not in GROUPS:
        raise ValueError(f"grouped: by must be one of {', '.join(GROUPS)}, not {by!r}")
    if balancer.needs is not base.Needs.GRAMIAN:
        refuse(f"reads the {balancer.needs.value}, not the Gramian")
    if balancer.samples > 1:
        refuse("reads several samples, of which no Jacobian is kept")
    if balancer.heads != "own":
        refuse("gives weights to the heads, which would differ from group to group")
    if balancer.observe is not None:
        refuse("learns from the losses after each update, which are not those of one group")
    if balancer.alignment is not None:
        refuse("aligns the heads with the gradient of one weighted loss, of which there is none")
    if balancer.period > 1:
        refuse("rests between updates, and groups have no common weights to use then")
    if by == "all":
        return balancer

    def init(num_tasks: int, shared: PyTree) -> base.State:
        count = max(_groups(shared, by), default=0) + 1
        state = balancer.init(num_tasks, shared)
        return jax.tree.map(lambda x: jnp.tile(x[None], (count, *[1] * x.ndim)), state)

    def combine(signals: base.Signals, state: base.State, key: Array) -> base.Combined:
        leaves, tree = jax.tree.flatten(signals.jacobian)
        group_of = _groups(signals.jacobian, by)
        count = max(group_of, default=0) + 1
        parts = [[x for x, g in zip(leaves, group_of, strict=True) if g == n] for n in range(count)]
        keys = jax.random.split(key, count) if count > 1 else key[None]

        def weigh(gramian: Array, state: base.State, key: Array) -> base.Combined:
            of_group = signals._replace(gramian=gramian, jacobian=base.NOT_COMPUTED)
            return balancer.combine(of_group, state, key)

        gramians = jnp.stack([base.gramian(part) for part in parts])
        weights, state = jax.vmap(weigh)(gramians, state, keys)
        weights = jnp.where(signals.present, weights, 0.0)
        directions = [
            base.combine_rows(weights[g], x) for x, g in zip(leaves, group_of, strict=True)
        ]
        return jax.tree.unflatten(tree, directions), state

    needs = base.Needs.JACOBIAN
    return around(balancer, init=init, combine=combine, needs=needs, parameters_only=True)


def _groups(tree: PyTree, by: str) -> list[int]:
    """Index of the group of each leaf, in order of first appearance."""
    names = []
    for path, _ in jax.tree_util.tree_leaves_with_path(tree):
        parts = jax.tree_util.keystr(path, simple=True, separator="/").split("/")
        depth = {"stage": min(2, len(parts) - 1), "module": len(parts) - 1}.get(by, len(parts))
        names.append("/".join(parts[:depth]))
    order = list(dict.fromkeys(names))
    return [order.index(name) for name in names]
