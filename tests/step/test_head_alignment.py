"""ConsMTL's gradient of the heads, against float64 from its definition, and where it is refused."""

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec
from support.balancing_references import alpha_fair
from support.float64_net import (
    NAMES,
    Losses,
    Net,
    batch_of,
    flat,
    in_float64,
    moved,
    plus,
    state_and_step,
)
from support.problem import relative_difference

from mtljax import parallel
from mtljax.balancing import chain, consmtl, fairgrad, fixed


def differences(function, head, step=1e-5):
    """Derivatives of a function of a head by central differences."""
    gradients = []
    for i, layer in enumerate(head):
        gradient = np.zeros_like(layer)
        for index in np.ndindex(*layer.shape):
            near = [[x.copy() for x in head] for _ in range(2)]
            near[0][i][index] += step
            near[1][i][index] -= step
            gradient[index] = (function(near[0]) - function(near[1])) / (2 * step)
        gradients.append(gradient)
    return gradients


def reference(losses, shared, heads, strength=1.0, limit=0.1, scale=(1.0, 1.0, 1.0)):
    """Gradients of the shared parameters and the heads; losses are multiplied by `scale`."""
    tasks = range(len(NAMES))
    jacobian = [scale[t] * flat(losses.by_shared(t, shared, heads[t])) for t in tasks]
    weights = alpha_fair(np.stack(jacobian), 2.0)
    by_z = lambda t, head: scale[t] * losses.by_z(t, shared, head)
    update = sum(weights[t] * by_z(t, heads[t]) for t in tasks)
    of_heads = []
    for t in tasks:
        own = [scale[t] * x for x in losses.by_head(t, shared, heads[t])]
        extra = differences(lambda head, t=t: -strength * (by_z(t, head) * update).sum(), heads[t])
        factor = min(1, limit * np.linalg.norm(flat(own)) / np.linalg.norm(flat(extra)))
        of_heads.append(plus(own, factor, extra))
    return weights @ np.stack(jacobian), of_heads


@pytest.mark.parametrize(
    "arguments", [{}, {"strength": 0.5, "limit": 100.0}, {"strength": 50.0, "limit": 0.3}]
)
def test_the_step_is_that_of_float64(arguments):
    batch = batch_of(1)
    before, step = state_and_step(consmtl(**arguments), batch)
    shared, heads = moved(before, step(before, batch)[0])
    expected = reference(Losses(batch), *in_float64(before.params), **arguments)
    assert relative_difference(expected, (flat(shared), heads)) <= 1e-4


def test_weights_before_it_weigh_the_losses_of_the_heads_too():
    batch, weights = batch_of(4), (1.0, 2.0, 0.25)
    before, step = state_and_step(chain(fixed(weights), consmtl(limit=10.0)), batch)
    shared, heads = moved(before, step(before, batch)[0])
    losses, params = Losses(batch), in_float64(before.params)
    expected = reference(losses, *params, limit=10.0, scale=weights)
    assert relative_difference(expected, (flat(shared), heads)) <= 1e-4


@pytest.mark.parametrize("level", ["parameters", "features"])
def test_no_strength_is_fairgrad(level):
    batch = batch_of(2)
    before, step = state_and_step(consmtl(strength=0.0), batch, level=level)
    _, plain = state_and_step(fairgrad(alpha=2.0), batch, level=level)
    assert relative_difference(plain(before, batch)[0].params, step(before, batch)[0].params) < 1e-6


@pytest.mark.parametrize("level", ["parameters", "features"])
def test_eight_devices_equal_one(level):
    batch = batch_of(3, size=16)
    before, step = state_and_step(consmtl(limit=0.5), batch, level=level)
    expected, _ = step(before, batch)
    placement = parallel.place(16, 8)
    _, local = state_and_step(consmtl(limit=0.5), batch, level=level, axis_name="batch")
    whole, part = PartitionSpec(), PartitionSpec("batch")
    mesh = {"mesh": placement.mesh, "in_specs": (whole, part), "out_specs": (whole, whole)}
    found, _ = jax.jit(jax.shard_map(local, check_vma=False, **mesh))(before, batch)
    assert relative_difference(expected.params, found.params) <= 1e-5


def test_a_model_without_a_representation_is_refused():
    with pytest.raises(ValueError, match="needs one representation"):
        state_and_step(consmtl(), batch_of(5), Net(is_marked=False))


def test_microbatches_are_refused():
    with pytest.raises(ValueError, match="microbatches=1"):
        state_and_step(consmtl(), batch_of(5), microbatches=2)
