"""Eight virtual CPU devices, fast compilation and a shared compile cache for every test.

The environment variable `MTLJAX_TEST_PLATFORM` selects another platform: `default` for JAX's own
choice, or a value of `JAX_PLATFORMS`; see docs/contributing/testing.md.

Markers: tests without one are the README's tier, `full` and `slow` are the other two; see
docs/contributing/testing.md. The fixture `user_flags` undoes the fast compilation for the processes
of a test.
"""

import gc
import importlib.util
import mmap
import os
import tempfile
from pathlib import Path

PLATFORM = os.environ.get("MTLJAX_TEST_PLATFORM", "cpu")
if PLATFORM != "default":
    os.environ["JAX_PLATFORMS"] = PLATFORM
# Tests compile far more than they compute: a quarter of the time with little optimization.
FAST_COMPILATION = {
    "xla_backend_optimization_level": "0",
    "xla_cpu_use_fusion_emitters": "false",
    "xla_cpu_parallel_codegen_split_count": "1",
    "xla_llvm_disable_expensive_passes": "true",
}
USER_FLAGS = "MTLJAX_TEST_USER_XLA_FLAGS"


def known_flags():
    """Returns those flags of FAST_COMPILATION that jaxlib has: it aborts on an unknown one."""
    folder = Path(importlib.util.find_spec("jaxlib").origin).parent
    library = max(folder.glob("*.so"), key=lambda path: path.stat().st_size)
    with library.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
        return [
            f"--{name}={value}"
            for name, value in FAST_COMPILATION.items()
            if text.find(b"\0%s\0" % name.encode()) >= 0
        ]


if USER_FLAGS not in os.environ:  # the workers of pytest-xdist inherit both
    os.environ[USER_FLAGS] = os.environ.get("XLA_FLAGS", "")
    fast = known_flags() if PLATFORM == "cpu" else []
    os.environ["XLA_FLAGS"] = " ".join([*fast, os.environ[USER_FLAGS]])
CACHE = Path(os.environ.get("MTLJAX_TEST_CACHE") or Path(tempfile.gettempdir()) / "mtljax-tests")
os.environ["MTLJAX_CACHE"] = str(CACHE)

import jax  # noqa: E402
import pytest  # noqa: E402
from hypothesis import HealthCheck, settings  # noqa: E402
from support.cli import TRAINED, pytest_runtest_protocol  # noqa: E402, F401

jax.config.update("jax_num_cpu_devices", 8)

from mtljax.compilation import use_compile_cache  # noqa: E402
from mtljax.main import main  # noqa: E402

use_compile_cache()

# Tracing fills the heap with objects that live on: fewer collections save a twentieth of the time.
gc.set_threshold(100_000, 50, 50)

# A slow, busy machine is no failure.
settings.register_profile("mtljax", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("mtljax")


@pytest.fixture
def user_flags(monkeypatch):
    """Starts the processes of this test with the XLA flags that a user has.

    For tests that run JAX only in processes of their own: this process keeps its flags, and would
    store its programs in the compile cache under the keys of the others.
    """
    monkeypatch.setenv("XLA_FLAGS", os.environ[USER_FLAGS])


@pytest.fixture(scope="session")
def trained_run(tmp_path_factory):
    """The folder of a small finished run: 7 steps, evaluated after 3, 6 and 7. Read only."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    assert main([*TRAINED, "--workdir", str(folder), "--quiet"]) == 0
    return folder
