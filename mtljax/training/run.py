"""One training run: its folder, its checkpoints, what it writes down and what came out of it."""

import contextlib
import math
import platform
import sys
import time
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import TracebackType
from typing import Any

import jax

from mtljax import parallel
from mtljax.config import Experiment, to_json
from mtljax.data import Source
from mtljax.evaluation.predictions import Predictions
from mtljax.models import partition, task_of
from mtljax.models.freezing import divide
from mtljax.runs.checkpoints import Checkpoints
from mtljax.runs.encryption import read_keys
from mtljax.runs.folder import RunFolder
from mtljax.runs.selection import selection_score
from mtljax.step.distillation import ADAPTERS
from mtljax.step.state import TrainState
from mtljax.training.programs import Programs
from mtljax.training.recorder import Fetch, Recorder
from mtljax.training.stopping import Stopped


class Run:
    """A run while it is trained, alone or beside others of the same `Programs`.

    Attributes:
      failure: Why it cannot go on, if so.
      checkpoints: Its own.
    """

    def __init__(
        self,
        experiment: Experiment,
        workdir: Path,
        programs: Programs,
        *,
        together: int = 1,
        began: float | None = None,
    ):
        """Opens the folder, and keeps other runs out of it until `close`.

        Args:
          experiment: With this run's seed.
          workdir: The run folder.
          programs: Of the experiment.
          together: How many runs are trained side by side.
          began: When the run began, by `time.perf_counter`; None: now.

        Raises:
          ValueError: It is not a folder for this run.
        """
        self.experiment, self.programs, self.together = experiment, programs, together
        self.failure: Stopped | None = None
        self._began = time.perf_counter() if began is None else began
        keys = read_keys() if experiment.encrypt else None
        self._stack = contextlib.ExitStack()
        with self._stack:
            folder = RunFolder(workdir, experiment, jax.process_index() == 0)
            self._folder = self._stack.enter_context(folder)
            source = programs.source
            folder.describe_input(source.train[0]["image"], source.low, source.high)
            self.checkpoints = Checkpoints(workdir, keys=keys)
            self._stack.enter_context(contextlib.closing(self.checkpoints))
            self._stack = self._stack.pop_all()

    def __enter__(self) -> "Run":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def latest(self) -> int:
        """The step that it can go on from."""
        return self.checkpoints.latest() or 0

    def state(self, step: int) -> TrainState:
        """The state to go on from, of step 0 or of a checkpoint."""
        if step:
            return self.checkpoints.restore(step, self.programs.restore_template())
        return self.programs.create(self.experiment.seed)

    def start(self, step: int, *, tensorboard: bool = False, quiet: bool = False) -> None:
        """Begins to write down what happens from a step on."""
        self._folder.forget_after(step)
        self._recorder = Recorder(
            self.experiment,
            self._folder,
            len(self.programs.source.train),
            step,
            tensorboard,
            quiet,
            self.together,
        )
        self._stack.enter_context(contextlib.closing(self._recorder))

    def add(self, step: int, count: int, logs: Fetch, telemetry: Fetch | None) -> None:
        """The logs of the `count` steps up to `step`, and what was measured before them."""
        with self._failing():
            self._recorder.add(step, count, logs, telemetry)

    def score(self, step: int, metrics: dict[str, dict[str, Any]] | None) -> float:
        """Writes down a step's metrics on validation; None: it was not evaluated.

        Returns:
          What the best checkpoint has least of; NaN if the run has failed.
        """
        with self._failing():
            self._recorder.flush()
        if self.failure is not None:
            return math.nan
        score = sys.float_info.max
        if metrics is not None:
            score = selection_score(self.experiment, metrics)
            self._recorder.validation(step, metrics, score)
        return score

    def save(self, state: TrainState, score: float) -> None:
        """Saves a state in the background."""
        self.checkpoints.save(state, score)

    def exclude_from_throughput(self) -> None:
        """What was done since the last step was no training."""
        self._recorder.exclude_from_throughput()

    @contextlib.contextmanager
    def _failing(self):
        try:
            yield
        except Stopped as stopped:
            self.failure = stopped

    def finish(self, last: TrainState, cost: dict[str, float], *, page: bool) -> dict[str, Any]:
        """Evaluates the test split at the best checkpoint, and writes what came out."""
        self._recorder.close()
        best = self.checkpoints.best()
        assert best is not None
        state = last if best == int(last.step) else self.checkpoints.restore(best, last)
        programs = self.programs
        predictions = None
        if page:
            test, predictions = programs.test.metrics_and_predictions(state)
        else:
            test = programs.test.metrics(state)
        result = {
            "experiment": self.experiment.name,
            "seed": self.experiment.seed,
            "steps": self.experiment.steps,
            "best_step": best,
            "validation": programs.validation.metrics(state),
            "test": test,
            "trivial": programs.constant_predictor,
            "parameters": count_parameters(state, self.experiment.freeze),
            "seconds": time.perf_counter() - self._began,
            **self._recorder.speed(),
            **cost,
            "together": self.together,
            "telemetry": self._recorder.telemetry(),
            "skipped": self._recorder.skipped,
            "device": parallel.describe(programs.placement.mesh.size),
            "environment": environment(),
        }
        if predictions is not None and jax.process_index() == 0:
            _draw(self.experiment, self._folder, result, predictions)
        result["seconds"] = time.perf_counter() - self._began
        self.checkpoints.tidy()
        self._folder.finish(result)
        return result

    def draw(self, result: dict[str, Any]) -> None:
        """Writes the report of the finished run."""
        state = self.checkpoints.restore(result["best_step"], self.programs.restore_template())
        _, predictions = self.programs.test.metrics_and_predictions(state)
        _draw(self.experiment, self._folder, result, predictions)


