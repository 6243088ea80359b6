"""Compilation settings: XLA options per backend, and the persistent cache of compiled programs."""

import functools
import os
from pathlib import Path
from typing import Any, Literal

import jax

Use = Literal["train", "once"]

YNN_FUSION = "xla_cpu_experimental_ynn_fusion_type"
CPU_OPTIONS: dict[Use, dict[str, str | int]] = {
    "train": {
        # No YNNPACK convolutions: their gradients take 3 to 30 times as long as those of XLA.
        YNN_FUSION: "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT,LIBRARY_FUSION_TYPE_REDUCE"
    },
    "once": {"xla_backend_optimization_level": 0, "xla_cpu_use_fusion_emitters": False},
}
"""XLA options on CPU; `once` adds to those of `train`."""


def compiler_options(backend: str | None = None, *, use: Use = "train") -> dict[str, str | int]:
    """Returns the `compiler_options` for the outermost `jax.jit` of a program.

    JAX accepts compiler options on the outermost `jax.jit` only, so functions that are meant to be
    transformed (`create_state` and the steps) carry none. Under `jax.pmap`, which accepts none, set
    the environment variable `XLA_FLAGS=--xla_cpu_experimental_ynn_fusion_type=\
-individual_convolution` before the program starts.

    Options that are set in `XLA_FLAGS`, or unknown to the installed jaxlib, are left out.

    Args:
      backend: Platform the program is compiled for (`cpu`, `gpu`, `tpu`); None: the default one.
      use: `train` for programs that run many times; `once` for programs that run a few times, which
        are compiled sooner and run slower.

    Example:
      >>> double = jax.jit(lambda x: 2 * x, compiler_options=compiler_options())
      >>> int(double(21))
      42
    """
    backend = jax.default_backend() if backend is None else backend
    if backend != "cpu":
        return {}
    options = CPU_OPTIONS["train"] | CPU_OPTIONS[use]
    flags = os.environ.get("XLA_FLAGS", "")
    return {name: x for name, x in options.items() if name not in flags and _is_known(name, x)}


@functools.cache
def _is_known(name: str, value: Any) -> bool:
    """True if the installed jaxlib accepts an option for CPU programs."""
    try:
        with jax.default_device(jax.local_devices(backend="cpu")[0]):
            jax.jit(lambda: 0, compiler_options={name: value}).lower().compile()
    except (jax.errors.JaxRuntimeError, ValueError):
        return False
    return True


def use_compile_cache() -> Path | None:
    """Enables the persistent cache of compiled programs in the user's cache folder.

    The environment variable `MTLJAX_CACHE` names another folder, or `off`.

    Returns:
      The cache folder; None if the cache is off or the folder is not writable.
    """
    setting = os.environ.get("MTLJAX_CACHE", "")
    if setting == "off":
        return None
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = Path(setting) if setting else home / "mtljax" / "xla"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    if not os.access(folder, os.W_OK):
        return None
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.02)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    return folder
