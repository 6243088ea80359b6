"""Checkpoints of runs that are trained side by side: one for all of them, until they are finished.

The runs of small networks take less time between two evaluations than the writing of a checkpoint
for each. So what they would all save goes into one, in the folder of the first, and each gets
checkpoints of its own when the last step is behind.
"""

import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from mtljax.runs.checkpoints import Checkpoints, flat, open_store, saved_steps, unflat
from mtljax.runs.encryption import Keys
from mtljax.step.state import TrainState
from mtljax.utils.files import PART, read_text, write_json

FOLDER, SEEDS = "joint", "seeds.json"
LAST, BEST, SCORES = "last ", "best ", "scores"


class JointCheckpoints:
    """Of each run the last state and the best, complete in one checkpoint.

    A process that is killed at any moment finds the last one that was complete.
    """

    def __init__(self, workdir: Path, seeds: Sequence[int], *, keys: Keys | None = None):
        """Args: workdir, the folder of the first run, which keeps other processes out; seeds, of
        the runs in their order; keys, of runs that are encrypted.
        """
        self._folder = workdir / FOLDER
        if _seeds(workdir) != list(seeds):  # of runs that were trained in other company
            forget_joint(workdir)
            self._folder.mkdir()
            write_json(self._folder / SEEDS, list(seeds))
        self._store = open_store(self._folder, keys=keys)
        self._last: dict[str, np.ndarray] = {}
        self._best: dict[str, np.ndarray] = {}
        self._scores = np.full((2, len(seeds)), np.inf)
        """Of the best of each run, and of its last."""

    def latest(self) -> int:
        """The step that the runs can go on from, 0 if there is none."""
        return self._store.latest() or 0

    def restore(self, step: int, like: TrainState) -> TrainState:
        """The states of a step, joined and placed like `like`.

        Raises:
          ValueError: The checkpoint is damaged, or of another model.
        """
        wanted = flat(like)
        places = {LAST + name: leaf.sharding for name, leaf in wanted.items()}
        here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        told, load = self._store.open(step)
        shapes = {name: tuple(leaf.shape) for name, leaf in told.items() if name != SCORES}
        if SCORES not in told or shapes != {
            part + name: leaf.shape for part in (LAST, BEST) for name, leaf in wanted.items()
        }:
            raise ValueError(
                f"the checkpoint in {self._folder} is of other runs; delete that folder, and they "
                "begin anew"
            )
        found = load({name: places.get(name, here) for name in told})
        self._scores = np.array(found[SCORES]).view(np.float64)
        self._best, self._last = _host(_under(BEST, found)), _host(_under(LAST, found))
        return unflat(_under(LAST, found), like)

    def save(self, step: int, state: TrainState, scores: Sequence[float]) -> None:
        """Saves the joined states of a step in the background.

        `scores`: Lower is better; NaN: this run has failed, and is not saved any more.
        """
        self._last = _host(flat(state))
        self._best = self._best or _host(self._last)
        better = np.asarray(scores) <= self._scores[0]  # of equals the last
        for name, leaf in self._last.items():
            self._best[name][better] = leaf[better]
        self._scores = np.stack([np.where(better, scores, self._scores[0]), scores])
        arrays = {LAST + name: leaf for name, leaf in self._last.items()}
        arrays |= {BEST + name: leaf for name, leaf in self._best.items()}
        bits = self._scores.view(np.uint32)  # as numbers, JAX would read them in single precision
        self._store.save(step, {**arrays, SCORES: bits}, sys.float_info.max)

    def hand_out(self, run: int, checkpoints: Checkpoints) -> None:
        """Saves the best state of a run among its own checkpoints, and the last."""
        if not self._last:  # nothing was trained any more
            return
        of_run = lambda states: {name: leaf[run] for name, leaf in states.items()}
        best, last = of_run(self._best), of_run(self._last)
        best_score, last_score = self._scores[:, run].tolist()
        if np.isfinite(best_score) and best["step"] != last["step"]:
            checkpoints.save_arrays(best, best_score)
        if np.isfinite(last_score):
            checkpoints.save_arrays(last, last_score)

    def __enter__(self) -> "JointCheckpoints":
        return self

    def __exit__(self, *_: object) -> None:
        """Waits for what is being written."""
        self._store.close()


def joint_step(workdir: Path, seeds: Sequence[int]) -> int:
    """The step from which runs can go on side by side; 0 where they have no joint checkpoint.

    Args: workdir, the folder of the first; seeds, of all of them.
    """
    return max(saved_steps(workdir / FOLDER), default=0) if _seeds(workdir) == list(seeds) else 0


def forget_joint(workdir: Path) -> None:
    """Deletes the joint checkpoints that a folder has, if it has some: they were handed out, or the
    run went on alone.
    """
    folder = workdir / FOLDER
    if folder.exists() and jax.process_index() == 0:
        gone = folder.with_name(FOLDER + PART)  # if it is killed here, nothing looks whole
        shutil.rmtree(gone, ignore_errors=True)
        folder.rename(gone)
        shutil.rmtree(gone)


def _seeds(workdir: Path) -> Any:
    """Whose checkpoints they are; None if there are none."""
    try:
        return json.loads(read_text(workdir / FOLDER / SEEDS))
    except (OSError, ValueError):
        return None


def _host(arrays: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Copies: on CPU, what is fetched may be the device's own memory, which is used again."""
    return {name: np.array(leaf) for name, leaf in jax.device_get(dict(arrays)).items()}


def _under(prefix: str, arrays: Mapping[str, Any]) -> dict[str, Any]:
    return {n.removeprefix(prefix): leaf for n, leaf in arrays.items() if n.startswith(prefix)}
