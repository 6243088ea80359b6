"""Compilation settings: XLA options per backend, and the persistent cache of compiled programs."""

import contextlib
import functools
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import jax
from jaxtyping import PyTree

from mtljax.utils.files import user_cache

Use = Literal["train", "convolution", "once"]
"""Use of a program: train step, convolution in it, or a program that runs once."""

YNN_FUSION = "xla_cpu_experimental_ynn_fusion_type"
"""Name of the option on operations that XLA hands to a library."""
OPTIONS: dict[str, dict[Use, dict[str, str | int]]] = {
    "cpu": {
        "train": {
            # No YNNPACK convolutions: their gradients take 3 to 30 times as long as those of XLA.
            YNN_FUSION: "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT,LIBRARY_FUSION_TYPE_REDUCE"
        },
        # Steps of convolutional networks compile sooner and run faster, by 5 to 13 % with
        # normalization; those of transformers take 2.7 times as long to compile.
        "convolution": {"xla_cpu_use_fusion_emitters": False},
        "once": {"xla_backend_optimization_level": 0, "xla_cpu_use_fusion_emitters": False},
    },
}
"""XLA options per backend; those of the other uses are added to those of `train`."""
OPTIONS_OF_SEVERAL: dict[str, dict[str, str | int]] = {
    # Gradients are summed over the devices while others are computed (docs.nvidia.com/jax-toolbox).
    "gpu": {"xla_gpu_enable_latency_hiding_scheduler": True}
}
"""Further options per backend where it has several devices. Not measured by this project.

Command buffers and Triton's matrix products are on by default in XLA, and JAX stores the results of
autotuning in the folder of `use_compile_cache`, so none of them is set here.
"""


def compiler_options(backend: str | None = None, *, use: Use = "train") -> dict[str, str | int]:
    """Returns the `compiler_options` for the outermost `jax.jit` of a program.

    JAX accepts compiler options on the outermost `jax.jit` only, so functions that are meant to be
    transformed (`create_state` and the steps) carry none. Under `jax.pmap`, which accepts none, set
    the environment variable `XLA_FLAGS=--xla_cpu_experimental_ynn_fusion_type=\
-individual_convolution` before the program starts.

    Options that are set in `XLA_FLAGS`, or unknown to the installed jaxlib, are left out.

    Args:
      backend: Platform the program is compiled for (`cpu`, `gpu`, `tpu`); None: the default one.
      use: `train` for programs that run many times, `convolution` for those among them whose time
        applies to convolutions; `once` for programs that run a few times, which are compiled sooner
        and run slower.

    Example:
      >>> double = jax.jit(lambda x: 2 * x, compiler_options=compiler_options())
      >>> int(double(21))
      42
    """
    backend = jax.default_backend() if backend is None else backend
    of_backend = OPTIONS.get(backend, {})
    options = of_backend.get("train", {}) | of_backend.get(use, {})
    if backend in OPTIONS_OF_SEVERAL and _device_count(backend) > 1:
        options = options | OPTIONS_OF_SEVERAL[backend]
    flags = os.environ.get("XLA_FLAGS", "")
    is_known = functools.partial(_is_known, backend)
    return {name: x for name, x in options.items() if name not in flags and is_known(name, x)}


def _device_count(backend: str) -> int:
    """Number of devices of a backend; 0 if there is none."""
    try:
        return jax.device_count(backend)
    except RuntimeError:
        return 0


@functools.cache
def _is_known(backend: str, name: str, value: Any) -> bool:
    """True if the installed jaxlib accepts an option for programs of a backend."""
    try:
        with jax.default_device(jax.local_devices(backend=backend)[0]):
            jax.jit(lambda: 0, compiler_options={name: value}).lower().compile()
    except (RuntimeError, ValueError):
        return False
    return True


def use_compile_cache() -> Path | None:
    """Enables the persistent cache of compiled programs in the user's cache folder.

    The environment variable `MTLJAX_CACHE` names another folder, or `off`.

    Its programs are valid for the same versions of JAX and jaxlib, the same XLA options, devices of
    the same kind, and the same absolute path of the folder: JAX includes all of these in their
    keys. A copy for another machine therefore has to have the same path. On GPUs the folder also
    contains the results of autotuning.

    Returns:
      The cache folder; None if the cache is off or the folder is not writable.
    """
    setting = os.environ.get("MTLJAX_CACHE", "")
    if setting == "off":
        return None
    folder = Path(setting) if setting else user_cache() / "xla"
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


class AheadOfTime:
    """Jitted function that can be compiled by a thread, while the caller does something else.

    Example:
      >>> double = AheadOfTime(jax.jit(lambda x: 2 * x))
      >>> double.compile_ahead(jax.numpy.ones(3))
      >>> double(jax.numpy.ones(3)).tolist()
      [2.0, 2.0, 2.0]
    """

    def __init__(self, function: Callable):
        self._function: Any = function
        self._thread: threading.Thread | None = None
        self._ended = threading.Event()

    def compile_ahead(self, *arguments: PyTree[jax.Array]) -> None:
        """Starts to compile for arrays like these, at the first call, in one process on CPU.

        Compilation for other devices measures kernels, which other work on the device disturbs.
        """
        is_alone = jax.default_backend() == "cpu" and jax.process_count() == 1
        if self._thread is not None or not is_alone:
            return
        # Shapes only: the caller may donate the arrays meanwhile.
        shape = lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding)
        shapes = jax.tree.map(shape, arguments)

        def compile() -> None:
            try:
                with contextlib.suppress(Exception):  # the call raises it again
                    self._function.lower(*shapes).compile()  # which the call finds in JAX's cache
            finally:
                self._ended.set()

        self._thread = threading.Thread(target=compile)
        self._thread.start()

    def __call__(self, *arguments: Any) -> Any:
        """Calls the function, after the compilation that was started, if any."""
        if self._thread is not None:
            # Not `join`: Python 3.11 forgets a thread whose `join` was interrupted by Ctrl-C, does
            # not wait for it at the end of the process, which can crash in the compiler.
            self._ended.wait()
        return self._function(*arguments)
