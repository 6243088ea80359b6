"""Saving and restoring the train state, by orbax: the latest, and the best on validation."""

import logging
from pathlib import Path

import jax

from mtljax.step import TrainState

FOLDER = "checkpoints"


class Checkpoints:
    """The checkpoints of a run folder.

    Orbax writes in the background and gives a checkpoint its name only when it is complete, so a
    run that is killed at any moment finds the last complete one.
    """

    def __init__(self, workdir: Path, *, read_only: bool = False):
        import orbax.checkpoint as ocp
        from orbax.checkpoint.checkpoint_managers import preservation_policy as keep

        logging.getLogger("absl").setLevel(logging.ERROR)
        self._ocp = ocp
        self._folder = workdir / FOLDER
        policy = keep.AnyPreservationPolicy(
            [
                keep.LatestN(1),
                keep.BestN(n=1, get_metric_fn=lambda metrics: metrics["score"], reverse=True),
            ]
        )
        self._manager = ocp.CheckpointManager(
            self._folder.absolute(),
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
        flat = _flat(like)
        try:
            abstract = jax.tree.map(
                lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), flat
            )
            found = self._manager.restore(step, args=self._ocp.args.StandardRestore(abstract))
        except Exception as error:  # orbax and tensorstore raise many kinds
            reason = str(error).strip().splitlines() or [type(error).__name__]
            raise ValueError(
                f"checkpoint {self._folder / str(step)} is damaged or of another model: "
                f"{reason[0][:200]}"
            ) from None
        for name, wanted in flat.items():
            if found[name].shape != wanted.shape or found[name].dtype != wanted.dtype:
                raise ValueError(
                    f"checkpoint {self._folder / str(step)} is of another model: {name} is "
                    f"{found[name].shape}, not {wanted.shape}"
                )
        return _unflat(found, like)

    def close(self) -> None:
        """Waits for what is being written."""
        self._manager.wait_until_finished()
        self._manager.close()


def _flat(state: TrainState) -> dict[str, jax.Array]:
    """Arrays by path, in which empty nodes and random keys do not matter."""
    state = state.replace(key=jax.random.key_data(state.key))
    leaves = jax.tree_util.tree_leaves_with_path(state)
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}


def _unflat(flat: dict[str, jax.Array], like: TrainState) -> TrainState:
    raw = like.replace(key=jax.random.key_data(like.key))
    leaves = [flat[name] for name in _flat(like)]
    state = jax.tree.unflatten(jax.tree.structure(raw), leaves)
    return state.replace(key=jax.random.wrap_key_data(state.key))
