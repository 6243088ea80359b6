"""The training loop: steps, records, evaluations, checkpoints, and the result at the end."""

import contextlib
import dataclasses
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import jax

from mtljax import parallel
from mtljax.build import load_source
from mtljax.config import Experiment
from mtljax.data import Source
from mtljax.evaluation.tables import result_table
from mtljax.runs.continuation import continue_run
from mtljax.runs.folder import REPORT, check_folder, read_result, with_recorded_tasks
from mtljax.runs.input_spec import check_folds
from mtljax.runs.result import RunResult
from mtljax.step.state import TrainState
from mtljax.training.executors import Cost
from mtljax.training.group import RunGroup, resume_step
from mtljax.training.programs import Programs
from mtljax.training.run import Run
from mtljax.training.setup import set_up
from mtljax.training.steps import take_steps, telemetry_interval
from mtljax.training.stopping import Interrupted, Stopped, stop_signal
from mtljax.training.trackers import Trackers
from mtljax.utils import optional
from mtljax.utils.terminal import announcements, console, phase, print_line

T = TypeVar("T")


def train(
    experiment: Experiment,
    workdir: Path | str,
    *,
    source: Source | None = None,
    load: Callable[[Experiment], Source] | None = None,
    devices: int | None = None,
    tensorboard: bool = False,
    mlflow: str | None = None,
    quiet: bool = False,
) -> RunResult:
    """Trains an experiment in a run folder, or resumes it, and returns its result.

    Args:
      experiment: The experiment.
      workdir: The run folder. An unfinished run of the same experiment is resumed from its latest
        checkpoint, bit for bit; of a finished one the result is returned, and the report drawn if
        it is missing.
      source: The data, if it is in memory (`mtljax.data.from_arrays`); None: the experiment's
        `data.source`, which is otherwise only a name.
      load: Replacement for `mtljax.build.load_source`, called if the run is unfinished; not with
        `source`.
      devices: Number of devices to use; None: all.
      tensorboard: Write event files to `workdir/tensorboard` too.
      mlflow: URI of an MLflow server or database that gets the records too.
      quiet: Suppress all output.

    Raises:
      ValueError: The experiment, the data or the devices are unusable (no file was written), or the
        folder is.
      Stopped: SIGTERM was received (the state is saved), or too many consecutive updates were not
        finite.
    """
    if source is not None and load is not None:
        raise ValueError("give either source or load, not both")
    start = time.perf_counter()
    workdir, quiet = Path(workdir), quiet or jax.process_index() > 0
    shorter = check_folder(workdir, experiment, may_continue=True)
    experiment = with_recorded_tasks(workdir, experiment)
    if source is not None:
        source = load_source(experiment, source)
    result = read_result(workdir) if shorter is None else None
    parallel.same_everywhere(result is not None, "whether the run is finished")
    if result is not None:
        if not quiet:
            print_line(
                f"{workdir} is finished already; continue it with --steps above {result.steps}, or "
                "choose another --workdir for a new run"
            )
            console.print(result_table(result))
        if not (workdir / REPORT).exists() and jax.process_count() == 1:  # as in a comparison
            programs = Programs(set_up(experiment, devices=devices, source=source))
            with contextlib.ExitStack() as stack:
                Run(experiment, workdir, programs, stack).write_report(result)
        return result

    trackers = Trackers(tensorboard, mlflow)
    trackers.check()
    if load is not None:
        # Checks the devices, before the data is read.
        parallel.place(experiment.data.batch_size, devices, experiment.sharding)
        with announcements(not quiet), phase(f"reading {experiment.data.source}"):
            source = load(experiment)
    with announcements(not quiet):
        programs = Programs(set_up(experiment, devices=devices, source=source))
        check_folds(workdir, programs.setup.source.folds)
        if shorter is not None:
            begin_continuation(workdir, experiment, shorter, quiet=quiet)
        (outcome,) = train_group(
            [experiment],
            [workdir],
            programs,
            trackers=trackers,
            quiet=quiet,
            start_time=start,
        )
    if isinstance(outcome, Stopped):
        raise outcome
    return outcome


def begin_continuation(
    workdir: Path, experiment: Experiment, shorter: RunResult, *, quiet: bool
) -> None:
    """Turns a finished run into an unfinished one of more steps; see `continue_run`."""
    if jax.process_index() == 0:
        continue_run(workdir, experiment, shorter)
    parallel.same_everywhere(True, "the continuation of the run")  # after the first has written
    if not quiet:
        print_line(
            f"continuing the finished run of {shorter.steps:,} steps, with schedule "
            f"{experiment.schedule} evaluated for {experiment.steps:,}; its result is kept in "
            f"{workdir / f'result-{shorter.steps}.json'}"
        )


