"""Start and end of one process of a distributed run."""

import re
import traceback
from collections.abc import Callable
from typing import Any, NoReturn

from mtljax.cli.errors import explain
from mtljax.utils import peers
from mtljax.utils.text import first_line

COMMUNICATION = re.compile(
    "gloo|nccl|mpi|connection|socket|barrier|collective|coordination|unavailable|deadline", re.I
)
"""Word in an error of JAX that another process may have caused; their types differ."""
DAY = 24 * 3600 * 1000
"""Milliseconds; a process that waits longer than `--timeout-minutes` is ended by the watch."""


def run_joined(
    run: Callable[[], int],
    coordinator: str | None,
    num_processes: int | None,
    process_id: int | None,
    *,
    timeout_minutes: float,
) -> int:
    """Calls `run` as one process of a distributed run, if any, and returns its exit status.

    If another process is lost, this one ends with status `peers.LOST`. If this one fails, it ends
    at once, without waiting for them as JAX would, and all end with its status.
    SIGTERM is recorded from the beginning, so that all processes stop at the same step.

    Raises:
      ValueError: The processes cannot connect.
    """
    import jax

    from mtljax import parallel
    from mtljax.training.stopping import stop_signal

    if not timeout_minutes > 0:
        raise ValueError(f"--timeout-minutes must be > 0, not {timeout_minutes:g}")
    parallel.start(coordinator, num_processes, process_id, timeout=60 * timeout_minutes)
    if jax.process_count() == 1:
        return run()
    from jax._src.distributed import global_state  # the public API has no store of keys and values

    client: Any = global_state.client
    watch = peers.Watch(
        client, jax.process_index(), jax.process_count(), timeout=60 * timeout_minutes
    )
    watch.start()
    try:
        with stop_signal():
            status = run()
    except Exception as error:
        _end(watch, error)
    except KeyboardInterrupt:
        status = 130
    if status == 130:
        watch.fail(status, "interrupted")
    peers.mark()
    client.wait_at_barrier("mtljax/end", DAY)
    watch.stop()
    jax.distributed.shutdown()
    return status


def _end(watch: peers.Watch, error: Exception) -> NoReturn:
    """Ends all processes with the same status because of an error in this one."""
    if COMMUNICATION.search(str(error)):
        watch.expect_loss()  # ends the process if another one is lost
    explained = explain(error)
    if explained is not None:
        message, status = explained
        watch.fail(status, message, output=f"mtljax: {message}\n")
    watch.fail(1, first_line(error), output="".join(traceback.format_exception(error)))
