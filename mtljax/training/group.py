"""Group of runs that train side by side in one program.

They differ in their seed or in the preference of their balancer.
"""

import contextlib
import functools
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np

from mtljax.config import Experiment
from mtljax.optim.schedules import reductions
from mtljax.runs.checkpoints import saved_steps
from mtljax.runs.encryption import read_keys
from mtljax.runs.joint_checkpoints import (
    JointCheckpoints,
    SingleCheckpoints,
    delete_joint,
    group_names,
    joint_step,
)
from mtljax.runs.result import RunResult
from mtljax.step.state import TrainState
from mtljax.tasks.metric import SplitMetrics
from mtljax.training.executors import Cost
from mtljax.training.programs import Programs
from mtljax.training.recorder import Fetch
from mtljax.training.run import Run
from mtljax.training.steps import Chunk
from mtljax.training.stopping import Interrupted, Stopped, StopSignal
from mtljax.training.trackers import Trackers
from mtljax.utils.terminal import phase


def resume_step(workdirs: Sequence[Path], seeds: Sequence[int]) -> int:
    """Returns the latest step that all runs of a group have a checkpoint of; 0 if there is none."""
    common = set.intersection(*({0, *saved_steps(workdir)} for workdir in workdirs))
    return joint_step(workdirs[0], group_names(workdirs, seeds)) or max(common)


class RunGroup:
    """Runs that train side by side, in the order of the stacked state, or a single run."""

    def __init__(
        self,
        experiments: Sequence[Experiment],
        workdirs: Sequence[Path],
        programs: Programs,
        stack: contextlib.ExitStack,
        *,
        start_time: float | None = None,
    ):
        """Opens and locks the folders until the `stack` closes; raises as `Run` does."""
        self._programs, self._workdir = programs, workdirs[0]
        count = len(experiments)
        self.runs = [
            Run(experiment, workdir, programs, stack, together=count, start_time=start_time)
            for experiment, workdir in zip(experiments, workdirs, strict=True)
        ]
        self._checkpoints: SingleCheckpoints | JointCheckpoints
        if count == 1:
            self._checkpoints = SingleCheckpoints(self.runs[0].checkpoints)
        else:
            names = group_names(workdirs, [experiment.seed for experiment in experiments])
            keys = read_keys() if experiments[0].encrypt else None
            self._checkpoints = JointCheckpoints(self._workdir, names, keys=keys)
            stack.callback(self._checkpoints.close)

    @property
    def has_ended(self) -> bool:
        """True if every run has failed or was stopped early."""
        return all(run.has_ended for run in self.runs)

    @property
    def _stopped(self) -> list[bool]:
        """True for the runs that were stopped early; later steps do not count for them."""
        return [run.stopped_step is not None for run in self.runs]

    def start(self, step: int, *, trackers: Trackers, quiet: bool) -> TrainState:
        """Returns the state at `resume_step`, and starts the records of the runs."""
        joint = self._checkpoints
        if step and isinstance(joint, JointCheckpoints) and step == joint.latest():
            template = self._programs.stack([self._programs.restore_template()] * len(self.runs))
            state = joint.restore(step, template)
            # The steps of runs that were stopped early are older.
            steps = np.full(state.step.shape, step, state.step.dtype)
            state = state.replace(step=jax.device_put(steps, state.step.sharding))
            for run, has_failed in zip(self.runs, joint.has_failed, strict=True):
                if has_failed:
                    run.failure = Stopped("failed before it was interrupted: updates not finite")
        else:
            state = self._programs.stack([run.state(step) for run in self.runs])
        for run in self.runs:
            run.start_recording(step, trackers=trackers, quiet=quiet)
        self._programs.validation.compile_ahead(state)
        return state

    def record(self, chunk: Chunk) -> None:
        """Records a chunk of steps for every run."""
        logs = self._per_run(lambda: chunk.logs.values, axis=1)
        measurements: Sequence[Fetch | None] = [None] * len(self.runs)
        if chunk.measurement is not None:
            measurements = self._per_run(lambda: jax.device_get(chunk.measurement), axis=0)
        for run, log, measurement in zip(self.runs, logs, measurements, strict=True):
            if run.stopped_step is None:
                run.record(chunk, log, measurement)

    def _per_run(self, fetch: Fetch, axis: int) -> list[Fetch]:
        """Splits what is fetched once along the axis of runs."""
        if len(self.runs) == 1:
            return [fetch]
        fetch_all = functools.cache(fetch)
        take = lambda run: jax.tree.map(lambda x: np.take(x, run, axis), fetch_all())
        return [functools.partial(take, run) for run in range(len(self.runs))]

    def lacks_evaluation(self, step: int) -> bool:
        """True if the group was stopped at this step before it was evaluated."""
        return any(not run.has_ended and not run.is_evaluated(step) for run in self.runs)

    def save(self, step: int, state: TrainState, *, evaluate: bool, stop: StopSignal) -> TrainState:
        """Saves a checkpoint of every run, after its evaluation on validation if requested.

        A signal to stop ends the evaluation; the checkpoint is saved without it.

        Returns:
          The state, with the scores taken into account by a plateau schedule.
        """
        stopped = self._stopped  # before this evaluation
        for run in self.runs:
            run.flush()  # before the evaluation, whose time is not that of the steps
        metrics: Sequence[SplitMetrics | None] = [None] * len(self.runs)
        if evaluate and not self.has_ended:
            try:
                with stop.interruptible(), phase(f"evaluating step {step}", announced=False):
                    metrics = self._programs.validation.metrics_per_run(state)
            except Interrupted:
                evaluate = False
        scores = [
            run.record_validation(step, None if ended else values)
            for run, values, ended in zip(self.runs, metrics, stopped, strict=True)
        ]
        if evaluate:
            before = reductions(state.opt_state)
            state = self._programs.observe_scores(state, scores)
            for run, old, new in zip(self.runs, before, reductions(state.opt_state), strict=False):
                run.report_learning_rate(step, old, new)
        self._checkpoints.save(step, state, scores, stopped)
        for run in self.runs:
            run.exclude_from_throughput()
        return state

    def finish(self, state: TrainState, cost: Cost, *, report: bool) -> list[RunResult | Stopped]:
        """Evaluates the runs on the test split and writes their results.

        Returns:
          Per run its result, or the reason why it failed.
        """
        # All checkpoints before the first result: if this process is killed meanwhile, the next
        # one has no step left to take for the unfinished runs.
        self._checkpoints.distribute([run.checkpoints for run in self.runs])
        delete_joint(self._workdir)
        return [
            run.failure or run.finish(own_state, cost, report=report)
            for run, own_state in zip(self.runs, self._programs.unstack(state), strict=True)
        ]
