"""Devices: starting up, and placing arrays on a mesh of them.

The step is written for one device. Here its state is replicated and its batch spread over all
devices of all processes, and `jax.jit` does the rest.
"""

import dataclasses
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree

AXIS = "batch"


def start(
    coordinator: str | None = None, num_processes: int | None = None, process_id: int | None = None
) -> None:
    """Joins the other processes, if there are any. Call before anything else touches a device.

    Args:
      coordinator: `host:port` of process 0. None: this process is alone.
      num_processes, process_id: As in `jax.distributed.initialize`; None where the cluster
        (Slurm, a TPU pod) tells.
    """
    if coordinator is None:
        if num_processes is not None or process_id is not None:
            raise ValueError("several processes need --coordinator HOST:PORT, that of process 0")
        return
    if coordinator != "auto":
        _check_processes(coordinator, num_processes, process_id)
    try:
        jax.distributed.initialize(
            None if coordinator == "auto" else coordinator, num_processes, process_id
        )
    except (ValueError, RuntimeError) as error:
        if coordinator == "auto":
            raise ValueError(
                "--coordinator auto finds no cluster here (Slurm, MPI, TPU pod, Kubernetes); give "
                "--coordinator HOST:PORT --num-processes N --process-id I"
            ) from error
        raise ValueError(f"cannot join the other processes at {coordinator}: {error}") from error


def _check_processes(coordinator: str, num_processes: int | None, process_id: int | None) -> None:
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise ValueError(
            f"--coordinator must be HOST:PORT of process 0, as 10.0.0.1:1234, or auto; not "
            f"{coordinator!r}"
        )
    if num_processes is None or process_id is None:
        raise ValueError("--coordinator HOST:PORT needs --num-processes N and --process-id I too")
    if not 0 <= process_id < num_processes:
        raise ValueError(
            f"--process-id must be in 0..{num_processes - 1} with --num-processes "
            f"{num_processes}, not {process_id}"
        )


def same_everywhere(value: bool, what: str) -> bool:
    """`value`, after making sure that all processes have the same.

    Raises:
      ValueError: They differ; `what` says in what.
    """
    if jax.process_count() > 1:
        from jax.experimental.multihost_utils import process_allgather

        if len(set(process_allgather(np.asarray(value)).tolist())) > 1:
            raise ValueError(
                f"the processes do not agree on {what}: give them one --workdir that all can see"
            )
    return value


@dataclasses.dataclass(frozen=True)
class Placement:
    """A one-dimensional mesh, and the two ways an array lies on it."""

    mesh: Mesh

    @property
    def replicated(self) -> NamedSharding:
        return NamedSharding(self.mesh, PartitionSpec())

    @property
    def batched(self) -> NamedSharding:
        return NamedSharding(self.mesh, PartitionSpec(AXIS))

    def replicate(self, tree: PyTree) -> PyTree:
        """Arrays that every process has whole, whole on every device."""
        return jax.tree.map(self._replicate_one, tree)

    def _replicate_one(self, x: Any) -> jax.Array:
        if jax.process_count() == 1:
            return jax.device_put(x, self.replicated)
        return jax.make_array_from_process_local_data(self.replicated, np.asarray(x))

    def spread(self, tree: PyTree) -> PyTree:
        """This process's part of a batch, as its part of the global batch."""
        return jax.tree.map(
            lambda x: jax.make_array_from_process_local_data(self.batched, np.asarray(x)), tree
        )

    def sync_on_virtual_cpus(self, tree: PyTree) -> None:
        """Waits for `tree` where several devices are parts of one CPU, so that steps do not queue.

        Such devices share one pool of threads, as many as there are devices. Steps in a queue wait
        for the one before in these very threads; once they have them all, its collectives are
        never met, and after 40 s XLA aborts the process (with jax 0.10.2; not seen with
        0.12.0).
        """
        local = self.mesh.local_devices
        if len(local) > 1 and local[0].platform == "cpu":
            jax.block_until_ready(tree)

    def local_rows(self, batch_size: int) -> slice:
        """Which examples of a global batch this process reads."""
        size = batch_size // jax.process_count()
        return slice(jax.process_index() * size, (jax.process_index() + 1) * size)


def place(batch_size: int, devices: int | None = None) -> Placement:
    """A mesh of the devices there are.

    Args:
      batch_size: Must be a multiple of the number of devices.
      devices: How many to use; None: all of them.

    Raises:
      ValueError: There are not so many, or the batch cannot be spread evenly.
    """
    found = jax.devices()
    count = len(found) if devices is None else devices
    if not 1 <= count <= len(found):
        cpu = "; JAX_NUM_CPU_DEVICES=N makes N of a CPU" if found[0].platform == "cpu" else ""
        raise ValueError(
            f"--devices {count} is not possible: there is {describe()}; give a number in "
            f"1..{len(found)} or leave it out{cpu}"
        )
    if jax.process_count() > 1 and count != len(found):
        raise ValueError("with several processes, all devices are used: leave out --devices")
    if batch_size % count:
        raise ValueError(
            f"a batch of {batch_size} cannot be spread evenly over {count} devices; make "
            f"data.batch_size a multiple of {count}"
        )
    mesh = jax.make_mesh((count,), (AXIS,), axis_types=(AxisType.Auto,), devices=found[:count])
    return Placement(mesh)


def describe(count: int | None = None) -> str:
    """The devices in a few words: `8 x cpu`, `1 x NVIDIA H100`."""
    found = jax.devices()
    kind = found[0].device_kind
    return f"{len(found) if count is None else count} x {kind}"
