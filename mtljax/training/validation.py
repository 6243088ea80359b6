"""Training of a run without its test split, for searches that compare settings on validation."""

from collections.abc import Callable, Sequence
from pathlib import Path

from mtljax.config import Experiment
from mtljax.runs.records import ValidationRecord
from mtljax.step.state import TrainState
from mtljax.training.executors import Cost
from mtljax.training.group import RunGroup
from mtljax.training.loop import take_all_steps
from mtljax.training.programs import Programs
from mtljax.training.stopping import Stopped


def train_on_validation(
    experiment: Experiment,
    workdir: Path,
    programs: Programs,
    *,
    observe: Callable[[Sequence[ValidationRecord]], None] = lambda evaluations: None,
) -> list[ValidationRecord] | Stopped:
    """Trains a run, or resumes it, without evaluating the test split, and without output.

    The run is not finished: `train` in the same folder takes no further step and evaluates the
    test split. For the arguments that are not listed, see `train_group`.

    Args:
      observe: Called with the run's evaluations, at the start of a resumed run and after each
        evaluation. An exception from it ends the training; the state is saved.

    Returns:
      The evaluations on validation, or the reason why the run failed: too many consecutive updates
      were not finite. The checkpoint with the lowest score is retained.

    Raises:
      ValueError: The folder cannot be used.
      Stopped: SIGTERM was received; the state is saved.
    """

    def finish(group: RunGroup, state: TrainState, cost: Cost) -> list[ValidationRecord] | Stopped:
        (run,) = group.runs
        return run.failure or run.evaluations

    return take_all_steps(
        [experiment],
        [workdir],
        programs,
        finish,
        observe=lambda group: observe(group.runs[0].evaluations),
    )
