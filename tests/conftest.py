"""Eight virtual CPU devices for every test, and a compile cache that only tests share."""

import os
import tempfile
from pathlib import Path

os.environ["JAX_PLATFORMS"] = "cpu"
# Tests compile far more than they compute: half the time without the backend's optimisations.
os.environ["XLA_FLAGS"] = "--xla_backend_optimization_level=0 " + os.environ.get("XLA_FLAGS", "")
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

# A slow, busy machine is no failure.
settings.register_profile("mtljax", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("mtljax")


@pytest.fixture(scope="session")
def trained_run(tmp_path_factory):
    """The folder of a small finished run: 7 steps, evaluated after 3, 6 and 7. Read only."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    assert main([*TRAINED, "--workdir", str(folder), "--quiet"]) == 0
    return folder
