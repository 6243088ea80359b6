"""Loading a trained run."""

import contextlib
from pathlib import Path
from typing import Any, NamedTuple

from mtljax.build import build
from mtljax.config import Experiment, read_config
from mtljax.runs import signing
from mtljax.runs.checkpoints import Checkpoints
from mtljax.runs.encryption import read_keys
from mtljax.runs.folder import CONFIG, read_input
from mtljax.step.state import TrainState


class TrainedModel(NamedTuple):
    """Model of a run at its best checkpoint, for inference."""

    experiment: Experiment
    model: Any
    state: TrainState
    step: int
    """Step of the checkpoint, the best on validation."""
    shape: tuple[int, int, int]
    """Height, width and channels of the training images."""
    dtype: str
    """Dtype of the training images."""
    low: float
    high: float
    """Values of black and white."""


def load_run(path: Path | str, *, verify: Path | None = None) -> TrainedModel:
    """Loads the best model of a run folder; the data is not needed.

    Args:
      path: The run folder.
      verify: File with a public key, whose owner must have signed the run.

    Raises:
      ValueError: The path is no run folder, no checkpoint can be read, or the signature is invalid.
    """
    path = Path(path)
    if not path.is_dir():
        raise ValueError(f"no run folder {path}")
    if not (path / CONFIG).is_file():
        raise ValueError(f"{path} is not a run folder: it has no {CONFIG}")
    if verify is not None:
        signing.verify(path, verify)
    experiment = read_config(path / CONFIG)
    keys = read_keys() if experiment.encrypt else None
    with contextlib.closing(Checkpoints(path, read_only=True, keys=keys)) as checkpoints:
        step = checkpoints.best()
        if step is None:
            raise ValueError(f"{path} has no checkpoint yet: train it first")
        state = checkpoints.restore_for_inference(step)
    return TrainedModel(experiment, build(experiment).model, state, step, *read_input(path))
