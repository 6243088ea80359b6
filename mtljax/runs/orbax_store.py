"""Checkpoint store backed by orbax: named arrays per step, the latest and the best."""

import contextlib
import errno
import logging
import math
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Sharding

from mtljax.parallel import is_on_host
from mtljax.utils.bounded_reading import check_bytes, check_files, stored_bytes
from mtljax.utils.text import first_line

REPLACED = ".replaced"
"""Suffix of the folder of a checkpoint while another one of the same step is written."""


class OpenCheckpoint(NamedTuple):
    """A checkpoint that is open for reading."""

    arrays: Mapping[str, Any]
    """Name -> object with `shape` and `dtype`."""
    load: Callable[[Mapping[str, Sharding]], dict[str, jax.Array]]
    """Reads the arrays, each with its sharding."""


class OrbaxStore:
    """Store with one folder per checkpoint, complete even if the process is killed."""

    def __init__(self, folder: Path, *, read_only: bool):
        import orbax.checkpoint as ocp
        from orbax.checkpoint.checkpoint_managers import preservation_policy

        logging.getLogger("absl").setLevel(logging.CRITICAL)  # errors are raised as well
        _ignore_abandoned.install()
        self._ocp, self._folder = ocp, folder
        self._replaced: Path | None = None
        best = preservation_policy.BestN(n=1, get_metric_fn=lambda m: m["score"], reverse=True)
        policy = preservation_policy.AnyPreservationPolicy([preservation_policy.LatestN(1), best])
        options = ocp.CheckpointManagerOptions(
            preservation_policy=policy,
            best_fn=lambda metrics: metrics["score"],
            best_mode="min",
            create=not read_only,
            read_only=read_only,
            enable_async_checkpointing=not read_only,
        )
        handlers = ocp.StandardCheckpointHandler()
        with _one_line(folder, "move that folder away to start again"):
            check_files(folder)
            if not read_only:
                self._restore_replaced()
            self._manager = ocp.CheckpointManager(
                folder.absolute(), item_handlers=handlers, options=options
            )

    def save(self, step: int, arrays: Mapping[str, Any], score: float) -> None:
        """Saves in the background, in place of the latest checkpoint if it is of this step.

        A lower score is better.
        """
        if all(map(is_on_host, arrays.values())):
            # Fetched together: orbax takes milliseconds per array on a device. Copied: on CPU,
            # `device_get` may return memory of the device, which the next step overwrites.
            arrays = jax.tree.map(np.array, jax.device_get(dict(arrays)))
        else:  # every process writes its shards
            arrays = _copy(dict(arrays))
        with _writing(self._folder):
            if self._replaced is not None:
                self.wait()
            if step == self._manager.latest_step():
                self._set_aside(step)
            saved = self._ocp.args.StandardSave(arrays)
            self._manager.save(step, args=saved, metrics={"score": score})

    def _set_aside(self, step: int) -> None:
        """Renames a checkpoint, which is deleted when its replacement is complete."""
        self.wait()
        path = self._folder / str(step)
        self._replaced = path.with_name(path.name + REPLACED)
        if jax.process_index() == 0:
            path.rename(self._replaced)
        self._ocp.multihost.sync_global_processes(f"mtljax:set_aside:{step}")
        self._manager.reload()

    def _restore_replaced(self) -> None:
        """Restores a checkpoint whose replacement was not completed."""
        for old in self._folder.glob(f"*{REPLACED}") if jax.process_index() == 0 else ():
            path = old.with_name(old.name.removesuffix(REPLACED))
            if path.exists():
                shutil.rmtree(old)
            else:
                old.rename(path)

    def steps(self) -> list[int]:
        """Returns the steps with complete checkpoints."""
        return list(self._manager.all_steps())

    def latest(self) -> int | None:
        """Returns the last step with a checkpoint; None without any."""
        return self._manager.latest_step()

    def best(self) -> int | None:
        """Returns the step with the lowest score; None without checkpoints."""
        return self._manager.best_step()

    def open(self, step: int) -> OpenCheckpoint:
        """Opens a checkpoint; raises ValueError if it is damaged."""
        self.wait()
        path = self._folder / str(step)
        with _one_line(path):
            arrays = dict(self._manager.item_metadata(step))
            sizes = (math.prod(x.shape) * np.dtype(x.dtype).itemsize for x in arrays.values())
            check_bytes(sum(sizes), stored_bytes(path))

        def load(shardings: Mapping[str, Sharding]) -> dict[str, jax.Array]:
            abstract = {
                name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=shardings[name])
                for name, leaf in arrays.items()
            }
            with _one_line(path):
                return self._manager.restore(step, args=self._ocp.args.StandardRestore(abstract))

        return OpenCheckpoint(arrays, load)

    def delete(self, step: int) -> None:
        """Deletes a checkpoint."""
        self._manager.delete(step)

    def wait(self) -> None:
        """Waits until pending checkpoints are written; raises OSError if that failed."""
        with _writing(self._folder):
            self._manager.wait_until_finished()
        if self._replaced is not None and jax.process_index() == 0:
            shutil.rmtree(self._replaced)
        self._replaced = None

    def close(self) -> None:
        """Waits until pending checkpoints are written, and ends the writer."""
        self.wait()
        with _writing(self._folder):
            self._manager.close()


_copy = jax.jit(lambda arrays: jax.tree.map(jnp.copy, arrays))


@contextlib.contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """Turns the errors of orbax and tensorstore on a full disk and the like into an OSError."""
    try:
        yield
    except Exception as error:
        for number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO):
            if os.strerror(number) in str(error):
                raise OSError(number, os.strerror(number), str(folder)) from None
        raise


@contextlib.contextmanager
def _one_line(
    path: Path, remedy: str = "delete that folder to resume from an earlier one, if any"
) -> Iterator[None]:
    """Turns the errors of orbax and tensorstore into a ValueError with one line."""
    try:
        yield
    except Exception as error:
        raise ValueError(f"checkpoint {path} is damaged; {remedy} ({first_line(error)})") from None


class _IgnoreAbandoned:
    """Hook for unraisable errors that ignores abandoned reads and writes of a failed checkpoint.

    Pending ones find their event loop closed, in threads of tensorstore, or are never resumed,
    and would print tracebacks when they are collected.
    """

    report: Callable[[Any], Any]

    def install(self) -> None:
        """Replaces `sys.unraisablehook`, which gets all other errors."""
        if sys.unraisablehook is not self:
            self.report, sys.unraisablehook = sys.unraisablehook, self

    def __call__(self, unraisable: Any) -> None:
        error = unraisable.exc_value
        closed = str(error) == "Event loop is closed"
        if not closed and not isinstance(getattr(error, "__cause__", None), GeneratorExit):
            self.report(unraisable)


_ignore_abandoned = _IgnoreAbandoned()
