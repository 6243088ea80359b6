"""Start of several processes, and sharding of arrays over a mesh of devices.

The step is written for one device. Its state is replicated and its batch sharded over all devices
of all processes (data parallelism); `jax.jit` inserts the communication.
"""

import dataclasses

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree

from mtljax.utils.text import first_line

AXIS = "batch"
"""Name of the mesh axis."""


def start(
    coordinator: str | None = None, num_processes: int | None = None, process_id: int | None = None
) -> None:
    """Joins the other processes, if any; call it before anything else uses a device.

    Args:
      coordinator: `host:port` of process 0, or `auto` on a cluster; None: a single process.
      num_processes, process_id: None if the cluster (Slurm, a TPU pod) defines them.

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
        jax.distributed.initialize(address, num_processes, process_id)
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


def same_everywhere(value: bool, what: str) -> bool:
    """Returns `value`; raises ValueError if processes disagree on it, `what` in the message."""
    if jax.process_count() > 1:
        from jax.experimental.multihost_utils import process_allgather

        if len(set(process_allgather(np.asarray(value)).tolist())) > 1:
            hint = "give them one --workdir that all can see"
            raise ValueError(f"the processes do not agree on {what}: {hint}")
    return value


@dataclasses.dataclass(frozen=True)
class Placement:
    """One-dimensional device mesh, with its replicated and its data-parallel sharding."""

    mesh: Mesh

    @property
    def replicated(self) -> NamedSharding:
        """Sharding of arrays that are replicated on every device."""
        return NamedSharding(self.mesh, PartitionSpec())

    @property
    def batched(self) -> NamedSharding:
        """Sharding of arrays whose first axis, the batch, is sharded over the mesh."""
        return NamedSharding(self.mesh, PartitionSpec(AXIS))

    def replicate(self, tree: PyTree) -> PyTree:
        """Replicates arrays, of which every process has the global value, on every device."""
        if jax.process_count() == 1:
            return jax.tree.map(lambda x: jax.device_put(x, self.replicated), tree)
        return self._from_process(tree, self.replicated)

    def shard(self, tree: PyTree) -> PyTree:
        """Assembles global arrays from each process's part of the batch."""
        return self._from_process(tree, self.batched)

    def _from_process(self, tree: PyTree, sharding: NamedSharding) -> PyTree:
        make = jax.make_array_from_process_local_data
        return jax.tree.map(lambda x: make(sharding, np.asarray(x)), tree)

    def sync_on_virtual_cpus(self, tree: PyTree) -> None:
        """Waits for `tree` if several devices are parts of one CPU, so that steps do not queue up.

        Such devices share a thread pool with as many threads as devices. Queued steps wait in these
        threads for the previous step; once they occupy all of them, its collectives cannot run,
        and XLA aborts the process after 40 s (jax 0.10.2; not observed with 0.12.0).
        """
        local = self.mesh.local_devices
        if len(local) > 1 and local[0].platform == "cpu":
            jax.block_until_ready(tree)

    def local_rows(self, batch_size: int) -> slice:
        """Returns the examples of a global batch that this process reads."""
        size = batch_size // jax.process_count()
        return slice(jax.process_index() * size, (jax.process_index() + 1) * size)


def place(batch_size: int, devices: int | None = None) -> Placement:
    """Creates a mesh of `devices` devices, or of all, for global batches of `batch_size`.

    Raises:
      ValueError: There are too few devices, or the batch cannot be sharded evenly.
    """
    available = jax.devices()
    count = len(available) if devices is None else devices
    if not 1 <= count <= len(available):
        cpu = available[0].platform == "cpu"
        hint = "; JAX_NUM_CPU_DEVICES=N splits a CPU into N devices" if cpu else ""
        advice = f"give a number in 1..{len(available)} or leave it out{hint}"
        raise ValueError(f"--devices {count} is not possible: there is {describe()}; {advice}")
    if jax.process_count() > 1 and count != len(available):
        raise ValueError("with several processes, all devices are used: leave out --devices")
    if batch_size % count:
        fault = f"a batch of {batch_size} cannot be sharded evenly over {count} devices"
        raise ValueError(f"{fault}; make data.batch_size a multiple of {count}")
    mesh = jax.make_mesh((count,), (AXIS,), axis_types=(AxisType.Auto,), devices=available[:count])
    return Placement(mesh)


def describe(count: int | None = None) -> str:
    """Returns number and kind of the devices: `8 x cpu`, `1 x NVIDIA H100`."""
    devices = jax.devices()
    return f"{len(devices) if count is None else count} x {devices[0].device_kind}"
