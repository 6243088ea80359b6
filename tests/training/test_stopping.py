"""SIGTERM: acted on at the next step, in compilation, and in evaluation."""

import gc
import os
import signal
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.cli import SMALL
from support.same_run import assert_the_same_run, lines, states

from mtljax import parallel
from mtljax.data.pipeline import BatchSampler
from mtljax.evaluation.evaluator import Evaluator
from mtljax.main import main
from mtljax.training.executors import (
    DeviceDataExecutor,
    DeviceDataProgram,
    HostDataExecutor,
    HostDataProgram,
)
from mtljax.training.pace import Pace
from mtljax.training.stopping import Interrupted, StopSignal, stop_signal

SECONDS = 0.3
"""Duration of a slow step."""


class State(dict):
    """A state with the number of the step."""

    step = property(lambda self: self["step"])


jax.tree_util.register_pytree_node(
    State, lambda x: (list(x.values()), tuple(x)), lambda keys, x: State(zip(keys, x, strict=True))
)


def slow_step(with_convolution, seconds, during):
    """A step that takes a certain time, with a convolution or without, and calls `during(step)`."""

    def wait(step):
        during(int(step))
        time.sleep(seconds)
        return np.asarray(step)

    def step(state, batch):
        number = jax.pure_callback(wait, jax.ShapeDtypeStruct((), jnp.int32), state.step)
        if with_convolution:
            ones = jnp.ones((1, 1, 2, 2))
            number += jax.lax.conv(ones, ones, (1, 1), "VALID").astype(jnp.int32).sum() - 4
        log = {"number": number + batch["x"].astype(jnp.int32)[0] * 0}
        return State(step=number + 1), log

    return step


def executor_of(kind, seconds, during=lambda step: None):
    placement = parallel.place(2, 1)
    data = {"x": np.zeros(4, np.float32)}
    step = slow_step(kind == "convolution", seconds, during)
    if kind == "host":
        batches = iter([{"x": np.zeros(2, np.float32)}] * 1000)
        return HostDataExecutor(HostDataProgram(step, placement), batches)
    program = DeviceDataProgram(step, placement.replicate(data), placement, chunk=100)
    return DeviceDataExecutor(program, [BatchSampler(seed=0, size=4, batch_size=2)])


@pytest.mark.parametrize("kind", ["loop", "convolution", "host"])
def test_a_chunk_of_slow_steps_ends_one_step_after_the_signal(kind):
    stop = StopSignal()
    executor = executor_of(kind, SECONDS, lambda step: stop.receive() if step == 4 else None)
    state, logs = executor.run(State(step=jnp.int32(0)), 0, 1, stop)  # compiles
    state, logs = executor.run(state, 1, 99, stop)
    stopped = int(state.step)
    assert 5 <= stopped <= 6
    assert logs.count == stopped - 1
    np.testing.assert_array_equal(logs.values["number"], range(1, logs.count + 1))
    state, logs = executor.run(state, stopped, 3, StopSignal())
    assert int(state.step) == stopped + 3
    assert logs.values["number"].shape == (3,)


@pytest.mark.parametrize("kind", ["loop", "convolution", "host"])
def test_a_chunk_of_fast_steps_is_completed(kind, monkeypatch):
    monkeypatch.setattr(Pace, "WORTH_STOPPING", 60.0)  # fast also on a busy machine
    executor, stop = executor_of(kind, 0.0), StopSignal()
    state, _ = executor.run(State(step=jnp.int32(0)), 0, 3, stop)
    stop.receive()
    state, logs = executor.run(state, 3, 90, stop)
    np.testing.assert_array_equal(logs.values["number"], range(3, 93))


@pytest.mark.parametrize("kind", ["loop", "convolution", "host"])
def test_the_time_of_a_chunk_ends_with_its_last_step(kind):
    executor = executor_of(kind, 0.1)
    state, _ = executor.run(State(step=jnp.int32(0)), 0, 2)
    state, first = executor.run(state, 2, 6)
    state, second = executor.run(state, 8, 6)  # before the times are asked for, as in training
    assert second.finished - first.finished > 0.45  # exact to a step


def test_no_step_is_taken_if_the_signal_came_during_compilation():
    executor, stop = executor_of("loop", 0.0), StopSignal()
    stop.receive()
    with pytest.raises(Interrupted):
        executor.run(State(step=jnp.int32(0)), 0, 3, stop)


