"""Checkpoints of a group of runs: of a single one, or of several that train side by side.

Between two evaluations, runs of small networks take less time than it takes to write a checkpoint
for each. A group of several therefore writes one stacked checkpoint, in the folder of its first
run; when training ends, the checkpoints of every run are written to its folder.
"""

import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from mtljax.runs.checkpoints import (
    Checkpoints,
    arrays_to_state,
    open_store,
    saved_steps,
    state_to_arrays,
    with_prefix,
)
from mtljax.runs.encryption import Keys
from mtljax.step.state import TrainState
from mtljax.utils.bounded_reading import read_text
from mtljax.utils.files import PART, write_json

FOLDER, SEEDS = "joint", "seeds.json"
"""Names of the folder of stacked checkpoints, and of the file with the runs in it."""
LAST, BEST, SCORES = "last ", "best ", "scores"
"""Prefixes of the arrays of the last and best states, and the name of their scores."""


class SingleCheckpoints:
    """Checkpoints of a single run, saved as by `JointCheckpoints`."""

    def __init__(self, checkpoints: Checkpoints):
        self._checkpoints = checkpoints

    def save(
        self, step: int, state: TrainState, scores: Sequence[float], stopped: Sequence[bool]
    ) -> None:
        """Saves in the background, unless the run has failed; see `JointCheckpoints.save`."""
        if not np.isnan(scores[0]) and not stopped[0]:
            self._checkpoints.save(state, scores[0])

    def distribute(self, checkpoints: Sequence[Checkpoints]) -> None:
        """Waits until pending checkpoints are written."""
        self._checkpoints.wait()


class JointCheckpoints:
    """Checkpoints of several runs: the last and best state of each, stacked.

    A checkpoint is written completely or not at all, even if the process is killed.
    """

    def __init__(self, workdir: Path, names: Sequence[int | str], *, keys: Keys | None = None):
        """Opens the stacked checkpoints in the folder of the first run, which must be locked.

        Those of a group with other names, see `group_names`, are deleted.
        """
        self._folder = workdir / FOLDER
        if _stored_names(workdir) != list(names):
            delete_joint(workdir)
            self._folder.mkdir()
            write_json(self._folder / SEEDS, list(names))
        self._store = open_store(self._folder, keys=keys)
        self._last: dict[str, np.ndarray] = {}
        self._best: dict[str, np.ndarray] = {}
        self._scores = np.full((2, len(names)), np.inf)
        """Row 0: score of each run's best state; row 1: of its last."""

    def latest(self) -> int:
        """Returns the step to resume from; 0 if there is no checkpoint."""
        return self._store.latest() or 0

    @property
    def has_failed(self) -> list[bool]:
        """True for runs that had failed at the restored checkpoint."""
        return np.isnan(self._scores[1]).tolist()

    def restore(self, step: int, template: TrainState) -> TrainState:
        """Returns the group's state at a step, with the shardings of the template.

        Raises:
          ValueError: The checkpoint is damaged, or belongs to another model.
        """
        leaves = state_to_arrays(template)
        places = {LAST + name: leaf.sharding for name, leaf in leaves.items()}
        here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        stored, load = self._store.open(step)
        shapes = {name: tuple(leaf.shape) for name, leaf in stored.items() if name != SCORES}
        if SCORES not in stored or shapes != {
            part + name: leaf.shape for part in (LAST, BEST) for name, leaf in leaves.items()
        }:
            raise ValueError(
                f"the checkpoint in {self._folder} belongs to other runs; delete that folder to "
                "start again"
            )
        arrays = load({name: places.get(name, here) for name in stored})
        self._scores = np.array(arrays[SCORES]).view(np.float64)
        self._best, self._last = (_host(with_prefix(part, arrays)) for part in (BEST, LAST))
        return arrays_to_state(with_prefix(LAST, arrays), template)

    def save(
        self,
        step: int,
        state: TrainState,
        scores: Sequence[float],
        stopped: Sequence[bool] | None = None,
    ) -> None:
        """Saves in the background.

        Args:
          scores: One per run; lower is better, NaN if it failed.
          stopped: True for runs that were stopped early, whose states are kept; None: no run.
        """
        before, self._last = self._last, _host(state_to_arrays(state))
        keep = np.zeros(len(scores), bool) if stopped is None else np.asarray(stopped, bool)
        for name, leaf in before.items():
            self._last[name][keep] = leaf[keep]
        new_scores = np.where(keep, self._scores[1], scores)
        self._best = self._best or _host(self._last)
        better = (new_scores <= self._scores[0]) & ~keep  # the latest of equal scores
        for name, leaf in self._last.items():
            self._best[name][better] = leaf[better]
        self._scores = np.stack([np.where(better, new_scores, self._scores[0]), new_scores])
        arrays = {LAST + name: leaf for name, leaf in self._last.items()}
        arrays |= {BEST + name: leaf for name, leaf in self._best.items()}
        bits = self._scores.view(np.uint32)  # JAX would read float64 in single precision
        self._store.save(step, {**arrays, SCORES: bits}, sys.float_info.max)

    def distribute(self, checkpoints: Sequence[Checkpoints]) -> None:
        """Completes the best and the latest checkpoint of every run."""
        self._store.wait()  # the caller deletes its folder
        for run, target in enumerate(checkpoints):
            if self._last:  # else no step was taken
                self._distribute(run, target)
        for target in checkpoints:
            target.wait()

    def _distribute(self, run: int, checkpoints: Checkpoints) -> None:
        best, last = (
            {name: leaf[run] for name, leaf in states.items()}
            for states in (self._best, self._last)
        )
        best_score, last_score = self._scores[:, run].tolist()
        if np.isfinite(best_score) and best["step"] != last["step"]:
            checkpoints.save_arrays(best, best_score)
        if np.isfinite(last_score):
            checkpoints.save_arrays(last, last_score)

    def close(self) -> None:
        """Waits until pending checkpoints are written."""
        self._store.close()


def group_names(workdirs: Sequence[Path], seeds: Sequence[int]) -> list[int | str]:
    """Returns a name for each run of a group: its seed, or its folder if runs share a seed."""
    if len(set(seeds)) == len(seeds):
        return list(seeds)
    return [f"{workdir.parent.name}/{workdir.name}" for workdir in workdirs]


def joint_step(workdir: Path, names: Sequence[int | str]) -> int:
    """Returns the step that a group can resume from, by the folder of its first run, or 0."""
    is_same = _stored_names(workdir) == list(names)
    return max(saved_steps(workdir / FOLDER), default=0) if is_same else 0


def delete_joint(workdir: Path) -> None:
    """Deletes stacked checkpoints, if any: after distribution, or to train a single run."""
    folder = workdir / FOLDER
    if folder.exists() and jax.process_index() == 0:
        part = folder.with_name(FOLDER + PART)  # if killed here, the rest is not taken for complete
        shutil.rmtree(part, ignore_errors=True)
        folder.rename(part)
        shutil.rmtree(part)


def _stored_names(workdir: Path) -> Any:
    """Returns the names of the runs of the stacked checkpoints; None if there are none."""
    try:
        return json.loads(read_text(workdir / FOLDER / SEEDS))
    except (OSError, ValueError):
        return None


def _host(arrays: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Copies arrays to the host: on CPU, `device_get` may return memory of the device."""
    return {name: np.array(leaf) for name, leaf in jax.device_get(dict(arrays)).items()}
