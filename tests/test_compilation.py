"""Compiler options: accepted by the installed jaxlib, silent where they do not apply."""

import os
import signal
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mtljax
from mtljax import compilation


@pytest.mark.parametrize("use", ["train", "once"])
def test_options_are_accepted_by_the_installed_jaxlib_and_change_no_result(use):
    kernel = jax.random.normal(jax.random.key(0), (3, 3, 2, 4))
    image = jax.random.normal(jax.random.key(1), (2, 8, 8, 2))

    def loss(kernel):
        dimensions = ("NHWC", "HWIO", "NHWC")
        out = jax.lax.conv_general_dilated(
            image, kernel, (1, 1), "SAME", dimension_numbers=dimensions
        )
        return (out**2).sum()

    plain = jax.jit(jax.grad(loss))(kernel)
    tuned = jax.jit(jax.grad(loss), compiler_options=mtljax.compiler_options(use=use))(kernel)
    np.testing.assert_allclose(tuned, plain, rtol=1e-5, atol=1e-4)


def test_backends_that_are_missing_have_no_options():
    assert mtljax.compiler_options("gpu") == mtljax.compiler_options("tpu") == {}


@pytest.mark.parametrize(("devices", "options"), [(1, {}), (2, {"of_several": True})])
def test_communication_is_overlapped_where_there_are_several_devices(monkeypatch, devices, options):
    monkeypatch.setattr(compilation, "OPTIONS_OF_SEVERAL", {"gpu": {"of_several": True}})
    monkeypatch.setattr(compilation, "_device_count", lambda backend: devices)
    monkeypatch.setattr(compilation, "_is_known", lambda *option: True)
    assert mtljax.compiler_options("gpu") == options


def test_options_that_xla_flags_set_are_left_to_the_user(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", f"--{compilation.YNN_FUSION}=-individual_convolution")
    assert compilation.YNN_FUSION not in mtljax.compiler_options("cpu")


def test_an_option_that_jaxlib_does_not_know_is_left_out(monkeypatch):
    monkeypatch.setitem(compilation.OPTIONS["cpu"]["train"], "xla_cpu_no_such_option", 1)
    options = mtljax.compiler_options("cpu")
    assert "xla_cpu_no_such_option" not in options
    assert jax.jit(lambda x: x + 1, compiler_options=options)(jnp.float32(1)) == 2


def test_a_function_compiled_ahead_is_traced_once_and_gives_its_result():
    threads = []

    def total(tree):
        threads.append(threading.current_thread())
        return tree["a"].sum() + tree["b"]

    ahead = compilation.AheadOfTime(jax.jit(total, compiler_options=mtljax.compiler_options()))
    arguments = {"a": jnp.arange(3.0), "b": jnp.float32(4)}
    ahead.compile_ahead(arguments)
    assert ahead(arguments) == 7
    assert len(threads) == 1
    assert threads[0] is not threading.current_thread()


def test_arrays_may_be_donated_while_a_function_is_compiled_ahead():
    started = threading.Event()

    def double(x):
        started.wait()
        return 2 * x

    ahead = compilation.AheadOfTime(jax.jit(double))
    array = jnp.arange(3.0)
    ahead.compile_ahead(array)
    array.delete()
    started.set()
    assert ahead(jnp.ones(3)).tolist() == [2, 2, 2]


def test_an_error_of_a_function_compiled_ahead_is_raised_by_its_call():
    def fail(x):
        raise ValueError("wrong shape")

    ahead = compilation.AheadOfTime(jax.jit(fail))
    ahead.compile_ahead(jnp.ones(3))
    with pytest.raises(ValueError, match="wrong shape"):
        ahead(jnp.ones(3))


class Slow:
    """Function whose compilation ends when it is told to."""

    def __init__(self):
        self.end = threading.Event()

    def lower(self, x):
        return self

    def compile(self):
        self.end.wait(30)


def test_the_process_waits_for_a_compilation_whose_call_was_interrupted():
    """Python must still know its thread: otherwise the end of the process can crash in LLVM."""
    # A job in the background of a shell ignores SIGINT.
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    slow, before = Slow(), set(threading.enumerate())
    ahead = compilation.AheadOfTime(slow)
    ahead.compile_ahead(jnp.ones(3))
    (thread,) = set(threading.enumerate()) - before
    timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            ahead(jnp.ones(3))
        assert thread.is_alive()
    finally:
        slow.end.set()
        signal.signal(signal.SIGINT, previous)
    thread.join(30)
    assert not thread.is_alive()
