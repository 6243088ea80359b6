"""Saving and restoring the train state: the latest, and the best on validation."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import unflatten_dict

from mtljax.runs.encrypted_store import AgeStore, encrypted_steps
from mtljax.runs.encryption import Keys
from mtljax.runs.orbax_store import OrbaxStore, Store
from mtljax.step.state import TrainState
from mtljax.utils.tree import by_name

FOLDER = "checkpoints"
SEPARATOR = ":"


class Checkpoints:
    """The checkpoints of a run folder, plain or encrypted.

    One is written in the background and gets its name only when it is complete, so a run that is
    killed at any moment finds the last complete one.
    """

    def __init__(
        self,
        workdir: Path,
        *,
        read_only: bool = False,
        keys: Keys | None = None,
    ):
        """Args: workdir; read_only; keys, of a run that is encrypted."""
        self._folder = workdir / FOLDER
        self._store = open_store(workdir, read_only=read_only, keys=keys)

    def save(self, state: TrainState, score: float) -> None:
        """Saves in the background. `score`: lower is better."""
        self.save_arrays(flat(state), score)

    def save_arrays(self, arrays: Mapping[str, Any], score: float) -> None:
        """Saves a state that is `flat`."""
        self._store.save(int(arrays["step"]), arrays, score)

    def latest(self) -> int | None:
        return self._store.latest()

    def best(self) -> int | None:
        return self._store.best()

    def restore(self, step: int, like: TrainState) -> TrainState:
        """The state of a step, placed like `like`.

        Raises:
          ValueError: It is damaged, or of another model.
        """
        wanted = flat(like)
        path, (found, load) = self._folder / str(step), self._store.open(step)
        if wanted.keys() != found.keys():
            name = min(wanted.keys() ^ found.keys())
            raise ValueError(
                f"checkpoint {path} is of another model: it has "
                f"{'no ' if name in wanted else ''}{name}"
            )
        for name, leaf in wanted.items():
            ours, theirs = (leaf.dtype, leaf.shape), (found[name].dtype, tuple(found[name].shape))
            if ours != theirs:
                raise ValueError(
                    f"checkpoint {path} is of another model: {name} is {theirs[0]}"
                    f"{list(theirs[1])}, not {ours[0]}{list(ours[1])}"
                )
        places = {name: leaf.sharding for name, leaf in wanted.items()}
        return unflat(load(places), like)

    def read(self, step: int) -> dict[str, np.ndarray]:
        """Everything in the checkpoint of a step, by path, wherever it was when it was saved.

        Raises:
          ValueError: It is damaged.
        """
        # On one device that is here: those it was saved from may not be.
        here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        told, load = self._store.open(step)
        return jax.device_get(load(dict.fromkeys(told, here)))

    def restore_for_inference(self, step: int) -> TrainState:
        """The parameters and model state of a step, to evaluate or predict with.

        Nothing is known of the optimizer or the balancer, so training cannot go on from it.

        Raises:
          ValueError: It is damaged.
        """
        found = self.read(step)
        return TrainState(
            step=jnp.asarray(found["step"]),
            params=_subtree(found, "params"),
            model_state=_subtree(found, "model_state"),
            opt_state=None,
            balancer_state=None,
            ema=_subtree(found, "ema") or None,
            key=jax.random.wrap_key_data(jnp.asarray(found["key"])),
            skipped=jnp.asarray(found["skipped"]),
            skipped_in_row=jnp.asarray(found["skipped_in_row"]),
        )

    def wait(self) -> None:
        """Waits for what is being written."""
        self._store.wait()

    def tidy(self) -> None:
        """Removes all but the latest and the best."""
        self.wait()
        for step in set(self._store.steps()) - {self.latest(), self.best()}:
            self._store.delete(step)

    def close(self) -> None:
        """Waits for what is being written."""
        self._store.close()


def open_store(workdir: Path, *, keys: Keys | None, read_only: bool = False) -> Store:
    """Where the checkpoints in a folder are kept; encrypted if there are keys."""
    if keys is None:
        return OrbaxStore(workdir / FOLDER, read_only=read_only)
    return AgeStore(workdir / FOLDER, keys, read_only=read_only)


def flat(state: TrainState) -> dict[str, jax.Array]:
    """Arrays by path, in which empty nodes and random keys do not matter; without teachers."""
    state = state.replace(key=jax.random.key_data(state.key), teachers=())
    return by_name(state, SEPARATOR)


def _subtree(arrays: dict[str, np.ndarray], prefix: str) -> dict[str, Any]:
    """What `flat` wrote below a field whose nodes are dicts."""
    inner = {
        tuple(name.split(SEPARATOR)[1:]): leaf
        for name, leaf in arrays.items()
        if name.split(SEPARATOR)[0] == prefix
    }
    return unflatten_dict(inner)


def unflat(arrays: Mapping[str, jax.Array], like: TrainState) -> TrainState:
    """Undoes `flat`; `like` has what it left out."""
    raw = like.replace(key=jax.random.key_data(like.key), teachers=())
    leaves = [arrays[name] for name in flat(like)]
    state = jax.tree.unflatten(jax.tree.structure(raw), leaves)
    return state.replace(key=jax.random.wrap_key_data(state.key), teachers=like.teachers)


def saved_steps(workdir: Path) -> list[int]:
    """The steps whose checkpoints are complete, by the names that only complete ones have."""
    folder = workdir / FOLDER
    plain = [int(path.name) for path in folder.glob("*") if path.name.isdecimal()]
    return sorted(plain + encrypted_steps(folder))
