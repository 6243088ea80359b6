"""The host's loop: data -> steps -> log -> evaluate -> checkpoint, and the result at the end."""

import contextlib
import functools
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax

from mtljax import parallel
from mtljax.build import load_source
from mtljax.config import Experiment
from mtljax.data import Source
from mtljax.evaluation.tables import result_table
from mtljax.runs.checkpoints import saved_steps
from mtljax.runs.encryption import read_keys
from mtljax.runs.folder import REPORT, check_folder, read_result
from mtljax.runs.joint_checkpoints import JointCheckpoints, forget_joint, joint_step
from mtljax.step.state import TrainState
from mtljax.training.programs import Programs
from mtljax.training.recorder import Fetch, require_tensorboard
from mtljax.training.run import Run, draw_again
from mtljax.training.stopping import Stopped, stop_signal
from mtljax.utils.terminal import console, say


def train(
    experiment: Experiment,
    workdir: Path,
    *,
    source: Source | None = None,
    devices: int | None = None,
    tensorboard: bool = False,
    quiet: bool = False,
) -> dict[str, Any]:
    """Trains an experiment in a run folder, or goes on with it, and returns its result.

    Args:
      experiment: What to train.
      workdir: The run folder. If it holds this experiment unfinished, training goes on from its
        latest checkpoint, bit for bit; if finished, its result is returned, after its report was
        drawn if it has none.
      source: The data, if it is in memory, as in a notebook (`mtljax.data.from_arrays`); the
        experiment's `data.source` is then only what it is called. None: what that names.
      devices: How many to use; None: all.
      tensorboard: Also write event files to `workdir/tensorboard`.
      quiet: Print nothing.

    Raises:
      ValueError: The experiment, the data, the folder or the devices are not as they must be;
        then nothing was written.
      Stopped: SIGTERM came (the state is saved), or too many updates in a row were not finite.
    """
    began = time.perf_counter()
    quiet = quiet or jax.process_index() > 0
    check_folder(workdir, experiment)
    if source is not None:
        source = load_source(experiment, source)
    result = read_result(workdir)
    parallel.same_everywhere(result is not None, "whether the run is finished")
    if result is not None:
        if not quiet:
            say(f"{workdir} is finished already; for a new run choose another --workdir")
            console.print(result_table(result))
        if not (workdir / REPORT).exists() and jax.process_count() == 1:
            draw_again(experiment, workdir, result, devices, source)
        return result

    if tensorboard:
        require_tensorboard()
    programs = Programs(experiment, devices=devices, source=source)
    (outcome,) = train_together(
        [experiment], [workdir], programs, tensorboard=tensorboard, quiet=quiet, began=began
    )
    if isinstance(outcome, Stopped):
        raise outcome
    return outcome


