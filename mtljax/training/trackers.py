"""Experiment trackers: TensorBoard and MLflow."""

import contextlib
import dataclasses
import logging
import math
import os
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import jax

from mtljax.config import Experiment, to_json
from mtljax.utils.files import write_text
from mtljax.utils.optional import require
from mtljax.utils.terminal import print_line
from mtljax.utils.text import first_line
from mtljax.utils.tree import flatten_json

MLFLOW_SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
}
"""Environment variables that are set unless the user did: no telemetry, and short waits."""


class Tracker(Protocol):
    """Program that shows the records of runs."""

    def write(self, scalars: Mapping[str, float], step: int) -> None:
        """Writes the scalars of a step."""

    def close(self, *, is_finished: bool) -> None:
        """Ends the record of the run, which is finished or will be resumed."""


@dataclasses.dataclass(frozen=True)
class Trackers:
    """Trackers to use.

    Attributes:
      tensorboard: Write event files to the folder `tensorboard` of the run.
      mlflow: URI of an MLflow server or database; None: do not use MLflow.
    """

    tensorboard: bool = False
    mlflow: str | None = None

    def check(self) -> None:
        """Raises ValueError if a tracker is not installed or cannot be reached."""
        if self.tensorboard:
            _tensorboard()
        if self.mlflow is not None:
            _mlflow_client(self.mlflow)

    def open(self, experiment: Experiment, folder: Path, step: int) -> list[Tracker]:
        """Returns the trackers of a run from a step on, in the process that writes."""
        opened: list[Tracker] = []
        if jax.process_index() > 0:
            return opened
        if self.tensorboard:
            opened.append(TensorBoard(folder / "tensorboard", step))
        if self.mlflow is not None:
            opened.append(MLflow(self.mlflow, experiment, folder))
        return opened


class TensorBoard:
    """Event files of TensorBoard."""

    def __init__(self, folder: Path, step: int):
        self._writer = _tensorboard().SummaryWriter(str(folder), purge_step=step)

    def write(self, scalars: Mapping[str, float], step: int) -> None:
        """Writes the scalars of a step."""
        for name, value in scalars.items():
            self._writer.add_scalar(name, value, step)

    def close(self, *, is_finished: bool) -> None:
        """Closes the event file."""
        del is_finished
        self._writer.close()


class MLflow:
    """Run in MLflow, in the MLflow experiment of the same name as the experiment.

    Its parameters are config.json. The file `mlflow` in the run folder contains its id, so that a
    resumed run continues it. A store that fails later ends the tracking, not the training.
    """

    RUN_ID = "mlflow"
    """File in the run folder that contains the id."""
    BATCH = 100
    """Largest number of parameters that MLflow takes at once."""

    def __init__(self, uri: str, experiment: Experiment, folder: Path):
        self._client: Any = _mlflow_client(uri)
        self._run = self._resume(folder / self.RUN_ID) or self._create(experiment, folder)

    def _resume(self, file: Path) -> str | None:
        if not file.exists():
            return None
        run = file.read_text().strip()
        with contextlib.suppress(Exception):  # another store, or the run was deleted
            self._client.update_run(run, status="RUNNING")
            return run
        return None

    def _create(self, experiment: Experiment, folder: Path) -> str:
        from mlflow.entities import Param

        client, name = self._client, experiment.name
        existing = client.get_experiment_by_name(name)
        parent = client.create_experiment(name) if existing is None else existing.experiment_id
        run: str = client.create_run(parent, run_name=folder.name).info.run_id
        config = flatten_json(to_json(experiment), "/")
        params = [Param(_mlflow_name(key), str(value)[:500]) for key, value in config.items()]
        for start in range(0, len(params), self.BATCH):
            client.log_batch(run, params=params[start : start + self.BATCH])
        write_text(folder / self.RUN_ID, f"{run}\n")
        return run

    def write(self, scalars: Mapping[str, float], step: int) -> None:
        """Writes the scalars of a step."""
        from mlflow.entities import Metric

        now = int(1000 * time.time())
        known = {key: value for key, value in scalars.items() if not math.isnan(value)}
        metrics = [Metric(_mlflow_name(key), x, now, step) for key, x in known.items()]
        self._send(lambda client: client.log_batch(self._run, metrics=metrics))

    def close(self, *, is_finished: bool) -> None:
        """Sets the status of the run."""
        status = "FINISHED" if is_finished else "KILLED"
        self._send(lambda client: client.set_terminated(self._run, status))

    def _send(self, call: Callable[[Any], None]) -> None:
        if self._client is None:
            return
        try:
            call(self._client)
        except Exception as error:
            self._client = None
            print_line(f"warning: MLflow failed and is not used any more: {first_line(error)}")


def _tensorboard() -> Any:
    return require("tensorboardX", "tensorboard", "--tensorboard")


def _mlflow_client(uri: str) -> Any:
    """Returns a client whose store was reached; ValueError if it was not."""
    for name, value in MLFLOW_SETTINGS.items():
        os.environ.setdefault(name, value)
    mlflow = require("mlflow", "mlflow", "--mlflow")
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    try:
        client = mlflow.MlflowClient(tracking_uri=uri)
        client.search_experiments(max_results=1)
    except Exception as error:
        raise ValueError(
            f"--mlflow {uri}: not a store that can be used, such as sqlite:///mlflow.db or "
            f"http://HOST:5000: {first_line(error)}"
        ) from None
    return client


def _mlflow_name(key: str) -> str:
    """Replaces the characters that MLflow does not allow in names."""
    return re.sub(r"[^\w./: -]", "_", key, flags=re.ASCII)[:250]
