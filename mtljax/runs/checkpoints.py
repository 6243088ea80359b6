"""Checkpoints of a run: the latest, and the best on validation."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from mtljax.runs.encrypted_store import AgeStore, encrypted_steps
from mtljax.runs.encryption import Keys
from mtljax.runs.orbax_store import REPLACED, OrbaxStore
from mtljax.step.state import TrainState
from mtljax.utils.tree import flatten, unflatten

T = TypeVar("T")

FOLDER = "checkpoints"
"""Folder of checkpoints in a run folder."""
SEPARATOR = ":"
"""Separator of the parts of a name of an array."""
Store = OrbaxStore | AgeStore
"""Store of plain or encrypted checkpoints."""


class Checkpoints:
    """Checkpoints of a run folder, plain or encrypted.

    A checkpoint is written in the background and gets its name when it is complete, so a run that
    is killed resumes from the last complete one.
    """

    def __init__(self, workdir: Path, *, read_only: bool = False, keys: Keys | None = None):
        """Opens the checkpoints of a run folder; if `read_only`, files are not changed."""
        self._folder = workdir / FOLDER
        self._store = open_store(workdir, read_only=read_only, keys=keys)

    def save(self, state: TrainState, score: float) -> None:
        """Saves in the background. `score`: lower is better."""
        self.save_arrays(state_to_arrays(state), score)

    def save_arrays(self, arrays: Mapping[str, Any], score: float) -> None:
        """Saves a state in the form of `state_to_arrays`."""
        self._store.save(int(arrays["step"]), arrays, score)

    def latest(self) -> int | None:
        """Returns the last step that has a checkpoint."""
        return self._store.latest()

    def best(self) -> int | None:
        """Returns the step with the lowest score."""
        return self._store.best()

    def fits(self, step: int, template: TrainState) -> bool:
        """Returns True if a checkpoint has the arrays of the template, by name."""
        return self._store.open(step).arrays.keys() == state_to_arrays(template).keys()

    def restore(self, step: int, template: TrainState) -> TrainState:
        """Returns the state of a step, with the shardings of the template.

        Raises:
          ValueError: The checkpoint is damaged, or belongs to another model.
        """
        leaves = state_to_arrays(template)
        path, (stored, load) = self._folder / str(step), self._store.open(step)
        if leaves.keys() != stored.keys():
            name = min(leaves.keys() ^ stored.keys())
            raise ValueError(
                f"checkpoint {path} belongs to another model: it has "
                f"{'no ' if name in leaves else ''}{name}; choose another --workdir"
            )
        for name, leaf in leaves.items():
            model, file = (f"{x.dtype}{list(map(int, x.shape))}" for x in (leaf, stored[name]))
            if model != file:
                raise ValueError(
                    f"checkpoint {path} belongs to another model: {name} is {file}, not {model}; "
                    "choose another --workdir"
                )
        places = {name: leaf.sharding for name, leaf in leaves.items()}
        return arrays_to_state(load(places), template)

    def read(self, step: int) -> dict[str, np.ndarray]:
        """Returns all arrays of a checkpoint by path; raises ValueError if it is damaged."""
        # On one local device: those that the state was saved from may not exist here.
        here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        stored, load = self._store.open(step)
        return jax.device_get(load(dict.fromkeys(stored, here)))

    def restore_for_inference(self, step: int) -> TrainState:
        """Returns a step's parameters and model state only; raises ValueError as `read` does."""
        arrays = self.read(step)
        return TrainState(
            step=jnp.asarray(arrays["step"]),
            params=_subtree(arrays, "params"),
            model_state=_subtree(arrays, "model_state"),
            opt_state=None,
            balancer_state=None,
            ema=_subtree(arrays, "ema") or None,
            key=jax.random.wrap_key_data(jnp.asarray(arrays["key"])),
            skipped=jnp.asarray(arrays["skipped"]),
            skipped_in_row=jnp.asarray(arrays["skipped_in_row"]),
        )

    def wait(self) -> None:
        """Waits until pending checkpoints are written."""
        self._store.wait()

    def tidy(self) -> None:
        """Deletes all checkpoints but the latest and the best."""
        self.wait()
        for step in set(self._store.steps()) - {self.latest(), self.best()}:
            self._store.delete(step)

    def close(self) -> None:
        """Waits until pending checkpoints are written."""
        self._store.close()


def open_store(workdir: Path, *, keys: Keys | None, read_only: bool = False) -> Store:
    """Opens the store of the checkpoints in a folder; encrypted if keys are given."""
    if keys is None:
        return OrbaxStore(workdir / FOLDER, read_only=read_only)
    return AgeStore(workdir / FOLDER, keys, read_only=read_only)


def state_to_arrays(state: TrainState) -> dict[str, jax.Array]:
    """Returns the arrays of a state by path, without teachers; random keys as integers."""
    state = state.replace(key=jax.random.key_data(state.key), teachers=())
    return flatten(state, SEPARATOR)


def _subtree(arrays: dict[str, np.ndarray], prefix: str) -> dict[str, Any]:
    """Returns the nested dicts that `state_to_arrays` flattened below a field."""
    return unflatten(with_prefix(prefix + SEPARATOR, arrays), SEPARATOR)


def with_prefix(prefix: str, arrays: Mapping[str, T]) -> dict[str, T]:
    """Selects the arrays whose names have a prefix, which is removed."""
    return {n.removeprefix(prefix): leaf for n, leaf in arrays.items() if n.startswith(prefix)}


def arrays_to_state(arrays: Mapping[str, jax.Array], template: TrainState) -> TrainState:
    """Inverse of `state_to_arrays`; the template has what it leaves out."""
    raw = template.replace(key=jax.random.key_data(template.key), teachers=())
    leaves = [arrays[name] for name in state_to_arrays(template)]
    state = jax.tree.unflatten(jax.tree.structure(raw), leaves)
    return state.replace(key=jax.random.wrap_key_data(state.key), teachers=template.teachers)


def saved_steps(workdir: Path) -> list[int]:
    """Returns the steps with complete checkpoints, from the file names."""
    folder = workdir / FOLDER
    names = {path.name.removesuffix(REPLACED) for path in folder.glob("*")}
    return sorted([*(int(name) for name in names if name.isdecimal()), *encrypted_steps(folder)])
