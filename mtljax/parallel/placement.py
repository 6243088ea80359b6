"""Mesh of devices, and the placement of states and batches on it.

The step is written for one device. Its batch is sharded over all devices of all processes (data
parallelism), its state replicated or sharded too (see `shardings`); `jax.jit` inserts the
communication.
"""

import dataclasses
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree

from mtljax.parallel.shardings import (
    BATCH_AXIS,
    MODEL_AXIS,
    Constraints,
    ParameterSharding,
    Replicated,
    make_constraints,
    make_sharding,
    state_shardings,
)


@dataclasses.dataclass(frozen=True)
class Placement:
    """Device mesh, with the shardings of states and batches on it."""

    mesh: Mesh
    """Devices and the names of their axes."""
    sharding: ParameterSharding = Replicated()
    """Rule by which parameters are sharded."""

    @property
    def is_replicated(self) -> bool:
        """True if every device has the entire state."""
        return isinstance(self.sharding, Replicated) or self.mesh.size == 1

    @property
    def constraints(self) -> Constraints:
        """Placement of parameters inside a step; see `make_train_step`."""
        return make_constraints(self.mesh, self.sharding)

    def of_state(self, state: Any) -> Any:
        """Returns the sharding of each array of a `TrainState`, which may consist of shapes."""
        return state_shardings(state, state.params, self.mesh, self.sharding)

    @property
    def replicated(self) -> NamedSharding:
        """Sharding of arrays that are replicated on every device."""
        return NamedSharding(self.mesh, PartitionSpec())

    @property
    def batched(self) -> NamedSharding:
        """Sharding of arrays whose first axis, the batch, is sharded over the data axis."""
        return NamedSharding(self.mesh, PartitionSpec(BATCH_AXIS))

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


def place(batch_size: int, devices: int | None = None, sharding: str = "replicated") -> Placement:
    """Creates a mesh of `devices` devices, or of all, for global batches of `batch_size`.

    Args:
      sharding: Sharding of the parameters, one of `SHARDINGS` with its arguments.

    Raises:
      ValueError: There are too few devices, the batch cannot be sharded evenly, or the sharding is
        unknown.
    """
    rule = make_sharding(sharding)
    available = jax.devices()
    count = len(available) if devices is None else devices
    if not 1 <= count <= len(available):
        cpu = available[0].platform == "cpu"
        hint = "; JAX_NUM_CPU_DEVICES=N splits a CPU into N devices" if cpu else ""
        advice = f"give a number in 1..{len(available)} or leave it out{hint}"
        raise ValueError(f"--devices {count} is not possible: there is {describe()}; {advice}")
    if jax.process_count() > 1 and count != len(available):
        raise ValueError("with several processes, all devices are used: leave out --devices")
    groups, rest = divmod(count, rule.model)
    if rest:
        fault = f"model={rule.model} does not divide the {count} devices"
        raise ValueError(f"sharding {sharding!r}: {fault}; choose a divisor, or other --devices")
    if jax.local_device_count() % rule.model and jax.process_count() > 1:
        fault = f"model={rule.model} does not divide the {jax.local_device_count()} devices"
        raise ValueError(f"sharding {sharding!r}: {fault} of each process; choose a divisor")
    if batch_size % groups:
        over = f"{groups} devices" if rule.model == 1 else f"{groups} groups of devices"
        fault = f"a batch of {batch_size} cannot be sharded evenly over {over}"
        raise ValueError(f"{fault}; make data.batch_size a multiple of {groups}")
    axes = {BATCH_AXIS: groups} | ({MODEL_AXIS: rule.model} if rule.model > 1 else {})
    types = (AxisType.Auto,) * len(axes)
    mesh = jax.make_mesh(
        tuple(axes.values()), tuple(axes), axis_types=types, devices=available[:count]
    )
    return Placement(mesh, rule)


def describe(count: int | None = None) -> str:
    """Returns number and kind of the devices: `8 x cpu`, `1 x NVIDIA H100`."""
    devices = jax.devices()
    return f"{len(devices) if count is None else count} x {devices[0].device_kind}"
