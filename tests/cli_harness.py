"""A small experiment for tests of the command line, in this process and in others."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]

SMALL = (
    *("--experiment", "digits", "--trunk", "mlp:widths=(16,)", "--data.augment", "none"),
    *("--schedule", "constant"),
)
"""Trains in a moment. Its programs do not depend on the number of steps, so that tests share what
was compiled."""

TRAINED = (*SMALL, "--steps", "7", "--log-every", "2", "--eval-every", "3")
"""What the folder of the fixture `trained_run` was made with."""


def start(*arguments, cache, devices=None, **settings):
    """Starts the real command line in a process of its own."""
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": os.environ.get("HOME", "/"),
        "PYTHONPATH": str(ROOT),
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": os.environ.get("XLA_FLAGS", ""),
        "MTLJAX_CACHE": str(cache),
    }
    if devices is not None:
        environment["JAX_NUM_CPU_DEVICES"] = str(devices)
    return subprocess.Popen(
        [sys.executable, "-m", "mtljax.main", *map(str, arguments)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **settings,
    )


def finish(process, timeout=120):
    """Waits for a process and gives (exit status, stdout, stderr)."""
    out, err = process.communicate(timeout=timeout)
    return process.returncode, out, err
