"""Loading a trained run."""

import contextlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import PyTree

from mtljax.build import build
from mtljax.config import Experiment, read_config
from mtljax.runs import signing
from mtljax.runs.checkpoints import Checkpoints
from mtljax.runs.encryption import read_keys
from mtljax.runs.folder import CONFIG
from mtljax.runs.input_spec import ImageSpec, read_input
from mtljax.runs.staging import local_folder
from mtljax.step.state import TrainState
from mtljax.tasks import Task
from mtljax.utils.bounded_reading import read_json
from mtljax.utils.registry import nearest
from mtljax.utils.text import count


class TrainedModel(NamedTuple):
    """Model of a run at its best checkpoint, for inference."""

    experiment: Experiment
    """Experiment of the run."""
    model: Any
    """Multi-task network."""
    state: TrainState
    """Parameters and other variables; without an optimizer."""
    step: int
    """Step of the checkpoint, the best on validation."""
    shape: tuple[int, int, int]
    """Height, width and channels of the training images."""
    dtype: str
    """Dtype of the training images."""
    low: float
    """Value of black."""
    high: float
    """Value of white."""
    folds: str = ""
    """Hash of the division of the data into folds, in a cross-validation."""

    @property
    def preference(self) -> dict[str, float] | None:
        """Task -> preference for it, with sum 1, of a conditioned model; None for other models."""
        return preference_of(self.state, self._names)

    def at_preference(self, values: Sequence[float]) -> "TrainedModel":
        """Returns a conditioned model at another preference, one value >= 0 per task, in order.

        Only the ratios of the values count.

        Raises:
          ValueError: The model is not conditioned on the preference, or a value is invalid.
        """
        text, names = ",".join(f"{value:g}" for value in values), ", ".join(self._names)
        if self.state.preference is None:
            raise ValueError(
                f"preference {text}: the run is not conditioned on the preference; train it with "
                "--condition, see `list conditionings`"
            )
        if len(values) != len(self._names):
            raise ValueError(
                f"preference {text} has {count(len(values), 'value')}; give one for each of the "
                f"tasks {names}, in this order"
            )
        if not all(0 <= value < math.inf for value in values) or not any(values):
            raise ValueError(
                f"preference {text} must have finite values >= 0, not all 0, for the tasks {names}"
            )
        shares = np.asarray(values, np.float64) / math.fsum(values)
        return self._replace(state=self.state.with_preference(shares.astype(np.float32)))

    @property
    def _names(self) -> list[str]:
        return [task.name for task in self.model.tasks]


def preference_of(state: TrainState, names: Sequence[str]) -> dict[str, float] | None:
    """Returns {task: preference} of a conditioned model; None for other models."""
    if state.preference is None:
        return None
    return dict(zip(names, np.asarray(state.preference).tolist(), strict=True))


def load_run(
    path: Path | str, *, verify: Path | None = None, tasks: Sequence[type[Task] | Task] = ()
) -> TrainedModel:
    """Loads the best model of a run folder; the data is not needed.

    Args:
      path: The run folder.
      verify: File with a public key, whose owner must have signed the run.
      tasks: Task classes of the run that are defined in a notebook.

    Raises:
      ValueError: The path is no run folder, no checkpoint can be read, or the signature is invalid.
    """
    path = _run_folder(path)
    if verify is not None:
        signing.verify(path, verify)
    classes = [task if isinstance(task, type) else type(task) for task in tasks]
    experiment = read_config(path / CONFIG, tasks=classes, exact=verify is not None)
    step, state = _best_state(path, experiment.encrypt)
    return TrainedModel(experiment, build(experiment).model, state, step, *read_input(path))


def select_tasks(tasks: Sequence[Task], names: Sequence[str]) -> tuple[Task, ...]:
    """Returns the tasks with these names, in the order of the run; all of them for ()."""
    known = [task.name for task in tasks]
    for name in names:
        if name not in known:
            raise ValueError(f"the run has no task {name!r}{nearest(name, known)}")
    return tuple(task for task in tasks if not names or task.name in names)


class Weights(NamedTuple):
    """Variables of a run at its best checkpoint."""

    variables: dict[str, PyTree]
    """Collection -> variables."""
    images: ImageSpec
    """Training images."""


def load_weights(path: Path | str) -> Weights:
    """Reads the variables of the best model of a run folder; builds no model, executes no file.

    Raises:
      ValueError: As `load_run`.
    """
    path = _run_folder(path)
    config = read_json(path / CONFIG)
    if not isinstance(config, dict) or "name" not in config:
        raise ValueError(f"{path / CONFIG} is not the configuration of an experiment")
    _, state = _best_state(path, bool(config.get("encrypt")))
    return Weights(state.variables, read_input(path))


def _run_folder(path: Path | str) -> Path:
    path = local_folder(path)
    if not path.is_dir():
        raise ValueError(f"no run folder {path}")
    if not (path / CONFIG).is_file():
        raise ValueError(f"{path} is not a run folder: it has no {CONFIG}")
    return path


def _best_state(path: Path, encrypted: bool) -> tuple[int, TrainState]:
    """Returns the best checkpoint of a run: its step and its state for inference."""
    keys = read_keys() if encrypted else None
    with contextlib.closing(Checkpoints(path, read_only=True, keys=keys)) as checkpoints:
        step = checkpoints.best()
        if step is None:
            raise ValueError(f"{path} has no checkpoint yet: train it first")
        return step, checkpoints.restore_for_inference(step)
