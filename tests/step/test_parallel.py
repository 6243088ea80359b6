"""The same step on 8 devices equals one device, in all three ways, for every balancer."""

import functools

import jax
import pytest
from jax.sharding import PartitionSpec
from support.problem import calm, make, make_balancer, make_batch, relative_difference

from mtljax import parallel
from mtljax.balancing import BALANCERS

STEPS = 20
WAYS = ("jit", "pmap", "shard_map")
LEVELS = ("parameters", "features")

LEAD = ("ew", "fixed", "uw", "dwa", "mgda", "pcgrad", "graddrop")
"""Every form of the contract: tested in all ways."""
PATHS = ("famo", "cagrad", "moco", "modo", "auto_lambda", "excess_mtl")
"""What goes another way through the step: looking back or ahead, several samples, kept gradients.
Tested in one way; these and all others in every way if slow tests are asked for."""
README = (
    ("mgda", "jit", "parameters"),
    ("graddrop", "pmap", "features"),
    ("pcgrad", "shard_map", "parameters"),
    ("famo", "jit", "parameters"),
)
"""In the README's tier; what else is not slow is in the tier `full`."""


def marks(name, way, level, turn):
    if (name, way, level) in README:
        return ()
    return pytest.mark.full if by_default(name, way, level, turn) else pytest.mark.slow


def by_default(name, way, level, turn):
    """Whether a case is run by default; losses are the same at both levels."""
    if name in LEAD:
        return level == "parameters" or name in ("mgda", "graddrop")
    return name in PATHS and level == "parameters" and WAYS[turn % 3] == way


CASES = [
    pytest.param(name, way, level, marks=marks(name, way, level, turn))
    for turn, name in enumerate(BALANCERS)
    for way in WAYS
    for level in LEVELS
]


@functools.cache
def on_one_device(name, level):
    state, step = make(calm(name), level=level)
    return run(state, jax.jit(step))


def run(state, step):
    for i in range(STEPS):
        state, _ = step(state, make_batch(i))
        jax.block_until_ready(state)  # see Placement.sync_on_virtual_cpus
    return jax.device_get(state.params)


def skip_what_is_refused(name, level):
    if level == "features" and make_balancer(name).parameters_only:
        pytest.skip("refused at this level; see test_step")


@pytest.mark.parametrize(("name", "way", "level"), CASES)
def test_eight_devices_equal_one(name, way, level):
    skip_what_is_refused(name, level)
    expected = on_one_device(name, level)
    balancer = calm(name)
    placement = parallel.place(48, 8)
    if way == "jit":
        state, step = make(balancer, level=level)
        jitted = jax.jit(step, out_shardings=placement.replicated)
        state = placement.replicate(state)
        found = run(state, lambda state, batch: jitted(state, placement.shard(batch)))
    elif way == "pmap":
        state, step = make(balancer, level=level, axis_name="i")
        mapped = jax.pmap(step, axis_name="i")
        state = jax.tree.map(lambda x: jax.numpy.stack([x] * 8), state)
        cut = lambda batch: jax.tree.map(lambda x: x.reshape(8, 6, *x.shape[1:]), batch)
        found = run(state, lambda state, batch: mapped(state, cut(batch)))
        found = jax.tree.map(lambda x: x[0], found)
    else:
        state, step = make(balancer, level=level, axis_name="batch")
        whole, part = PartitionSpec(), PartitionSpec("batch")
        mapped = jax.shard_map(
            step,
            mesh=placement.mesh,
            in_specs=(whole, part),
            out_specs=(whole, whole),
            check_vma=False,
        )
        found = run(state, jax.jit(mapped))
    assert relative_difference(expected, found) <= 1e-5
