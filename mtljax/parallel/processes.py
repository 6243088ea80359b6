"""Start of several processes that train together, and agreement among them."""

import math
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree

from mtljax.utils.peers import HEARTBEAT, SLACK, mark
from mtljax.utils.text import first_line


def start(
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    *,
    timeout: float = 300.0,
) -> None:
    """Joins the other processes, if any; call it before anything else uses a device.

    Args:
      coordinator: `host:port` of process 0, or `auto` on a cluster; None: a single process.
      num_processes, process_id: None if the cluster (Slurm, a TPU pod) defines them.
      timeout: Seconds to wait for the other processes, at the start and for heartbeats.

    Raises:
      ValueError: The arguments contradict each other, or the processes cannot connect.
    """
    if coordinator is None:
        if num_processes is not None or process_id is not None:
            raise ValueError("several processes need --coordinator HOST:PORT, that of process 0")
        return
    if coordinator != "auto":
        _check_processes(coordinator, num_processes, process_id)
    try:
        address = None if coordinator == "auto" else coordinator
        jax.distributed.initialize(
            address,
            num_processes,
            process_id,
            initialization_timeout=math.ceil(timeout),
            heartbeat_timeout_seconds=math.ceil(min(timeout, HEARTBEAT)) + SLACK,
        )
    except (ValueError, RuntimeError) as error:
        if coordinator == "auto":
            raise ValueError(
                "--coordinator auto finds no cluster here (Slurm, MPI, TPU pod, Kubernetes); give "
                "--coordinator HOST:PORT --num-processes N --process-id I"
            ) from error
        raise ValueError(
            f"cannot join the other processes at {coordinator}: {first_line(error)}"
        ) from error


def _check_processes(coordinator: str, num_processes: int | None, process_id: int | None) -> None:
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        form = "HOST:PORT of process 0, as 10.0.0.1:1234, or auto"
        raise ValueError(f"--coordinator must be {form}; not {coordinator!r}")
    if num_processes is None or process_id is None:
        raise ValueError("--coordinator HOST:PORT needs --num-processes N and --process-id I too")
    if not 0 <= process_id < num_processes:
        rule = f"0..{num_processes - 1} with --num-processes {num_processes}"
        raise ValueError(f"--process-id must be in {rule}, not {process_id}")


def same_everywhere(value: int, what: str) -> int:
    """Returns `value`; raises ValueError if processes disagree on it, `what` in the message."""
    if jax.process_count() > 1:
        from jax.experimental.multihost_utils import process_allgather

        mark()
        if len(set(process_allgather(np.asarray(value)).tolist())) > 1:
            hint = "give them one --workdir that all can see"
            raise ValueError(f"the processes do not agree on {what}: {hint}")
    return value


def is_on_host(x: Any) -> bool:
    """Returns True if this process can read all of an array."""
    return not isinstance(x, jax.Array) or x.is_fully_addressable or x.is_fully_replicated


def to_host(tree: PyTree) -> PyTree[np.ndarray]:
    """Returns the values of arrays, also of those that are sharded over several processes.

    All processes must call it, with the same arrays.
    """
    if all(map(is_on_host, jax.tree.leaves(tree))):
        return jax.device_get(tree)
    from jax.experimental.multihost_utils import process_allgather

    gather = lambda x: x if is_on_host(x) else process_allgather(x, tiled=True)
    return jax.device_get(jax.tree.map(gather, tree))
