"""SAMO: gradients at perturbed parameters, against float64 from the definition."""

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec
from support.balancing_references import REFERENCES
from support.float64_net import (
    NAMES,
    Losses,
    batch_of,
    flat,
    in_float64,
    moved,
    plus,
    state_and_step,
)
from support.problem import make, make_batch, make_model, relative_difference

from mtljax import parallel
from mtljax.balancing import BALANCERS, chain, every, ew, fixed, nash_mtl, pcgrad, samo
from mtljax.models.partition import partition
from mtljax.step import perturbed
from mtljax.step.balanced_gradient import PERTURBATION_KEY
from mtljax.step.state import step_keys


def random_direction(key, shared):
    """Standard normal numbers with a key for each array, in the order of their paths."""
    keys = jax.random.split(key, len(shared))
    pairs = zip(keys, sorted(shared.items()), strict=True)
    return {path: jax.random.normal(key, leaf.shape) for key, (path, leaf) in pairs}


def noise_of(state):
    """Random directions [V, W] of each task: those of the step."""
    key = jax.random.fold_in(step_keys(state).balancer, PERTURBATION_KEY)
    for task_key in jax.random.split(key, len(NAMES)):
        noise = random_direction(task_key, partition(state.params)[0])
        yield [np.float64(noise[name + "/kernel"]) for name in ("bottom", "trunk")]


def reference(name, state, batch, rho=0.003, beta=0.1, epsilon=0.01):
    """Gradients of the shared parameters and the heads; heads receive their own loss."""
    losses, (shared, heads) = Losses(batch), in_float64(state.params)
    tasks = range(len(NAMES))
    of_tasks = [losses.by_shared(t, shared, heads[t]) for t in tasks]
    mean = [sum(arrays) for arrays in zip(*of_tasks, strict=True)]
    unit = lambda arrays: [x / np.linalg.norm(flat(arrays)) for x in arrays]
    rows, of_heads = [], []
    for t, noise in zip(tasks, noise_of(state), strict=True):
        rise = [losses.loss(t, plus(shared, s * epsilon, noise), heads[t]) for s in (1, -1)]
        sizes = [np.linalg.norm(g) / np.linalg.norm(z) for g, z in zip(mean, noise, strict=True)]
        local = [size * z for size, z in zip(sizes, noise, strict=True)]
        ascent = plus([(1 - beta) * g for g in mean], beta * np.sign(rise[0] - rise[1]), local)
        ahead = plus(shared, rho, unit(ascent))
        head = plus(heads[t], rho, unit(losses.by_head(t, shared, heads[t])))
        rows.append(flat(losses.by_shared(t, ahead, head)))
        of_heads.append(losses.by_head(t, ahead, head))
    values = np.array([losses.loss(t, shared, heads[t]) for t in tasks])
    return REFERENCES[name]()(np.stack(rows), values, step_keys(state).balancer), of_heads


CASES = [
    ("ew", {"rho": 0.05}, 8),
    ("mgda", {"rho": 0.5, "beta": 0.5, "epsilon": 0.1}, 8),
    ("pcgrad", {"rho": 0.5, "beta": 0.5, "epsilon": 0.1}, 8),
    ("trimmed_mean", {"rho": 0.5, "beta": 0.2}, 8),
    ("pcgrad", {"rho": 0.5, "beta": 0.5}, 0),
]


@pytest.mark.parametrize(("name", "arguments", "unrolled"), CASES)
def test_the_step_is_that_of_float64(name, arguments, unrolled, monkeypatch):
    monkeypatch.setattr(perturbed, "UNROLLED_TASKS", unrolled)
    balancer = samo(BALANCERS[name](), **arguments)
    batch = batch_of(1)
    state, step = state_and_step(balancer, batch)
    for _ in range(2):
        expected = reference(name, state, batch, **arguments)
        after, _ = step(state, batch)
        shared, heads = moved(state, after)
        assert relative_difference(expected, (flat(shared), heads)) <= 2e-5
        state = after


def test_the_losses_are_those_of_the_parameters():
    batch = batch_of(2)
    state, step = state_and_step(samo(ew(), rho=0.5), batch)
    _, logs = step(state, batch)
    losses, (shared, heads) = Losses(batch), in_float64(state.params)
    for t, name in enumerate(NAMES):
        assert float(logs["loss"][name]) == pytest.approx(
            losses.loss(t, shared, heads[t]), rel=1e-5
        )


