"""Every combinator around every balancer in a train step, on one device and on 8."""

import functools

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec
from support import problem
from support.combinators import FORMS, IDENTITIES, REFUSED
from support.problem import make, make_batch, relative_difference
from support.tiers import slow_except

from mtljax import parallel
from mtljax.balancing import (
    BALANCERS,
    auto_lambda,
    cagrad,
    chain,
    every,
    famo,
    grouped,
    mgda,
    nash_mtl,
    normalized,
    pcgrad,
    preferred,
    upgrad,
    uw,
)

STEPS = 7
P = (2.0, 1.0, 1.0)
README = {
    ("chain", "cagrad"),
    ("preferred", "upgrad"),
    ("normalized", "pcgrad"),
    ("every", "nash_mtl"),
    ("grouped", "mgda"),
}
CALM = {**problem.CALM, "gradnorm": {"learning_rate": 1e-5}}
"""GradNorm takes the sign of differences that are all 0 in the first step on normalized
gradients."""
PAIRS = [(form, name) for form in FORMS for name in sorted(set(BALANCERS) - REFUSED[form])]


def calm(name):
    return problem.calm(name, CALM)


def run(state, step, steps=range(STEPS)):
    for i in steps:
        state, logs = step(state, make_batch(i))
        jax.block_until_ready(state)
        assert int(logs["skipped"]) == 0
    return jax.device_get(state.replace(key=jax.random.key_data(state.key)))


@pytest.mark.parametrize(("form", "name"), slow_except(README, PAIRS))
def test_a_pair_compiles_once_resumes_and_equals_one_device_on_eight(form, name):
    balancer = FORMS[form](calm(name))
    state, step = make(balancer)
    step_of_one = jax.jit(step)
    half, rest = range(STEPS // 2), range(STEPS // 2, STEPS)
    middle = run(state, step_of_one, half)
    expected = run(state, step_of_one)
    restored = middle.replace(key=jax.random.wrap_key_data(middle.key))
    resumed = run(jax.tree.map(jax.numpy.asarray, restored), step_of_one, rest)
    assert step_of_one._cache_size() == 1
    jax.tree.map(np.testing.assert_array_equal, resumed, expected)

    placement = parallel.place(48, 8)
    sharded = jax.jit(step, out_shardings=placement.replicated)
    found = run(
        placement.replicate(state), lambda state, batch: sharded(state, placement.shard(batch))
    )
    assert relative_difference(expected.params, found.params) <= 1e-5


@pytest.mark.parametrize("form", sorted(IDENTITIES))
@pytest.mark.parametrize(
    "name",
    [
        "cagrad",
        *(pytest.param(n, marks=pytest.mark.slow) for n in sorted(BALANCERS) if n != "cagrad"),
    ],
)
def test_identity_settings_change_no_bit_of_a_step(form, name):
    if name in REFUSED[form]:
        pytest.skip("refused; see tests/balancing")
    plain = calm(name)
    expected = trained(plain)
    found = run(*jitted(IDENTITIES[form](plain))).params
    jax.tree.map(np.testing.assert_array_equal, found, expected)


@functools.lru_cache(maxsize=1)
def trained(balancer):
    return run(*jitted(balancer)).params


def jitted(balancer):
    state, step = make(balancer)
    return state, jax.jit(step)


COMPOSED = {
    "weighted, preferred and rare": lambda: every(chain(uw(), preferred(upgrad(), P)), 2),
    "rare at the end of a chain": lambda: chain(uw(), every(normalized(pcgrad()), 2)),
    "preferred groups": lambda: preferred(grouped(normalized(mgda())), P),
    "samples in a chain": lambda: every(chain(auto_lambda(), cagrad(c=0.4)), 3),
    "samples before a second that learns from the effect": lambda: chain(auto_lambda(), famo()),
    "preferred and rare": lambda: preferred(every(nash_mtl(), 2), P),
}


@pytest.mark.parametrize("name", sorted(COMPOSED))
def test_combinators_compose(name):
    state, step = jitted(COMPOSED[name]())
    first, _ = step(state, make_batch(0))
    last = run(state, step)
    assert step._cache_size() == 1
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(last.params))
    assert relative_difference(first.params, last.params) > 1e-3


@pytest.mark.parametrize("way", ["pmap", "shard_map"])
def test_every_rests_under_a_mapped_axis(way):
    balancer = every(nash_mtl(), 3)
    expected = run(*jitted(balancer)).params
    state, step = make(balancer, axis_name="batch")
    whole, part = PartitionSpec(), PartitionSpec("batch")
    if way == "pmap":
        mapped = jax.pmap(step, axis_name="batch")
        state = jax.tree.map(lambda x: jax.numpy.stack([x] * 8), state)
        for i in range(STEPS):
            shards = jax.tree.map(lambda x: x.reshape(8, 6, *x.shape[1:]), make_batch(i))
            state, _ = mapped(state, shards)
        found = jax.tree.map(lambda x: x[0], state.params)
    else:
        mapped = jax.shard_map(
            step,
            mesh=parallel.place(48, 8).mesh,
            in_specs=(whole, part),
            out_specs=(whole, whole),
            check_vma=False,
        )
        found = run(state, jax.jit(mapped)).params
    assert relative_difference(expected, jax.device_get(found)) <= 1e-5


def conditions_on_solvers(jaxpr):
    """Conditions of which one branch has a loop, as the solver of Nash-MTL is."""
    return [
        equation
        for equation in jaxpr.eqns
        if equation.primitive.name == "cond" and "while[" in str(equation.params["branches"])
    ]


def test_every_rests_under_a_vmap_of_seeds():
    """The condition stays one, and each seed gets the result that it has alone."""
    balancer = every(nash_mtl(), 3)
    states, step = [], None
    for seed in range(2):
        state, step = make(balancer, seed=seed)
        states.append(state)
    stacked = jax.tree.map(lambda *x: jax.numpy.stack(x), *states)
    of_seeds = jax.vmap(step, in_axes=(0, None))
    assert len(conditions_on_solvers(jax.make_jaxpr(of_seeds)(stacked, make_batch(0)))) == 1
    together = run(stacked, jax.jit(lambda s, b: (of_seeds(s, b)[0], {"skipped": 0}))).params
    for seed, state in enumerate(states):
        alone = run(state, jax.jit(step)).params
        of_seed = jax.tree.map(lambda x, seed=seed: x[seed], together)
        assert relative_difference(alone, of_seed) <= 1e-5


def test_weights_of_every_change_at_its_period_only():
    state, step = jitted(every(nash_mtl(), 3))
    weights = []
    for i in range(STEPS):
        state, logs = step(state, make_batch(i, missing=0.0))
        weights.append([float(x) for x in logs["weight"].values()])
    same = [a == b for a, b in zip(weights, weights[1:], strict=False)]
    assert same == [True, True, False, True, True, False]
