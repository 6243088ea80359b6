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
from typing import Any

import jax

from mtljax import __version__, parallel
from mtljax.config import Experiment
from mtljax.config.balancers import split_preference
from mtljax.evaluation.predictions import Predictions
from mtljax.models import partition, task_of
from mtljax.models.freezing import split_frozen
from mtljax.optim.schedules import with_or_without_plateau
from mtljax.runs.checkpoints import Checkpoints
from mtljax.runs.encryption import read_keys
from mtljax.runs.folder import RunFolder, earlier_results
from mtljax.runs.input_spec import ImageSpec
from mtljax.runs.load import preference_of
from mtljax.runs.records import TrainRecord, ValidationRecord, total_seconds
from mtljax.runs.result import ParameterCounts, RunResult
from mtljax.runs.selection import selection_score
from mtljax.step.distillation import ADAPTERS
from mtljax.step.state import TrainState
from mtljax.tasks.metric import SplitMetrics
from mtljax.training.early_stopping import stopping_step
from mtljax.training.executors import Cost
from mtljax.training.programs import Programs
from mtljax.training.recorder import Fetch, Recorder
from mtljax.training.steps import Chunk
from mtljax.training.stopping import Stopped
from mtljax.training.trackers import Trackers
from mtljax.utils.terminal import print_line
from mtljax.utils.text import count


class Run:
    """A run in training, the only one of its group or one of several.

    Attributes:
      experiment: The experiment, with the run's seed.
      checkpoints: The run's checkpoints.
      merged: Description of the merging, for a run that is not trained.
      failure: Reason why the run cannot continue, if any.
      stopped_step: Step at which early stopping ended its training, if it did.
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
        self.merged: dict[str, Any] | None = None
        self.stopped_step: int | None = None
        self._programs, self._stack, self._together = programs, stack, together
        self._start_time = time.perf_counter() if start_time is None else start_time
        keys = read_keys() if experiment.encrypt else None  # checked before anything is written
        writes = jax.process_index() == 0
        self._folder = stack.enter_context(RunFolder(workdir, experiment, writes))
        source = programs.setup.source
        image = source.train[0]["image"]
        spec = ImageSpec(image.shape, str(image.dtype), source.low, source.high, source.folds)
        self._folder.describe_input(spec)
        self.checkpoints = Checkpoints(workdir, keys=keys)
        stack.callback(self.checkpoints.close)
        self._earlier_results = earlier_results(workdir)

    @property
    def has_ended(self) -> bool:
        """True if no later step counts: the run has failed or was stopped early."""
        return self.failure is not None or self.stopped_step is not None

    def state(self, step: int) -> TrainState:
        """Returns the state of a checkpoint, or the initial state for step 0."""
        if step:
            return restore(self.checkpoints, step, self._programs.restore_template())
        _, preference = split_preference(self.experiment.balancer)
        return self._programs.create(self.experiment.seed, preference)

    def start_recording(self, step: int, *, trackers: Trackers, quiet: bool) -> None:
        """Records the training from a step on; later records in the folder are dropped."""
        records = [r for r in self._folder.history() if isinstance(r, TrainRecord)]
        seconds = [total_seconds(records), *(r.seconds or 0 for r in self._earlier_results)]
        self._earlier_seconds, self._quiet = max(seconds), quiet
        self._folder.truncate_history(step)
        self._recorder = Recorder(
            self.experiment,
            self._folder,
            train_size=len(self._programs.setup.source.train),
            step=step,
            trackers=trackers.open(self.experiment, self._folder.path, step),
            quiet=quiet,
            together=self._together,
            start_time=self._start_time,
            earlier_seconds=self._earlier_seconds,
        )
        self._stack.callback(self._recorder.close)
        self._stop_early()

    def _stop_early(self) -> None:
        """Sets `stopped_step` if the evaluations so far require it."""
        start = max((result.last_step for result in self._earlier_results), default=0)
        patience = self.experiment.patience
        step = stopping_step(self._recorder.evaluations, patience, after=start)
        if step is not None and step < self.experiment.steps:
            self.stopped_step = step

    def record(self, chunk: Chunk, logs: Fetch, measurement: Fetch | None) -> None:
        """Records a chunk, with this run's logs and measurement; see `Recorder.add`."""
        taken = time.perf_counter()  # after the compilation of telemetry, if any
        finished = lambda: max(taken, chunk.logs.finished)
        with self._catch_failure():
            self._recorder.add(chunk.step, chunk.count, logs, measurement, finished)

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
            self._stop_early()
            if self.stopped_step is not None and not self._quiet:
                print_line(
                    f"stopped early at step {step} of {self.experiment.steps}: "
                    f"{count(self.experiment.patience or 0, 'evaluation')} without a better "
                    f"{self.experiment.select} (--patience)"
                )
        return score

    @property
    def evaluations(self) -> list[ValidationRecord]:
        """Evaluations on validation so far, those of earlier processes included."""
        return self._recorder.evaluations

    def is_evaluated(self, step: int) -> bool:
        """Returns True if the state of a step was evaluated on validation."""
        return any(record.step == step for record in self.evaluations)

    def report_learning_rate(self, step: int, old: float, new: float) -> None:
        """Prints a change of the factor of the learning rate by the plateau schedule."""
        if new != old and not self._quiet and not self.has_ended:
            print_line(f"step {step}: learning rate reduced to {new:.3g} times its schedule")

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
        self._recorder.close_progress()
        best = self.checkpoints.best()
        assert best is not None
        state = last if best == int(last.step) else self.checkpoints.restore(best, last)
        programs, predictions = self._programs, None
        seconds = lambda: self._earlier_seconds + time.perf_counter() - self._start_time
        if report:
            test, predictions = programs.test.metrics_and_predictions(state)
        else:
            test = programs.test.metrics(state)
        result = RunResult(
            experiment=self.experiment.name,
            seed=self.experiment.seed,
            steps=self.experiment.steps,
            stopped_step=self.stopped_step,
            best_step=best,
            validation=programs.validation.metrics(state),
            test=test,
            constant_predictor=programs.constant_predictor,
            parameters=count_parameters(state, self.experiment.freeze),
            test_looks=1 + len(self._earlier_results),
            preference=preference_of(state, [task.name for task in self.experiment.tasks]),
            merged=self.merged,
            seconds=seconds(),
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
        result = dataclasses.replace(result, seconds=seconds())
        self.checkpoints.tidy()
        self._folder.finish(result)
        self._recorder.finish(result.test, best)
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


def restore(checkpoints: Checkpoints, step: int, template: TrainState) -> TrainState:
    """Returns the state of a checkpoint, also of one before `schedule` became or was `plateau`.

    Raises:
      ValueError: The checkpoint is damaged, or belongs to another model.
    """
    if not checkpoints.fits(step, template):
        changed = template.replace(opt_state=with_or_without_plateau(template.opt_state))
        if checkpoints.fits(step, changed):
            state = checkpoints.restore(step, changed)
            return state.replace(opt_state=with_or_without_plateau(state.opt_state))
    return checkpoints.restore(step, template)


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
