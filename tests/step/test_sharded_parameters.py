"""A step with sharded parameters equals the step with replicated ones, for every balancer.

Rows of the Jacobian stay where they are computed: what is gathered are parameters.
"""

import re

import jax
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec
from support.models import SMALL_FUSIONS, SMALL_TRUNKS
from support.problem import TASKS, calm, make_balancer, make_batch, relative_difference
from support.tiers import full_except

from mtljax import parallel
from mtljax.balancing import BALANCERS
from mtljax.models import FUSIONS, TRUNKS, build
from mtljax.step.state import TrainState, create_state
from mtljax.step.task_gradients import rows_per_pullback
from mtljax.step.train_step import make_train_step

DEVICES, STEPS = 8, 20
KEEP = optax.trace(decay=0.0)
DESCENT = optax.chain(KEEP, optax.scale(-0.05), KEEP)
"""Gradient descent whose state is the last gradient and the last update."""
README = (("pcgrad", "parameters"), ("graddrop", "parameters"))
FULL = (
    *(("ew", "parameters"), ("mgda", "features"), ("moco", "parameters"), ("famo", "parameters")),
    *(("modo", "parameters"), ("excess_mtl", "parameters"), ("graddrop", "features")),
)


def cases():
    for name in BALANCERS:
        for level in ("parameters", "features"):
            if level == "features" and make_balancer(name).parameters_only:
                continue
            marks = [] if (name, level) in (*README, *FULL) else [pytest.mark.slow]
            marks += [pytest.mark.full] if (name, level) in FULL else []
            yield pytest.param(name, level, marks=marks)


class Program:
    """A train step on 8 devices, with the parameters in a sharding."""

    def __init__(self, balancer, sharding, *, model=None, batch=None, level="parameters", **step):
        model = model or build(TRUNKS["mlp"](widths=(16,)), FUSIONS["none"], TASKS, std=0.8)
        self.batch = batch or make_batch
        self.placement = place = parallel.place(48, DEVICES, sharding)
        parts = model, TASKS, balancer, DESCENT
        state = create_state(jax.random.key(0), *parts, self.batch(0), level=level)
        self.state = jax.device_put(state, place.of_state(state))
        step = make_train_step(*parts, level=level, constraints=place.constraints, **step)
        jitted = jax.jit(step, out_shardings=(place.of_state(state), place.replicated))
        self.compiled = jitted.lower(self.state, place.shard(self.batch(0))).compile()

    def run(self, steps):
        state = self.state
        for i in range(steps):
            state, logs = self.compiled(state, self.placement.shard(self.batch(i)))
            jax.block_until_ready(state)  # see Placement.sync_on_virtual_cpus
        return jax.device_get((state, logs))

    def gathered(self):
        """Shapes of the results of all-gathers, without axes of length 1, in any order."""
        found = re.findall(r"= (.*?) all-gather(?:-start)?\(", self.compiled.as_text())
        shapes = [dims for text in found for dims in re.findall(r"\w+\[([\d,]*)\]", text)]
        return {
            tuple(sorted(int(n) for n in dims.split(",") if n not in ("", "1"))) for dims in shapes
        }


def assert_equal(one, other, *, steps=STEPS):
    """One step to 1e-5: losses, weights, gradient and update; more of them to 1e-4."""
    (first, logs), (second, other_logs) = one.run(1), other.run(1)
    assert relative_difference(logs, other_logs) <= 1e-5
    assert relative_difference(first.opt_state, second.opt_state) <= 1e-5
    assert relative_difference(first.params, second.params) <= 1e-5
    numbers = lambda state: jax.tree.map(np.float64, state.balancer_state)  # some are booleans
    if jax.tree.leaves(first.balancer_state):
        assert relative_difference(numbers(first), numbers(second)) <= 1e-5
    found, expected = other.run(steps)[0].params, one.run(steps)[0].params
    assert relative_difference(expected, found) <= 1e-4


def parameter_shapes(program):
    return {
        tuple(sorted(n for n in leaf.shape if n > 1))
        for leaf in jax.tree.leaves(program.state.params)
    }