def test_an_absent_task_moves_nothing():
    batch = batch_of(3)
    batch["present"]["b"] = np.zeros_like(batch["present"]["b"])
    state, step = state_and_step(samo(pcgrad(), rho=0.1), batch)
    after, _ = step(state, batch)
    _, heads = moved(state, after)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(after.params))
    assert not flat(heads[1]).any()


@pytest.mark.parametrize("way", ["jit", "shard_map"])
@pytest.mark.parametrize("name", ["famo", "pcgrad", "moco"])
def test_eight_devices_equal_one(name, way):
    balancer = samo(BALANCERS[name](), rho=0.1, beta=0.5)
    batches = [batch_of(seed, size=16) for seed in range(5)]
    start, step = state_and_step(balancer, batches[0])
    placement = parallel.place(16, 8)
    if way == "jit":
        sharded = jax.jit(step, out_shardings=placement.replicated)
        run = lambda state, batch: sharded(state, placement.shard(batch))
        other = placement.replicate(start)
    else:
        _, local = state_and_step(balancer, batches[0], axis_name="batch")
        whole, part = PartitionSpec(), PartitionSpec("batch")
        mesh = {"mesh": placement.mesh, "in_specs": (whole, part), "out_specs": (whole, whole)}
        run, other = jax.jit(jax.shard_map(local, check_vma=False, **mesh)), start
    state = start
    for batch in batches:
        state, _ = step(state, batch)
        other, _ = run(other, batch)
        jax.block_until_ready(other)
    assert relative_difference(state.params, other.params) <= 1e-5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"level": "features"}, "level='parameters'"),
        ({"microbatches": 2}, "microbatches=1"),
        ({"jacobian": "gramian"}, "jacobian='rows'"),
    ],
)
def test_what_it_cannot_do_is_refused(options, message):
    with pytest.raises(ValueError, match=message) as error:
        state_and_step(samo(pcgrad()), batch_of(4), **options)
    assert "\n" not in str(error.value)


def test_a_chain_is_perturbed_inside_and_outside_alike():
    batch, weights = batch_of(5), fixed((1.0, 2.0, 0.5))
    state, step = state_and_step(samo(chain(weights, pcgrad()), rho=0.1), batch)
    _, inner = state_and_step(chain(weights, samo(pcgrad(), rho=0.1)), batch)
    _, plain = state_and_step(chain(weights, pcgrad()), batch)
    after, _ = step(state, batch)
    assert relative_difference(after.params, inner(state, batch)[0].params) == 0
    assert relative_difference(after.params, plain(state, batch)[0].params) > 1e-3


def test_around_every_it_perturbs_all_updates_and_inside_those_that_weigh():
    batch = batch_of(6)
    start, outside = state_and_step(samo(every(nash_mtl(), 2), rho=0.1), batch)
    _, inside = state_and_step(every(samo(nash_mtl(), rho=0.1), 2), batch)
    _, plain = state_and_step(every(nash_mtl(), 2), batch)
    first, _ = outside(start, batch)
    assert relative_difference(first.params, inside(start, batch)[0].params) == 0
    second = outside(first, batch)[0].params
    rests = inside(first, batch)[0].params
    assert relative_difference(second, rests) > 1e-4
    assert relative_difference(rests, plain(first, batch)[0].params) == 0


def test_balancers_that_it_cannot_wrap_are_refused():
    auto_lambda = BALANCERS["auto_lambda"]()
    for wrap in (
        lambda: samo(samo(ew())),
        lambda: samo(auto_lambda),
        lambda: chain(samo(ew()), pcgrad()),
        lambda: chain(auto_lambda, samo(pcgrad())),
    ):
        with pytest.raises(ValueError, match="does not take") as error:
            wrap()
        assert "\n" not in str(error.value)


def test_batch_statistics_are_those_of_the_parameters():
    model = make_model("cnn", widths=(8,), norm="batch")
    states = []
    for balancer in (samo(ew(), rho=0.5), ew()):
        state, step = make(balancer, model=model)
        states.append(jax.jit(step)(state, make_batch(0))[0])
    sharp, plain = states
    assert relative_difference(plain.model_state, sharp.model_state) <= 1e-6
    assert relative_difference(plain.params, sharp.params) > 1e-4
