"""Mesh of devices, and the placement of states and batches on it.

The step is written for one device. Its state is replicated and its batch sharded over all devices
of all processes (data parallelism); `jax.jit` inserts the communication.
"""

import dataclasses

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree

AXIS = "batch"
"""Name of the mesh axis."""


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
