"""Saving and restoring the train state, by orbax: the latest, and the best on validation."""

import contextlib
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import unflatten_dict

from mtljax.step import TrainState

FOLDER = "checkpoints"
SEPARATOR = ":"


class Checkpoints:
    """The checkpoints of a run folder.

    Orbax writes in the background and gives a checkpoint its name only when it is complete, so a
    run that is killed at any moment finds the last complete one.
    """

    def __init__(self, workdir: Path, *, read_only: bool = False, spare: bool = False):
        """Args: workdir; read_only; spare, keep the latest but one too, for runs that are trained
        together and so must go on together, from a step that all of them have saved.
        """
        import orbax.checkpoint as ocp
        from orbax.checkpoint.checkpoint_managers import preservation_policy as keep

        logging.getLogger("absl").setLevel(logging.ERROR)
        self._ocp = ocp
        self._folder = workdir / FOLDER
        policy = keep.AnyPreservationPolicy(
            [
                keep.LatestN(2 if spare else 1),
                keep.BestN(n=1, get_metric_fn=lambda metrics: metrics["score"], reverse=True),
            ]
        )
        self._manager = ocp.CheckpointManager(
            self._folder.absolute(),
            item_handlers=ocp.StandardCheckpointHandler(),
            options=ocp.CheckpointManagerOptions(
                preservation_policy=policy,
                best_fn=lambda metrics: metrics["score"],
                best_mode="min",
                create=not read_only,
                read_only=read_only,
                enable_async_checkpointing=not read_only,
            ),
        )

    def save(self, state: TrainState, score: float) -> None:
        """Saves in the background. `score`: lower is better."""
        self._manager.save(
            int(state.step),
            args=self._ocp.args.StandardSave(_flat(state)),
            metrics={"score": score},
        )

    def latest(self) -> int | None:
        return self._manager.latest_step()

    def best(self) -> int | None:
        return self._manager.best_step()

    def restore(self, step: int, like: TrainState) -> TrainState:
        """The state of a step, placed like `like`.

        Raises:
          ValueError: It is damaged, or of another model.
        """
        wanted = _flat(like)
        path, found = self._folder / str(step), self._metadata(step)
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
        return _unflat(self._load(step, places), like)

    def read(self, step: int) -> dict[str, np.ndarray]:
        """Everything in the checkpoint of a step, by path, wherever it was when it was saved.

        Raises:
          ValueError: It is damaged.
        """
        # On one device that is here: those it was saved from may not be.
        here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        return jax.device_get(self._load(step, dict.fromkeys(self._metadata(step), here)))

    def _metadata(self, step: int) -> dict[str, Any]:
        """Types and shapes by path."""
        self._manager.wait_until_finished()
        with _one_line(self._folder / str(step)):
            return dict(self._manager.item_metadata(step))

    def _load(self, step: int, places: dict[str, jax.sharding.Sharding]) -> dict[str, jax.Array]:
        abstract = {
            name: jax.ShapeDtypeStruct(told.shape, told.dtype, sharding=places[name])
            for name, told in self._metadata(step).items()
        }
        with _one_line(self._folder / str(step)):
            return self._manager.restore(step, args=self._ocp.args.StandardRestore(abstract))

    def restore_for_use(self, step: int) -> TrainState:
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
        self._manager.wait_until_finished()

    def tidy(self) -> None:
        """Removes all but the latest and the best."""
        self.wait()
        for step in set(self._manager.all_steps()) - {self.latest(), self.best()}:
            self._manager.delete(step)

    def close(self) -> None:
        """Waits for what is being written."""
        self._manager.wait_until_finished()
        self._manager.close()


@contextlib.contextmanager
def _one_line(path: Path) -> Iterator[None]:
    """Turns whatever orbax and tensorstore raise into one line."""
    try:
        yield
    except Exception as error:
        raise _damaged(path, error) from None


def _damaged(path: Path, error: Exception) -> ValueError:
    """What to say of a checkpoint that cannot be read.

    Reads that are still under way then find their event loop closed, in threads of tensorstore, and
    would write tracebacks to the terminal: from here on, that alone is not reported.
    """
    report = sys.unraisablehook

    def hook(unraisable: Any) -> None:
        if str(unraisable.exc_value) != "Event loop is closed":
            report(unraisable)

    sys.unraisablehook = hook
    reason = str(error).strip().splitlines() or [type(error).__name__]
    return ValueError(
        f"checkpoint {path} is damaged; delete that folder to go on from an earlier one, if any "
        f"({reason[0][:200]})"
    )


def _flat(state: TrainState) -> dict[str, jax.Array]:
    """Arrays by path, in which empty nodes and random keys do not matter."""
    state = state.replace(key=jax.random.key_data(state.key))
    leaves = jax.tree_util.tree_leaves_with_path(state)
    return {
        jax.tree_util.keystr(path, simple=True, separator=SEPARATOR): leaf for path, leaf in leaves
    }


def _subtree(flat: dict[str, np.ndarray], prefix: str) -> dict[str, Any]:
    """What `_flat` wrote below a field whose nodes are dicts."""
    inner = {
        tuple(name.split(SEPARATOR)[1:]): leaf
        for name, leaf in flat.items()
        if name.split(SEPARATOR)[0] == prefix
    }
    return unflatten_dict(inner)


def _unflat(flat: dict[str, jax.Array], like: TrainState) -> TrainState:
    raw = like.replace(key=jax.random.key_data(like.key))
    leaves = [flat[name] for name in _flat(like)]
    state = jax.tree.unflatten(jax.tree.structure(raw), leaves)
    return state.replace(key=jax.random.wrap_key_data(state.key))


def saved_steps(workdir: Path) -> list[int]:
    """The steps whose checkpoints are complete, by the names that only complete ones have."""
    found = (workdir / FOLDER).glob("*")
    return sorted(int(path.name) for path in found if path.name.isdecimal())