def test_a_block_is_interrupted_at_once_and_only_inside():
    with stop_signal() as stop:
        with pytest.raises(Interrupted), stop.interruptible():
            os.kill(os.getpid(), signal.SIGTERM)
        assert stop.is_received()
        os.kill(os.getpid(), signal.SIGTERM)  # outside: recorded
        with pytest.raises(Interrupted), stop.interruptible():
            pass


class Finalized:
    """Object that calls a function in its finalizer."""

    def __init__(self, function):
        self.function = function

    def __del__(self):
        self.function()


@pytest.mark.parametrize("place", ["callback", "finalizer"])
def test_a_signal_where_python_ignores_exceptions_interrupts_afterwards(place):
    handled = []

    def send(*_):
        if not handled:
            os.kill(os.getpid(), signal.SIGTERM)
            handled.append(place)  # not reached if the handler has raised

    def send_and_wait():
        if place == "callback":
            gc.callbacks.append(send)
            gc.collect()
            gc.callbacks.remove(send)
        else:
            Finalized(send)
        time.sleep(60)

    with stop_signal() as stop, pytest.raises(Interrupted), stop.interruptible():
        send_and_wait()
    assert handled == [place]


def test_a_signal_before_the_inner_context_is_recorded_in_it():
    with stop_signal() as outer:
        os.kill(os.getpid(), signal.SIGTERM)
        with stop_signal() as inner:
            assert inner is outer
            assert inner.is_received()
    with stop_signal() as later:
        assert not later.is_received()


@pytest.fixture(scope="module")
def flags():
    return [*SMALL, "--steps", "8", "--log-every", "2", "--eval-every", "4", "--quiet"]


@pytest.fixture(scope="module")
def undisturbed(flags, tmp_path_factory):
    folder = tmp_path_factory.mktemp("stopping") / "undisturbed"
    assert main([*flags, "--workdir", str(folder)]) == 0
    return folder


@pytest.mark.parametrize("steps", [(4,), (8,), (4, 8)])
def test_an_evaluation_is_interrupted_and_made_up_for(
    steps, flags, undisturbed, tmp_path, monkeypatch, capsys
):
    metrics, pending = Evaluator.metrics, list(steps)

    def metrics_after_signal(self, state):
        if int(state.step) in pending:
            pending.remove(int(state.step))
            os.kill(os.getpid(), signal.SIGTERM)
            raise AssertionError("the evaluation goes on")
        return metrics(self, state)

    monkeypatch.setattr(Evaluator, "metrics", metrics_after_signal)
    command = [*flags, "--workdir", str(tmp_path)]
    for step in steps:
        assert main(command) == 128 + signal.SIGTERM
        assert f"stopped at step {step} and saved" in capsys.readouterr().err
        assert max(states(tmp_path)) == step
        assert step not in [line["step"] for line in lines(tmp_path) if "score" in line]
    assert main(command) == 0
    assert_the_same_run(tmp_path, undisturbed)


def test_the_evaluation_of_the_best_checkpoint_is_interrupted(
    flags, undisturbed, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr("mtljax.training.run.environment", lambda: os.kill(os.getpid(), 15))
    command = [*flags, "--workdir", str(tmp_path)]
    assert main(command) == 128 + signal.SIGTERM
    assert "stopped at step 8 and saved" in capsys.readouterr().err
    assert not (tmp_path / "result.json").exists()
    monkeypatch.undo()
    assert main(command) == 0
    assert_the_same_run(tmp_path, undisturbed)


def test_a_run_that_is_stopped_before_its_first_step_starts_again(
    flags, undisturbed, tmp_path, monkeypatch, capsys
):
    compile_step = DeviceDataProgram._compile

    def compile_after_signal(self, *arguments):
        os.kill(os.getpid(), signal.SIGTERM)
        compile_step(self, *arguments)

    monkeypatch.setattr(DeviceDataProgram, "_compile", compile_after_signal)
    command = [*flags, "--workdir", str(tmp_path)]
    assert main(command) == 128 + signal.SIGTERM
    assert "stopped before the first step" in capsys.readouterr().err
    monkeypatch.undo()
    assert main(command) == 0
    assert_the_same_run(tmp_path, undisturbed)
