"""End of the process after a signal: no destructors, below which XLA may still compile."""

import os
import sys

import pytest
from support.cli import ROOT, run

ORDINARY = """
import atexit, sys, threading, time
from mtljax.main import leave
atexit.register(print, "destructors")
threading.Thread(target=lambda: (time.sleep(0.1), print("thread"))).start()
leave(int(sys.argv[1]))
"""

COMPILING = """
import os, signal, threading, time
import jax, jax.numpy as jnp
from mtljax.main import leave
from mtljax.training.stopping import Interrupted, stop_signal

def slow(x):
    for i in range(60):
        x = jnp.tanh(x @ x + i) * jnp.exp(-x) + jnp.sort(x, axis=0)
    return x

lowered = jax.jit(slow).lower(jnp.ones((32, 32)))
timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGTERM))
try:
    with stop_signal() as stop, stop.interruptible():
        timer.start()
        lowered.compile()
        time.sleep(60)  # if it was faster than the timer
except Interrupted:
    print("interrupted")
leave(143)
"""


def python(script, *arguments):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}
    done = run([sys.executable, "-c", script, *arguments], env=environment)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(
    ("arguments", "ends"),
    [
        (("0",), "destructors\n"),
        (("1",), "destructors\n"),
        (("143",), ""),
        (("130",), ""),
        (("143", "--coordinator", "host:1"), "destructors\n"),
    ],
)
def test_threads_are_awaited_and_destructors_run_unless_a_signal_came(arguments, ends):
    assert python(ORDINARY, *arguments) == (int(arguments[0]), f"thread\n{ends}", "")


@pytest.mark.full
def test_signal_during_a_compilation_ends_the_process_without_a_crash():
    assert python(COMPILING) == (143, "interrupted\n", "")
