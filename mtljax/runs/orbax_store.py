"""Checkpoint store backed by orbax: named arrays per step, the latest and the best."""

import contextlib
import logging
import math
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Sharding

from mtljax.utils.bounded_reading import check_bytes, check_files, stored_bytes
from mtljax.utils.text import first_line


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

        logging.getLogger("absl").setLevel(logging.ERROR)
        self._ocp, self._folder = ocp, folder
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
            self._manager = ocp.CheckpointManager(
                folder.absolute(), item_handlers=handlers, options=options
            )

    def save(self, step: int, arrays: Mapping[str, Any], score: float) -> None:
        """Saves in the background, in place of the latest checkpoint if it is of this step.

        A lower score is better.
        """
        # Fetched together: orbax takes milliseconds per array on a device. Copied: on CPU,
        # `device_get` may return memory of the device, which the next step overwrites.
        arrays = jax.tree.map(np.array, jax.device_get(dict(arrays)))
        if step == self._manager.latest_step():
            self._manager.delete(step)
        self._manager.save(step, args=self._ocp.args.StandardSave(arrays), metrics={"score": score})

    def steps(self) -> list[int]:
        """Returns the steps with complete checkpoints."""
        return list(self._manager.all_steps())

    def latest(self) -> int | None:
        return self._manager.latest_step()

    def best(self) -> int | None:
        return self._manager.best_step()

    def open(self, step: int) -> OpenCheckpoint:
        """Opens a checkpoint; raises ValueError if it is damaged."""
        self._manager.wait_until_finished()
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
        self._manager.delete(step)

    def wait(self) -> None:
        """Waits until pending checkpoints are written."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        self.wait()
        self._manager.close()


@contextlib.contextmanager
def _one_line(
    path: Path, remedy: str = "delete that folder to resume from an earlier one, if any"
) -> Iterator[None]:
    """Turns the errors of orbax and tensorstore into a ValueError with one line."""
    before = sys.unraisablehook  # replaced before an error, which other threads may raise first
    if before is not _ignore_abandoned_reads:
        _ignore_abandoned_reads.report, sys.unraisablehook = before, _ignore_abandoned_reads
    try:
        yield
    except Exception as error:
        raise ValueError(f"checkpoint {path} is damaged; {remedy} ({first_line(error)})") from None
    sys.unraisablehook = before


class _IgnoreAbandonedReads:
    """Hook for unraisable errors that ignores abandoned reads of a damaged checkpoint.

    Pending reads find their event loop closed, in threads of tensorstore, or are never resumed,
    and would print tracebacks when they are collected.
    """

    report: Callable[[Any], Any]

    def __call__(self, unraisable: Any) -> None:
        error = unraisable.exc_value
        closed = str(error) == "Event loop is closed"
        if not closed and not isinstance(getattr(error, "__cause__", None), GeneratorExit):
            self.report(unraisable)


_ignore_abandoned_reads = _IgnoreAbandonedReads()
