"""What training writes down: a line per log step and evaluation, for files, people and boards."""

import math
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from mtljax.config import Experiment
from mtljax.runs.folder import RunFolder
from mtljax.step.telemetry import summary
from mtljax.training.progress import Reporter
from mtljax.training.stopping import Stopped
from mtljax.utils.optional import require
from mtljax.utils.tree import flatten_json

Fetch = Callable[[], dict[str, Any]]
"""Waits for logs and gives them, with the steps along the first axis."""


class Recorder:
    """Turns the logs of steps into lines, one chunk later, so that the device need not wait."""

    def __init__(
        self,
        experiment: Experiment,
        folder: RunFolder,
        train_size: int,
        step: int,
        tensorboard: bool,
        quiet: bool,
        together: int = 1,
    ):
        """Args: experiment; folder; train_size, examples; step, where the run goes on; tensorboard;
        quiet; together, how many runs share the time that passes here.
        """
        self._together = together
        self._experiment, self._folder, self._train_size = experiment, folder, train_size
        self._reporter = Reporter(experiment.steps, step, quiet=quiet)
        self._board = None
        if tensorboard and jax.process_index() == 0:
            self._board = require_tensorboard()(str(folder.path / "tensorboard"), purge_step=step)
        self._pending: tuple[int, int, Fetch, Fetch | None] | None = None
        self._began = self._last = time.perf_counter()
        self._in_row = 0
        history = folder.history()
        self._lines = [line for line in history if "loss" in line]
        self._best = min((line["score"] for line in history if "score" in line), default=math.inf)
        self.skipped = sum(line["skipped"] for line in self._lines)

    def add(self, step: int, count: int, logs: Fetch, telemetry: Fetch | None = None) -> None:
        """The logs of the `count` steps up to `step`, which may not yet be there, and what was
        measured before them, if anything.
        """
        self.flush()
        self._pending = (step, count, logs, telemetry)

    def flush(self) -> None:
        """Writes the line of the chunk that was added last.

        Raises:
          Stopped: Too many updates in a row were not finite.
        """
        if self._pending is None:
            return
        (step, count, logs, telemetry), self._pending = self._pending, None
        values = dict(logs())
        now = time.perf_counter()
        skipped = values.pop("skipped")
        mean = jax.tree.map(lambda x: float(np.mean(x, dtype=np.float64)), values)
        batch_size = self._experiment.data.batch_size
        line = {
            "step": step,
            "epoch": step * batch_size / self._train_size,
            **mean,
            "skipped": int(skipped.sum()),
            "examples_per_second": self._together * count * batch_size / (now - self._last),
            "seconds": now - self._began,
        }
        if telemetry is not None:
            line["telemetry"] = jax.tree.map(lambda x: np.asarray(x, float).tolist(), telemetry())
        self._last = now
        self._lines.append(line)
        self.skipped += line["skipped"]
        self._write(line)
        self._reporter.train(line)
        for skip in skipped:
            self._in_row = (self._in_row + 1) * int(skip)
            if self._in_row >= self._experiment.max_skipped:
                raise Stopped(
                    f"the last {self._in_row} updates up to step {step} were not finite and were "
                    "skipped; lower learning_rate, set clip_norm, or look for NaN in the data"
                )

    def validation(self, step: int, metrics: dict[str, dict[str, Any]], score: float) -> None:
        """The line of an evaluation."""
        line = {"step": step, "validation": metrics, "score": score}
        self._write(line)
        self._reporter.validation(line, self._experiment.tasks, score < self._best)
        self._best = min(self._best, score)

    def exclude_from_throughput(self) -> None:
        """What was done since the last step was no training."""
        self._last = time.perf_counter()

    def _write(self, line: dict[str, Any]) -> None:
        self._folder.append([line])
        if self._board is not None:
            for name, value in flatten_json(line, "/").items():
                if isinstance(value, (int, float)):
                    self._board.add_scalar(name, value, line["step"])

    def speed(self) -> dict[str, float]:
        """How fast the steps were, of all processes that took a part of the run.

        The first line of each, which compiles, counts for the time but not for the speed.
        """
        before, clock = 0, math.inf
        every, steady = [], []
        for line in self._lines:
            examples = (line["step"] - before) * self._experiment.data.batch_size
            chunk = (line["step"] - before, examples / line["examples_per_second"])
            every.append(chunk)
            if line["seconds"] > clock:
                steady.append(chunk)
            before, clock = line["step"], line["seconds"]
        count, seconds = map(sum, zip(*(steady or every), strict=True))
        return {
            "train_seconds": sum(seconds for _, seconds in every),
            "ms_per_step": 1e3 * seconds / count,
            "examples_per_second": count * self._experiment.data.batch_size / seconds,
        }

    def telemetry(self) -> dict[str, float]:
        """Means over training of what was measured."""
        return summary([line["telemetry"] for line in self._lines if "telemetry" in line])

    def close(self) -> None:
        """Ends the live line and the event file; a second time does nothing."""
        self._reporter.close()
        if self._board is not None:
            self._board.close()
            self._board = None


def require_tensorboard() -> Any:
    """Returns the class that writes TensorBoard's event files."""
    return require("tensorboardX", "tensorboard", "--tensorboard").SummaryWriter