def train_group(
    experiments: Sequence[Experiment],
    workdirs: Sequence[Path],
    programs: Programs,
    *,
    trackers: Trackers = Trackers(),
    quiet: bool = False,
    report: bool = True,
    progress: Callable[[int], None] = lambda step: None,
    start_time: float | None = None,
) -> list[RunResult | Stopped]:
    """Trains runs that differ in seed or preference only, side by side in one program.

    Each run writes a complete run folder. For the arguments that are not listed, see `train`.

    Args:
      experiments: The same experiment with different seeds, or with the same seed and different
        preferences of the balancer.
      workdirs: Folder of each run, without a result.
      programs: Programs of the experiment.
      report: Draw the report of each run.
      progress: Called with the number of steps taken, before the first and after every chunk.
      start_time: Start of the runs, from `time.perf_counter`; None: now.

    Returns:
      Per run its result, or the reason why it failed.

    Raises:
      ValueError: A folder cannot be used.
      Stopped: SIGTERM was received; the states are saved.
    """
    finish = lambda group, state, cost: group.finish(state, cost, report=report)
    outcomes = take_all_steps(
        experiments,
        workdirs,
        programs,
        finish,
        import_ahead="mtljax.report.run" if report else None,  # imports matplotlib
        trackers=trackers,
        quiet=quiet,
        progress=progress,
        start_time=start_time,
    )
    for outcome in () if quiet else outcomes:
        if isinstance(outcome, RunResult):
            _show(outcome)
    return outcomes


def take_all_steps(
    experiments: Sequence[Experiment],
    workdirs: Sequence[Path],
    programs: Programs,
    finish: Callable[[RunGroup, TrainState, Cost], T],
    *,
    observe: Callable[[RunGroup], None] = lambda group: None,
    import_ahead: str | None = None,
    trackers: Trackers = Trackers(),
    quiet: bool = True,
    progress: Callable[[int], None] = lambda step: None,
    start_time: float | None = None,
) -> T:
    """Takes the remaining steps of a group of runs, with evaluations and checkpoints.

    Args:
      finish: Called with the group, its last state and the cost of a step, while the folders are
        open; its value is returned.
      observe: Called with the group at the start and after each checkpoint.
      import_ahead: Module to import while the device computes.
    """
    tasks = programs.setup.experiment.tasks
    experiments = [dataclasses.replace(experiment, tasks=tasks) for experiment in experiments]
    experiment = experiments[0]
    seeds = [experiment.seed for experiment in experiments]
    step, cost = resume_step(workdirs, seeds), Cost()
    parallel.same_everywhere(step, "the step to resume from")
    # The initial weights are read before anything is written.
    messages = [f"resuming from step {step}"] if step else programs.setup.initial.report
    messages = [*map(str, programs.setup.source.notes), *programs.setup.derived, *messages]
    with contextlib.ExitStack() as stack:
        stop = stack.enter_context(stop_signal())
        group = RunGroup(experiments, workdirs, programs, stack, start_time=start_time)
        if resume_step(workdirs, seeds) != step:  # before the folders were locked
            raise ValueError(f"another run has just written to {workdirs[0]}; start this one again")
        state = group.start(step, trackers=trackers, quiet=quiet)
        messages += microbatch_warnings(experiment, state)
        for message in () if quiet else messages:
            print_line(message)
        progress(step)
        every = telemetry_interval(experiment)
        measure = programs.telemetry if every else None
        try:
            if jax.process_count() > 1 and stop.is_received():  # during the set-up
                raise Interrupted
            if step and is_evaluated_at(experiment, step) and group.lacks_evaluation(step):
                state = group.save(step, state, evaluate=True, stop=stop)
            observe(group)
            steps = take_steps(
                programs, seeds, state, step, measure=measure, measure_every=every, stop=stop
            )
            for chunk in () if group.has_ended else steps:
                step, state, cost = chunk.step, chunk.state, chunk.cost
                if import_ahead is not None:
                    optional.import_ahead(import_ahead)
                group.record(chunk)
                stopping = stop.is_received()  # a stopped run is evaluated later
                if stopping or is_evaluated_at(experiment, step):
                    chunk.state = state = group.save(step, state, evaluate=not stopping, stop=stop)
                    observe(group)
                if group.has_ended:
                    break
                if stopping or stop.is_pending():  # pending: during the evaluation
                    raise Interrupted
                progress(step)
            with stop.interruptible(), phase("evaluating the best checkpoint", announced=False):
                return finish(group, state, cost)
        except Interrupted:
            raise stopped_by_signal(step, workdirs[0]) from None


def _show(result: RunResult) -> None:
    console.print(result_table(result))
    if result.test_looks > 1:
        print_line(
            f"this is result {result.test_looks} of this run on the test split: choose the number "
            "of steps on validation, not by these test figures"
        )


def microbatch_warnings(experiment: Experiment, state: TrainState) -> list[str]:
    """Returns a warning if the result depends on the number of microbatches."""
    uses_batches = "batch_stats" in state.model_state and not experiment.freeze_statistics
    if experiment.microbatches == 1 or not uses_batches:
        return []
    size = experiment.data.batch_size // experiment.microbatches
    return [
        f"warning: with {experiment.microbatches} microbatches, batch normalization uses the "
        f"statistics of {size} examples, so results differ from those of the full batch of "
        f"{experiment.data.batch_size}; norm=group does not depend on the batch"
    ]


def is_evaluated_at(experiment: Experiment, step: int) -> bool:
    """Returns True if the state after `step` steps is evaluated on validation."""
    return step % experiment.eval_every == 0 or step == experiment.steps


def stopped_by_signal(step: int, workdir: Path) -> Stopped:
    """Returns the error for a run that SIGTERM ended after `step` steps."""
    message = f"stopped at step {step} and saved; --workdir {workdir} resumes from there"
    if step == 0:
        message = f"stopped before the first step; --workdir {workdir} starts again"
    return Stopped(message, status=128 + signal.SIGTERM)
