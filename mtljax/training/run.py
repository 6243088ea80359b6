"""A single run in training: its folder, checkpoints, records and result."""

import contextlib
import dataclasses
import math
import platform
import sys
import time
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path

import jax

from mtljax import __version__, parallel
from mtljax.config import Experiment
from mtljax.evaluation.predictions import Predictions
from mtljax.models import partition, task_of
from mtljax.models.freezing import split_frozen
from mtljax.runs.checkpoints import Checkpoints
from mtljax.runs.encryption import read_keys
from mtljax.runs.folder import RunFolder
from mtljax.runs.result import ParameterCounts, RunResult
from mtljax.runs.selection import selection_score
from mtljax.step.distillation import ADAPTERS
from mtljax.step.state import TrainState
from mtljax.tasks.base import SplitMetrics
from mtljax.training.executors import Cost
from mtljax.training.programs import Programs
from mtljax.training.recorder import Fetch, Recorder
from mtljax.training.stopping import Stopped


class Run:
    """A run in training, the only one of its group or one of several.

    Attributes:
      experiment: The experiment, with the run's seed.
      checkpoints: The run's checkpoints.
      failure: Reason why the run cannot continue, if any.
    """

    def __init__(
        self,
        experiment: Experiment,
        workdir: Path,
        programs: Programs,
        stack: contextlib.ExitStack,
        *,
        together: int = 1,
        start_time: float | None = None,
    ):
        """Opens and locks the folder.

        Args:
          stack: Closes the folder and all that the run opens.
          together: Number of runs in the group.
          start_time: Start of the run, from `time.perf_counter`; None: now.

        Raises:
          ValueError: The folder cannot be used for this run.
        """
        self.experiment = experiment
        self.failure: Stopped | None = None
        self._programs, self._stack, self._together = programs, stack, together
        self._start_time = time.perf_counter() if start_time is None else start_time
        keys = read_keys() if experiment.encrypt else None  # checked before anything is written
        writes = jax.process_index() == 0
        self._folder = stack.enter_context(RunFolder(workdir, experiment, writes))
        source = programs.setup.source
        self._folder.describe_input(source.train[0]["image"], source.low, source.high)
        self.checkpoints = Checkpoints(workdir, keys=keys)
        stack.callback(self.checkpoints.close)

    def state(self, step: int) -> TrainState:
        """Returns the state of a checkpoint, or the initial state for step 0."""
        if step:
            return self.checkpoints.restore(step, self._programs.restore_template())
        return self._programs.create(self.experiment.seed)

    def start_recording(self, step: int, *, tensorboard: bool, quiet: bool) -> None:
        """Records the training from a step on; later records in the folder are dropped."""
        self._folder.truncate_history(step)
        self._recorder = Recorder(
            self.experiment,
            self._folder,
            train_size=len(self._programs.setup.source.train),
            step=step,
            tensorboard=tensorboard,
            quiet=quiet,
            together=self._together,
        )
        self._stack.callback(self._recorder.close)

    def record(self, step: int, count: int, logs: Fetch, measurement: Fetch | None) -> None:
        """Records the `count` steps up to `step`; see `Recorder.add`."""
        with self._catch_failure():
            self._recorder.add(step, count, logs, measurement)

    def flush(self) -> None:
        """Writes pending records."""
        with self._catch_failure():
            self._recorder.flush()

    def record_validation(self, step: int, metrics: SplitMetrics | None) -> float:
        """Records validation metrics, if any, and returns the score of the step's checkpoint.

        Lower is better: the largest float without metrics, NaN if the run has failed.
        """
        if self.failure is not None:
            return math.nan
        score = sys.float_info.max
        if metrics is not None:
            score = selection_score(self.experiment, metrics)
            self._recorder.validation(step, metrics, score)
        return score

    def exclude_from_throughput(self) -> None:
        """Leaves the time since the last step out of the throughput."""
        self._recorder.exclude_from_throughput()

    @contextlib.contextmanager
    def _catch_failure(self) -> Iterator[None]:
        try:
            yield
        except Stopped as stopped:
            self.failure = self.failure or stopped

    def finish(self, last: TrainState, cost: Cost, *, report: bool) -> RunResult:
        """Evaluates the test split at the best checkpoint, and writes the result.

        Args:
          last: State after the last step.
          cost: Cost of the compiled step.
          report: Draw the report too.
        """
        self._recorder.close()
        best = self.checkpoints.best()
        assert best is not None
        state = last if best == int(last.step) else self.checkpoints.restore(best, last)
        programs, predictions = self._programs, None
        if report:
            test, predictions = programs.test.metrics_and_predictions(state)
        else:
            test = programs.test.metrics(state)
        result = RunResult(
            experiment=self.experiment.name,
            seed=self.experiment.seed,
            steps=self.experiment.steps,
            best_step=best,
            validation=programs.validation.metrics(state),
            test=test,
            constant_predictor=programs.constant_predictor,
            parameters=count_parameters(state, self.experiment.freeze),
            seconds=time.perf_counter() - self._start_time,
            **self._recorder.speed()._asdict(),
            **cost._asdict(),
            together=self._together,
            telemetry=self._recorder.telemetry(),
            skipped=self._recorder.skipped,
            device=parallel.describe(programs.setup.placement.mesh.size),
            environment=environment(),
        )
        if predictions is not None and jax.process_index() == 0:
            self._write_report(result, predictions)
        result = dataclasses.replace(result, seconds=time.perf_counter() - self._start_time)
        self.checkpoints.tidy()
        self._folder.finish(result)
        return result

    def write_report(self, result: RunResult) -> None:
        """Writes the report of the finished run."""
        state = self.checkpoints.restore(result.best_step, self._programs.restore_template())
        _, predictions = self._programs.test.metrics_and_predictions(state)
        self._write_report(result, predictions)

    def _write_report(self, result: RunResult, predictions: Predictions) -> None:
        from mtljax.report.run import write_report  # lazy: matplotlib takes long to import

        write_report(
            self._folder.path,
            experiment=self.experiment,
            history=self._folder.history(),
            result=result,
            test=predictions,
        )


def count_parameters(state: TrainState, freeze: Sequence[str] = ()) -> ParameterCounts:
    """Counts a model's parameters."""
    params = {name: part for name, part in state.params.items() if name != ADAPTERS}
    shared, specific = partition(params)
    task_specific: dict[str, int] = {}
    for path, leaf in specific.items():
        task_specific[str(task_of(path))] = task_specific.get(str(task_of(path)), 0) + leaf.size
    return ParameterCounts(
        total=sum(leaf.size for leaf in jax.tree.leaves(params)),
        shared=sum(leaf.size for leaf in shared.values()),
        task_specific=task_specific,
        frozen=sum(leaf.size for leaf in split_frozen(params, freeze)[1].values()),
    )


def environment() -> dict[str, str]:
    """Returns the versions that the numbers depend on."""
    packages = ("jax", "jaxlib", "flax", "optax", "numpy")
    versions = {"python": platform.python_version(), **{name: version(name) for name in packages}}
    return {**versions, "mtljax": __version__, "platform": platform.platform()}