@pytest.mark.parametrize(("name", "level"), list(cases()))
def test_fsdp_equals_replicated(name, level):
    balancer = calm(name)
    replicated = Program(balancer, "replicated", level=level)
    sharded = Program(balancer, "fsdp:min_size=1", level=level)
    kernel = sharded.state.params["fusion"]["trunk_0"]["Dense_0"]["kernel"]
    assert kernel.addressable_shards[0].data.size == kernel.size / DEVICES
    assert_equal(replicated, sharded)
    if level == "parameters":
        assert sharded.gathered() <= parameter_shapes(sharded)


def image_batch(seed):
    """The labels of `make_batch`, with images of 16 x 16 pixels."""
    image = np.random.default_rng(seed).normal(size=(48, 16, 16, 3)).astype(np.float32)
    return {**make_batch(seed), "image": image}


MODELS = (
    ("cnn", "none"),
    ("vit_ti", "none"),
    ("resnet50", "none"),
    ("mlp", "attention"),
    ("mlp", "mmoe"),
    ("cnn", "cross_stitch"),
    ("cnn", "mtan"),
    ("vit_ti", "task_prompt"),
)


@pytest.mark.parametrize(("trunk", "fusion"), full_except([], MODELS))
def test_trunks_and_fusions(trunk, fusion):
    stages = TRUNKS[trunk](**SMALL_TRUNKS[trunk])
    model = build(stages, FUSIONS[fusion], TASKS, **SMALL_FUSIONS.get(fusion, {}))
    programs = [
        Program(make_balancer("cagrad"), sharding, model=model, batch=image_batch)
        for sharding in ("replicated", "fsdp:min_size=1")
    ]
    # Batch normalization and ReLU amplify rounding from step to step.
    assert_equal(*programs, steps=1)
    if fusion == "none":
        assert programs[1].gathered() <= parameter_shapes(programs[1])


def small_vit():
    stages = TRUNKS["vit_ti"](width=16, heads=2, depth=2, stages=1, patch=4, image_size=16)
    return build(stages, FUSIONS["none"], TASKS)


@pytest.mark.full
def test_tensor_parallelism_equals_replicated_and_divides_the_work():
    options = {"model": small_vit(), "batch": image_batch}
    replicated, fsdp, tensor = (
        Program(make_balancer("pcgrad"), sharding, **options)
        for sharding in ("replicated", "fsdp:min_size=1", "fsdp_tensor:model=2,min_size=1")
    )
    block = tensor.state.params["fusion"]["trunk_0"]["block_0"]
    assert block["Dense_0"]["kernel"].sharding.spec == PartitionSpec("batch", "model")
    assert block["attention"]["out"]["kernel"].sharding.spec == PartitionSpec("model", "batch")
    assert block["attention"]["qkv"]["kernel"].sharding.spec == PartitionSpec(
        None, ("batch", "model")
    )
    assert_equal(replicated, tensor)
    # Each device has twice as many examples; without a division, it would do twice the work.
    flops = lambda program: program.compiled.cost_analysis()["flops"]
    assert flops(tensor) < 1.5 * flops(fsdp)


def test_what_a_sharding_cannot_do_is_one_line():
    with pytest.raises(ValueError, match=r"fsdp: min_size must be >= 1, not 0"):
        parallel.place(48, 8, "fsdp:min_size=0")
    with pytest.raises(ValueError, match=r"model=3 does not divide the 8 devices; choose a div"):
        parallel.place(48, 8, "fsdp_tensor:model=3")
    with pytest.raises(ValueError, match=r"cannot be sharded evenly over 4 groups of devices"):
        parallel.place(6, 8, "fsdp_tensor:model=2")
    with pytest.raises(ValueError, match=r"unknown sharding 'fdsp'; did you mean 'fsdp'"):
        parallel.place(48, 8, "fdsp")
    place = parallel.place(48, 8, "fsdp_tensor:model=2")
    params = {"trunk": {"kernel": np.zeros((16, 16))}}
    with pytest.raises(ValueError, match=r"no block of a vision transformer .* use fsdp"):
        place.of_state(TrainState(None, params, *[None] * 7))


def test_on_one_device_nothing_is_sharded():
    place = parallel.place(48, 1, "fsdp:min_size=1")
    assert place.is_replicated
    assert place.constraints == parallel.Constraints()


def test_several_accelerators_compute_one_row_at_a_time(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    rows = [rows_per_pullback(3, "parameters", devices) for devices in (1, 8)]
    assert rows == [3, 1]