def train_together(
    experiments: Sequence[Experiment],
    workdirs: Sequence[Path],
    programs: Programs,
    *,
    tensorboard: bool = False,
    quiet: bool = False,
    page: bool = True,
    progress: Callable[[int], None] = lambda step: None,
    began: float | None = None,
) -> list[dict[str, Any] | Stopped]:
    """Trains runs that differ only in their seed, side by side in one program if they are several.

    Each writes its own run folder, as if it were alone.

    Args:
      experiments: The same one with different seeds.
      workdirs: The run folder of each, unfinished.
      programs: Of the experiment.
      tensorboard: Also write event files.
      quiet: Print nothing.
      page: Draw the report of each.
      progress: Called with the number of steps that are behind.
      began: When the runs began, by `time.perf_counter`; None: now.

    Returns:
      Of each, in their order, its result, or why it could not be trained to the end.

    Raises:
      ValueError: A folder is not as it must be.
      Stopped: SIGTERM came; the states are saved.
    """
    experiment, count_runs = experiments[0], len(experiments)
    seeds, none = [experiment.seed for experiment in experiments], [None] * count_runs
    begins = not joint_step(workdirs[0], seeds) and not all(map(saved_steps, workdirs))
    report = programs.initial.report if begins else ()  # read before anything is written
    with contextlib.ExitStack() as stack:
        runs = [
            stack.enter_context(
                Run(experiment, workdir, programs, together=count_runs, began=began)
            )
            for experiment, workdir in zip(experiments, workdirs, strict=True)
        ]
        stop = stack.enter_context(stop_signal())
        joint = None
        if count_runs > 1:
            keys = read_keys() if experiment.encrypt else None
            joint = stack.enter_context(JointCheckpoints(workdirs[0], seeds, keys=keys))
        step, state = where_to_begin(runs, joint, programs)
        for run in runs:
            run.start(step, tensorboard=tensorboard, quiet=quiet)
        if not quiet:
            for line in (f"going on from step {step}",) if step else report:
                say(line)
        every = telemetry_interval(experiment)
        runner = programs.feed(seeds, step)

        while step < experiment.steps and not all(run.failure for run in runs):
            progress(step)
            count = steps_to_next_line(experiment, step)
            measuring = every and step % every == 0
            if measuring:
                before, batch = programs.keep(state), runner.batch(step)
            state, logs = runner.run(state, step, count)
            step += count
            agreement: Sequence[Fetch | None] = none
            if measuring:
                measured = programs.measure(before, state, batch, count_runs)
                agreement = of_each(functools.partial(jax.device_get, measured), count_runs, 0)
            own_logs = of_each(functools.partial(getattr, logs, "values"), count_runs, 1)
            for run, own_log, own_agreement in zip(runs, own_logs, agreement, strict=True):
                run.add(step, count, own_log, own_agreement)
            stopping = stop.came()
            evaluating = step % experiment.eval_every == 0 or step == experiment.steps
            if evaluating or stopping:
                metrics = programs.validate(state, count_runs) if evaluating else none
                scores = [run.score(step, own) for run, own in zip(runs, metrics, strict=True)]
                if joint is not None:
                    joint.save(step, state, scores)
                elif not runs[0].failure:
                    runs[0].save(state, scores[0])
                for run in runs:
                    run.exclude_from_throughput()
            if stopping and step < experiment.steps:
                raise Stopped(
                    f"stopped at step {step} and saved; --workdir {workdirs[0]} goes on from there",
                    status=128 + signal.SIGTERM,
                )
        # No result before every run's last checkpoint is there: the runs that are still to be
        # finished by another process, if this one dies, then have no step to take any more.
        for number, run in enumerate(runs):
            if joint is not None:
                joint.hand_out(number, run.checkpoints)
            run.checkpoints.wait()
        forget_joint(workdirs[0])
        outcomes: list[dict[str, Any] | Stopped] = []
        for run, own in zip(runs, programs.split(state, count_runs), strict=True):
            outcomes.append(run.failure or run.finish(own, runner.cost, page=page))
            if not quiet and isinstance(outcomes[-1], dict):
                console.print(result_table(outcomes[-1]))
    return outcomes


def where_to_begin(
    runs: Sequence[Run], joint: JointCheckpoints | None, programs: Programs
) -> tuple[int, TrainState]:
    """(step, joined state) of a checkpoint that all runs have, or 0 and a new state."""
    if joint is not None and (step := joint.latest()):
        return step, joint.restore(step, programs.join([programs.restore_template()] * len(runs)))
    step = min(run.latest() for run in runs)
    return step, programs.join([run.state(step) for run in runs])


def of_each(fetch: Fetch, runs: int, axis: int) -> list[Fetch]:
    """How to get each run's own part of what is fetched once, along an axis if they are several."""
    if runs == 1:
        return [fetch]
    whole = functools.cache(fetch)
    pick = lambda run: jax.tree.map(lambda x: x.take(run, axis), whole())
    return [functools.partial(pick, run) for run in range(runs)]


def steps_to_next_line(experiment: Experiment, step: int) -> int:
    """Steps until the next log line, evaluation or the end, whichever comes first."""
    return min(
        experiment.log_every - step % experiment.log_every,
        experiment.eval_every - step % experiment.eval_every,
        experiment.steps - step,
    )


STEPS_PER_TASK, LINES = 50, 10
"""At least so many steps for each task, and so many log lines, are between two measurements if the
experiment does not say: one costs about T + 5 passes, a plain step three, so this is below 5 % of
the plainest step's time, and of small networks' too, whose steps are looped over in one program."""


def telemetry_interval(experiment: Experiment) -> int:
    """Steps between two measurements, a multiple of those between lines; 0: none are made."""
    every = experiment.telemetry_every
    if every is None:
        every = max(STEPS_PER_TASK * len(experiment.tasks), LINES * experiment.log_every)
    if len(experiment.tasks) < 2:
        return 0
    return -(-every // experiment.log_every) * experiment.log_every
