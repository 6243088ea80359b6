"""Recorder of a run: a record per log step and evaluation, to file, terminal and trackers."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from mtljax.config import Experiment
from mtljax.runs.folder import RunFolder
from mtljax.runs.records import LogRecord, TrainRecord, ValidationRecord, processes
from mtljax.step.telemetry import summary
from mtljax.tasks.metric import SplitMetrics
from mtljax.training.progress import Reporter
from mtljax.training.stopping import Stopped, failure_cause
from mtljax.training.trackers import Tracker
from mtljax.utils.tree import flatten_json

Fetch = Callable[[], dict[str, Any]]
"""Waits for arrays on the device and returns them; logs have a leading axis of steps."""


class Speed(NamedTuple):
    """Speed of a run; None if it took no step."""

    train_seconds: float | None = None
    """Time of all steps, compilation included, evaluation not."""
    ms_per_step: float | None = None
    """Time per step after compilation, in milliseconds."""
    examples_per_second: float | None = None
    """Training examples per second after compilation."""


class _Pending(NamedTuple):
    """Arguments of `Recorder.add` that are not recorded yet."""

    step: int
    steps: int
    logs: Fetch
    measurement: Fetch | None
    finished: Callable[[], float]


class Recorder:
    """Turns the logs of steps into records, one chunk late, so that the device never waits."""

    def __init__(
        self,
        experiment: Experiment,
        folder: RunFolder,
        *,
        train_size: int,
        step: int,
        quiet: bool,
        trackers: Sequence[Tracker] = (),
        together: int = 1,
        start_time: float | None = None,
        earlier_seconds: float = 0.0,
    ):
        """Initializes the recorder, and reads the records of earlier processes.

        Args:
          train_size: Number of training examples.
          step: Step that the run starts or resumes from.
          trackers: Trackers that get the records too.
          together: Number of runs that share the measured time.
          start_time: Start of this process's work, from `time.perf_counter`; None: now.
          earlier_seconds: Wall time of the run's earlier processes.
        """
        self._experiment, self._folder = experiment, folder
        self._train_size, self._together = train_size, together
        self._reporter = Reporter(experiment.steps, step, quiet=quiet)
        self._trackers = list(trackers)
        self._pending: _Pending | None = None
        self._last = time.perf_counter()
        self._start = self._last if start_time is None else start_time
        self._earlier_seconds = earlier_seconds
        history = folder.history()
        self._records = [record for record in history if isinstance(record, TrainRecord)]
        self.evaluations = [record for record in history if isinstance(record, ValidationRecord)]
        """Records of all evaluations of the run."""

    def add(
        self,
        step: int,
        count: int,
        logs: Fetch,
        measurement: Fetch | None = None,
        finished: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Takes the logs of the `count` steps up to `step`; they may not be computed yet.

        `measurement` is the telemetry of the first of these steps, if any; `finished` returns the
        time at which the last was computed.
        """
        self.flush()
        self._pending = _Pending(step, count, logs, measurement, finished)

    def flush(self) -> None:
        """Writes the last chunk's record; raises Stopped after too many consecutive skips."""
        if self._pending is None:
            return
        (step, count, logs, measurement, finished), self._pending = self._pending, None
        values = dict(logs())
        now = finished()
        skipped, in_row = values.pop("skipped"), values.pop("skipped_in_row")
        batch_size = self._experiment.data.batch_size
        as_list = lambda x: np.asarray(x, float).tolist()
        record = TrainRecord(
            step=step,
            epoch=step * batch_size / self._train_size,
            **jax.tree.map(lambda x: float(np.mean(x, dtype=np.float64)), values),
            skipped=int(skipped.sum()),
            examples_per_second=self._together * count * batch_size / (now - self._last),
            seconds=now - self._start,
            earlier_seconds=self._earlier_seconds,
            telemetry=None if measurement is None else jax.tree.map(as_list, measurement()),
        )
        self._last = now
        self._records.append(record)
        self._write(record)
        self._reporter.train(record)
        if in_row.max() >= self._experiment.max_skipped:
            last = jax.tree.map(lambda x: float(x[in_row.argmax()]), values)
            cause = failure_cause(self._experiment.balancer, last["loss"], last.get("weight"))
            raise Stopped(
                f"{in_row.max()} consecutive updates up to step {step} were not finite and were "
                f"skipped: {cause}"
            )

    def validation(self, step: int, metrics: SplitMetrics, score: float) -> None:
        """Writes the record of an evaluation."""
        record = ValidationRecord(step=step, validation=metrics, score=score)
        self._write(record)
        best = min((earlier.score for earlier in self.evaluations), default=math.inf)
        self._reporter.validation(record, self._experiment.tasks, score < best)
        self.evaluations.append(record)

    def exclude_from_throughput(self) -> None:
        """Leaves the time since the last record out of the throughput."""
        self._last = time.perf_counter()

    def _write(self, record: LogRecord) -> None:
        self._folder.append(record)
        self._track(record.to_json(), record.step)

    def _track(self, values: Mapping[str, Any], step: int) -> None:
        scalars = {
            name: value
            for name, value in flatten_json(values, "/").items()
            if isinstance(value, (int, float))
        }
        for tracker in self._trackers:
            tracker.write(scalars, step)

    @property
    def skipped(self) -> int:
        """Number of skipped updates of the run, earlier processes included."""
        return sum(record.skipped for record in self._records)

    def speed(self) -> Speed:
        """Returns the speed of the run.

        Every process that trained a part of the run counts. Its first record, which includes the
        compilation, counts towards the seconds, not towards the speed.
        """
        if not self._records:
            return Speed()
        step, batch_size = 0, self._experiment.data.batch_size
        chunks, after_compilation = [], []
        for records in processes(self._records):
            for i, record in enumerate(records):
                examples = (record.step - step) * batch_size
                chunks.append((record.step - step, examples / record.examples_per_second))
                if i:
                    after_compilation.append(chunks[-1])
                step = record.step
        count, seconds = map(sum, zip(*(after_compilation or chunks), strict=True))
        return Speed(
            train_seconds=sum(seconds for _, seconds in chunks),
            ms_per_step=1e3 * seconds / count,
            examples_per_second=count * batch_size / seconds,
        )

    def telemetry(self) -> dict[str, float]:
        """Returns means of the telemetry over the run."""
        return summary([record.telemetry for record in self._records if record.telemetry])

    def finish(self, test: SplitMetrics, step: int) -> None:
        """Gives the trackers the test metrics at the chosen step, and closes them."""
        self._track({"test": test}, step)
        self._close_trackers(is_finished=True)

    def close_progress(self) -> None:
        """Ends the live line; may be called twice."""
        self._reporter.close()

    def close(self) -> None:
        """Ends the live line and the trackers; may be called twice."""
        self.close_progress()
        self._close_trackers(is_finished=False)

    def _close_trackers(self, *, is_finished: bool) -> None:
        while self._trackers:
            self._trackers.pop().close(is_finished=is_finished)