def _draw(
    experiment: Experiment, folder: RunFolder, result: dict[str, Any], predictions: Predictions
) -> None:
    """Writes the report into the run folder."""
    from mtljax.report.run import write_report  # matplotlib: not before it is needed

    write_report(
        folder.path,
        title=experiment.name,
        config=to_json(experiment),
        tasks=experiment.tasks,
        history=folder.history(),
        result=result,
        test=predictions,
    )


def draw_again(
    experiment: Experiment,
    workdir: Path,
    result: dict[str, Any],
    devices: int | None,
    source: Source | None = None,
) -> None:
    """Writes the report of a finished run, one of a comparison for instance, that has none."""
    programs = Programs(experiment, devices=devices, source=source)
    with Run(experiment, workdir, programs) as run:
        run.draw(result)


def count_parameters(state: TrainState, freeze: Sequence[str] = ()) -> dict[str, Any]:
    """Numbers of parameters: in all, shared, of each task, and frozen if some are.

    Those that only distillation uses are left out: the network does not need them.
    """
    params = {name: part for name, part in state.params.items() if name != ADAPTERS}
    shared, specific = partition(params)
    of_tasks: dict[str, int] = {}
    for path, leaf in specific.items():
        of_tasks[str(task_of(path))] = of_tasks.get(str(task_of(path)), 0) + leaf.size
    frozen = sum(leaf.size for leaf in divide(params, freeze)[1].values())
    return {
        "total": sum(leaf.size for leaf in jax.tree.leaves(params)),
        "shared": sum(x.size for x in shared.values()),
        "task_specific": of_tasks,
        **({"frozen": frozen} if frozen else {}),
    }


def environment() -> dict[str, str]:
    """Versions that the numbers depend on."""
    found = {"python": platform.python_version()}
    for package in ("jax", "jaxlib", "flax", "optax", "numpy", "mtljax"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # run from the repository, not installed
            from mtljax import __version__

            found[package] = __version__
    return {**found, "platform": platform.platform()}
