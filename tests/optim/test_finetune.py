"""Fine-tuning: what does not learn, and how fast the rest does."""

import dataclasses
import json
import os
import signal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from support.cli import TRAINED
from support.problem import (
    OPTIMIZER,
    TASKS,
    make_balancer,
    make_batch,
    make_model,
    relative_difference,
)

from mtljax.balancing.base import Balancer, Needs
from mtljax.config import read_config, to_json
from mtljax.main import main
from mtljax.models import partition
from mtljax.models.freezing import split_frozen
from mtljax.models.partition import join
from mtljax.runs.checkpoints import Checkpoints
from mtljax.step.state import create_state
from mtljax.step.train_step import make_train_step
from mtljax.training.programs import Programs
from mtljax.training.recorder import Recorder
from mtljax.training.run import count_parameters
from mtljax.training.setup import set_up

WIDTHS = (16, 12, 8)
ADAM = optax.adamw(1e-2, weight_decay=0.1)


def make(balancer="ew", *, model=None, optimizer=ADAM, ema=False, level="parameters", **step):
    """(fresh state, train step) of a trunk of three stages."""
    model = model or make_model(widths=WIDTHS)
    balancer = make_balancer(balancer) if isinstance(balancer, str) else balancer
    freeze = step.get("freeze", ())
    parts = model, TASKS, balancer, optimizer
    state = create_state(
        jax.random.key(0), *parts, make_batch(0), level=level, ema=ema, freeze=freeze
    )
    return state, make_train_step(*parts, level=level, **step)


def sum_of_losses(model, state, batch, params, train=True):
    outputs = model.apply({"params": params, **state.model_state}, batch["image"], train=train)
    total = jnp.zeros(())
    for task in TASKS:
        label, present = batch["labels"][task.name], batch["present"][task.name]
        total += jnp.divide(*task.loss(outputs[task.name], label, present))
    return total


@pytest.mark.parametrize(
    "freeze",
    [
        pytest.param(("trunk",), marks=pytest.mark.full),
        ("trunk_1", "task_value", "trunk_0/Norm_0"),
    ],
)
def test_frozen_parameters_stay_and_the_others_move_as_optax_moves_them(freeze):
    model = make_model(widths=WIDTHS)
    state, step = make(model=model, freeze=freeze)
    start, step = state.params, jax.jit(step)
    labels = join(*(dict.fromkeys(part, i) for i, part in enumerate(split_frozen(start, freeze))))
    reference = optax.partition({0: ADAM, 1: optax.set_to_zero()}, labels)
    gradient = jax.jit(jax.grad(lambda p, batch: sum_of_losses(model, state, batch, p)))
    params, memory = start, reference.init(start)
    for i in range(3):
        updates, memory = reference.update(gradient(params, make_batch(i)), memory, params)
        params = optax.apply_updates(params, updates)
        state, _ = step(state, make_batch(i))
    learned, frozen = split_frozen(state.params, freeze)
    before = split_frozen(start, freeze)[1]
    assert frozen
    assert all(frozen[path].tobytes() == before[path].tobytes() for path in frozen)
    # Adam divides by the root of its second moment, which enlarges rounding where that is small.
    assert relative_difference(split_frozen(params, freeze)[0], learned) <= 1e-4
    assert sum(x.size for x in jax.tree.leaves(state.opt_state)) < 2 * sum(
        x.size for x in jax.tree.leaves(start)
    )


@pytest.mark.parametrize("level", ["parameters", "features"])
def test_the_balancer_sees_only_shared_parameters_that_learn(level):
    seen = {}

    def init(num_tasks, shared):
        del num_tasks
        seen["init"] = jax.tree.map(jnp.shape, shared)
        return ()

    def combine(signals, state, key):
        del key
        seen["combine"] = jax.tree.map(lambda x: x.shape[1:], signals.jacobian)
        return jax.tree.map(lambda x: x.sum(0), signals.jacobian), state

    spy = Balancer(init=init, combine=combine, needs=Needs.JACOBIAN)
    state, step = make(spy, freeze=("trunk_0", "trunk_1"), level=level)
    jax.eval_shape(step, state, make_batch(0))
    shared = partition(state.params)[0]
    if level == "parameters":
        wanted = {path: x.shape for path, x in shared.items() if "trunk_2" in path}
        assert seen["init"] == seen["combine"] == wanted
    else:
        assert seen["init"] == seen["combine"]
        assert jax.tree.leaves(seen["init"], is_leaf=lambda x: isinstance(x, tuple))


def test_what_is_frozen_is_counted_and_what_only_distillation_uses_is_not():
    state, _ = make()
    plain = count_parameters(state)
    adapters = {"task_digit": {"kernel": jnp.ones((3, 3))}}
    state = state.replace(params={**state.params, "adapters": adapters})
    assert count_parameters(state) == plain
    frozen = sum(x.size for x in split_frozen(state.params, ["trunk"])[1].values())
    assert count_parameters(state, ["trunk"]) == dataclasses.replace(plain, frozen=frozen)


def test_no_pass_goes_back_through_frozen_stages():
    def products(freeze):
        state, step = make(freeze=freeze)
        return str(jax.make_jaxpr(step)(state, make_batch(0))).count("dot_general")

    # Of the two lower layers: a gradient of each kernel, and one of what each layer above reads.
    assert products(()) - products(("trunk_0", "trunk_1")) == 4


