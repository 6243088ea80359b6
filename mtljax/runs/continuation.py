"""Continuation of a finished run with more steps."""

import os
from pathlib import Path

from mtljax.config import Experiment
from mtljax.config.files import run_config
from mtljax.runs.folder import CALIBRATION, CONFIG, RESULT
from mtljax.runs.lock import LOCK, writing_to
from mtljax.runs.result import RunResult
from mtljax.utils.files import write_json
from mtljax.utils.locks import holding_lock


def continue_run(path: Path, experiment: Experiment, shorter: RunResult) -> None:
    """Turns a finished run into an unfinished one of more steps, and keeps its result.

    Call it in the first process, after `check_folder` has returned `shorter`.

    Raises:
      ValueError: The folder is in use, or cannot be written.
    """
    with writing_to(path), holding_lock(path / LOCK):
        # If killed in between, `check_folder` finds a result of fewer steps again.
        write_json(path / CONFIG, run_config(experiment))
        for name in (CALIBRATION, RESULT):
            if (path / name).exists():
                os.replace(path / name, path / f"{Path(name).stem}-{shorter.steps}.json")
