"""Using exported files as others do: in a process that cannot import mtljax."""

import contextlib
import importlib.util
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
import pytest
from support.cli import run

needs_onnx = pytest.mark.skipif(
    importlib.util.find_spec("jax2onnx") is None, reason="jax2onnx is not installed"
)
NETWORKS = ["stablehlo", pytest.param("onnx", marks=needs_onnx)]
"""Formats that hold the network."""
FORMATS = [*NETWORKS, "safetensors"]

BLOCKED = {
    "stablehlo": ("mtljax", "flax", "optax", "orbax"),
    "onnx": ("mtljax", "jax", "jaxlib", "flax", "optax", "orbax", "jax2onnx"),
}
"""What must not be needed, by format."""

BLOCK = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked!r}:
            raise ImportError(f"{{name}} must not be needed")

sys.meta_path.insert(0, Blocked())
"""

OPEN = {
    "stablehlo": """
import jax.export
call = jax.export.deserialize(bytearray(open(file, "rb").read())).call
""",
    "onnx": """
import onnxruntime
session = onnxruntime.InferenceSession(file)
names = [output.name for output in session.get_outputs()]
call = lambda images: dict(zip(names, session.run(names, {"image": images})))
""",
}
USE = """
import numpy as np
for name, images in np.load(inputs).items():
    np.savez(outputs % name, **{k: np.asarray(v) for k, v in call(images).items()})
"""


def alone(script, blocked, folder):
    """Runs a script in a process without these packages, in a folder; gives what it prints."""
    environment = {**os.environ, "PYTHONPATH": ":".join(p for p in sys.path if "/tests" not in p)}
    code = BLOCK.format(blocked=set(blocked)) + script
    done = run([sys.executable, "-c", code], cwd=folder, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def used_alone(to: str, file: Path, batches: list[np.ndarray], folder: Path) -> list[dict]:
    """What an exported file says of several batches, in a process of its own."""
    np.savez(folder / "inputs.npz", **{str(i): batch for i, batch in enumerate(batches)})
    where = f"file, inputs, outputs = {str(file)!r}, 'inputs.npz', 'outputs_%s.npz'"
    alone(where + OPEN[to] + USE, BLOCKED[to], folder)
    found = [np.load(folder / f"outputs_{i}.npz") for i in range(len(batches))]
    return [{name: arrays[name] for name in arrays.files} for arrays in found]


def assert_equal(found: dict, expected: dict) -> None:
    """Whole numbers are the same; others to 1e-5 of the largest, or of 1 if all are smaller."""
    assert found.keys() == expected.keys()
    for name, wanted in jax.device_get(expected).items():
        assert (found[name].shape, found[name].dtype) == (wanted.shape, wanted.dtype), name
        if wanted.dtype.kind in "iub":
            np.testing.assert_array_equal(found[name], wanted, err_msg=name)
        else:
            most = max(1.0, float(np.abs(wanted).max(initial=0)))
            np.testing.assert_allclose(found[name], wanted, rtol=0, atol=1e-5 * most, err_msg=name)


_watching: list[list[str]] = []


def _note(event: str, arguments: tuple) -> None:
    if _watching and event == "open":
        path, _, flags = arguments
        if flags & (os.O_WRONLY | os.O_RDWR) and not isinstance(path, int):
            _watching[-1].append(os.fsdecode(path))


sys.addaudithook(_note)  # it cannot be taken away again


@contextlib.contextmanager
def written() -> Iterator[list[str]]:
    """The paths of all files that this process opens for writing."""
    _watching.append([])
    try:
        yield _watching[-1]
    finally:
        _watching.pop()