@pytest.mark.full
def test_freezing_goes_with_devices_microbatches_averages_and_statistics():
    model = make_model("cnn", widths=(8, 8), blocks=1, norm="batch")
    frozen = ("trunk_0", "task_value")
    options = {"freeze": frozen, "freeze_statistics": True, "ema_decay": 0.9}
    options |= {"model": model, "optimizer": OPTIMIZER, "ema": True}
    state, step = make("pcgrad", **options)
    state = state.replace(model_state=jax.tree.map(lambda x: x + 0.1, state.model_state))
    batch = make_batch(0)
    one, logs = jax.jit(step)(state, batch)
    _, split = make("pcgrad", microbatches=2, axis_name="batch", **options)
    mesh = jax.make_mesh((4,), ("batch",), axis_types=(jax.sharding.AxisType.Auto,))
    spread, whole = jax.P("batch"), jax.P()
    mapped = jax.shard_map(
        split, mesh=mesh, in_specs=(whole, spread), out_specs=whole, check_vma=False
    )
    several, _ = jax.jit(mapped)(state, batch)
    assert relative_difference((one.params, one.ema), (several.params, several.ema)) <= 1e-5
    before = split_frozen(state.params, frozen)[1]
    for tree in (one.params, one.ema, several.params, several.ema):
        after = split_frozen(tree, frozen)[1]
        assert all(after[path].tobytes() == before[path].tobytes() for path in before)
    for after in (one, several):
        jax.tree.map(np.testing.assert_array_equal, after.model_state, state.model_state)
    # And the losses are those of evaluation.
    total = sum(float(x) for x in logs["loss"].values())
    expected = float(sum_of_losses(model, state, batch, state.params, train=False))
    assert total == pytest.approx(expected, rel=1e-5)


def test_what_leaves_nothing_to_balance_is_refused():
    with pytest.raises(ValueError, match="leaves no shared parameter.*use balancer ew"):
        make("pcgrad", freeze=("trunk",))
    with pytest.raises(ValueError, match="unknown module 'trunk_7'"):
        make(freeze=("trunk_7",))


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (
            ("--freeze", "trunc"),
            "freeze: unknown module 'trunc'; did you mean 'trunk'?",
        ),
        (("--freeze", "trunk", "--balancer", "pcgrad"), "no shared parameter"),
        (("--layer-decay", "0"), "layer_decay must be in (0, 1], not 0.0"),
        (("--freeze", "trunk", "--unfreeze-every", "9"), "need trainable parameters in the stages"),
        (("--l2-sp", "0.1"), "l2_sp needs init, the weights to pull towards; set init"),
    ],
)
def test_mistakes_are_told_in_one_line(flags, reason, tmp_path, capsys):
    assert main([*TRAINED, *flags, "--workdir", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err
    assert reason in error
    assert error.count("\n") == 1
    assert not (tmp_path / "run").exists()


def everything(run):
    """An experiment with all that there is for fine-tuning, at once."""
    return dataclasses.replace(
        read_config(run / "config.json"),
        freeze=("trunk_0/Norm_0",),
        layer_decay=0.5,
        unfreeze_every=3,
        init=str(run),
        l2_sp=0.1,
        ema=0.9,
        teachers={"digit": str(run), "value": str(run)},
        distill="features",
        telemetry_every=0,
    )


@pytest.mark.full
def test_everything_together_goes_on_from_a_checkpoint_bit_for_bit(trained_run, tmp_path):
    programs = Programs(set_up(everything(trained_run), devices=1))
    runner = programs.executor([0], 0)
    state, _ = runner.run(programs.create(0), 0, 4)
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(state, 0.0)
    checkpoints.wait()
    saved = checkpoints.read(4)
    assert not any(name.startswith("teachers") for name in saved)
    assert any("adapters" in name for name in saved)
    undisturbed, _ = runner.run(state, 4, 3)
    again, _ = runner.run(checkpoints.restore(4, programs.restore_template()), 4, 3)
    checkpoints.close()
    leaves = [jax.tree.leaves(x.replace(key=())) for x in (undisturbed, again)]
    assert all(a.tobytes() == b.tobytes() for a, b in zip(*leaves, strict=True))


@pytest.mark.slow
def test_a_run_with_everything_that_is_stopped_ends_like_one_that_is_not(
    trained_run, tmp_path, monkeypatch
):
    config = tmp_path / "config.json"
    config.write_text(json.dumps(to_json(everything(trained_run))))
    flags = ["--experiment", str(config), "--quiet"]
    assert main([*flags, "--workdir", str(tmp_path / "undisturbed")]) == 0
    add = Recorder.add

    def add_and_be_stopped(self, step, *rest):
        if step == 4:
            os.kill(os.getpid(), signal.SIGTERM)
        add(self, step, *rest)

    monkeypatch.setattr(Recorder, "add", add_and_be_stopped)
    assert main([*flags, "--workdir", str(tmp_path / "stopped")]) == 128 + signal.SIGTERM
    monkeypatch.undo()
    assert main([*flags, "--workdir", str(tmp_path / "stopped")]) == 0
    saved = []
    for name in ("undisturbed", "stopped"):
        checkpoints = Checkpoints(tmp_path / name, read_only=True)
        saved.append(checkpoints.read(7))
        checkpoints.close()
    one, other = saved
    assert one.keys() == other.keys()
    assert all(leaf.tobytes() == other[name].tobytes() for name, leaf in one.items())


@pytest.mark.slow
def test_seeds_are_fine_tuned_side_by_side(trained_run):
    # Plain descent: Adam would turn a gradient that is 0 but for rounding into a whole step.
    programs = Programs(
        set_up(dataclasses.replace(everything(trained_run), optimizer="sgd"), devices=1)
    )
    states = programs.stack([programs.create(seed) for seed in (0, 7)])
    together, _ = programs.executor([0, 7], 0).run(states, 0, 5)
    for seed, ours in zip((0, 7), programs.unstack(together), strict=True):
        alone, _ = programs.executor([seed], 0).run(programs.create(seed), 0, 5)
        for a, b in zip(jax.tree.leaves(ours.params), jax.tree.leaves(alone.params), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
