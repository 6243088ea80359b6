"""Tuning of the methods of a comparison, each with the same number of trials on validation."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from mtljax.comparison.members import Failure
from mtljax.comparison.plan import FOLDER, Candidate, Method
from mtljax.config import Experiment
from mtljax.config.overrides import with_overrides
from mtljax.training.stopping import Stopped
from mtljax.tuning.space import FLAG, Space, parse_space
from mtljax.tuning.study import Study
from mtljax.tuning.trials import SEED_OFFSET, Trainer, best_trials
from mtljax.utils.optional import require
from mtljax.utils.terminal import print_line
from mtljax.utils.text import count

STUDIES = "tuning"
"""Folder of the studies in the folder of a comparison."""
FACTOR = 10
"""The default space has learning rates between a FACTOR-th and FACTOR times the experiment's."""


@dataclasses.dataclass(frozen=True)
class Tuning:
    """Tuning of every method of a comparison."""

    trials: int
    """Number of trials of each method and of each single-task network."""
    space: tuple[str, ...]
    """`FIELD=DISTRIBUTION` per field."""
    seed: int
    """Seed of the trials."""

    @property
    def text(self) -> str:
        """Description as a sentence."""
        return (
            f"Each method and each single-task network was tuned by {count(self.trials, 'trial')} "
            f"on validation, {' '.join(self.space)}; seed {self.seed} of the trials is not among "
            "those of the results."
        )

    def run(
        self, methods: Sequence[Method], workdir: Path, *, devices: int | None, quiet: bool
    ) -> tuple[list[Method], list[Failure]]:
        """Trains the trials that are missing.

        Returns:
          The methods with the setting of their best trial as the candidate, and the methods of
          which all trials failed, which keep their setting.

        Raises:
          ValueError: A method cannot have a setting of the space; nothing was trained.
          Stopped: SIGTERM was received; the same call resumes.
        """
        require("optuna", "search", "--tune")
        trainer, failures = Trainer(devices=devices, quiet=quiet), []
        trained = [method for method in methods if not method.candidates[0].merge]
        experiments = [method.candidates[0].experiment for method in trained]
        spaces = [parse_space(self.space, experiment) for experiment in experiments]
        for experiment in experiments:
            trainer.check(experiment)
        (workdir / FOLDER).mkdir(parents=True, exist_ok=True)  # marks the folder
        tuned: dict[int, Candidate] = {}
        for method, space in zip(trained, spaces, strict=True):
            (candidate,) = method.candidates
            if not quiet:
                print_line(f"tuning {method.name}")
            try:
                tuned[id(candidate)] = self._tuned(candidate, space, workdir, trainer)
            except Stopped as stopped:
                if stopped.status != 1:  # a signal
                    raise
                failures.append(Failure(f"{method.name}, tuning", str(stopped)))
                tuned[id(candidate)] = candidate
        for method in methods:
            (candidate,) = method.candidates
            if candidate.merge:
                parts = tuple(tuned[id(part)] for part in candidate.parts)
                tuned[id(candidate)] = dataclasses.replace(candidate, parts=parts)
        return [
            dataclasses.replace(method, candidates=(tuned[id(method.candidates[0])],))
            for method in methods
        ], failures

    def _tuned(
        self, candidate: Candidate, space: Space, workdir: Path, trainer: Trainer
    ) -> Candidate:
        """Returns a candidate with the setting of its best trial."""
        experiment = candidate.experiment
        folder = workdir / STUDIES / candidate.folder(Path(), 0).parent.name
        study = Study(folder, experiment, space, seed=experiment.seed)
        (best,) = best_trials(trainer.run(study, experiment, self.trials), 1)
        experiment = with_overrides(experiment, best.overrides, FLAG)
        return dataclasses.replace(candidate, settings=best.settings, experiment=experiment)


def plan_tuning(
    experiment: Experiment,
    trials: int,
    space: Sequence[str],
    *,
    vary: Sequence[str] = (),
    grid: Sequence[str] = (),
    folds: int = 0,
) -> Tuning | None:
    """Returns the tuning of a comparison, None for 0 trials; for the others see `compare`.

    Raises:
      ValueError: A flag is invalid, or cannot be combined with another.
    """
    if trials < 0:
        raise ValueError(f"--tune must be >= 1 trial, not {trials}")
    if not trials:
        if space:
            raise ValueError(f"{FLAG} needs --tune N, the number of trials of each method")
        return None
    for flag, value in {"--grid": grid, "--folds": folds}.items():
        if value:
            raise ValueError(f"--tune cannot be combined with {flag}; leave one of them out")
    rate = experiment.learning_rate
    default = f"learning_rate=loguniform({rate / FACTOR:.4g},{rate * FACTOR:.4g})"
    fixed = ["balancer", "fusion", "trunk", *(text.partition("=")[0].strip() for text in vary)]
    for text in space or [default]:
        field = text.partition("=")[0].strip().replace("-", "_")
        if field in [name.replace("-", "_") for name in fixed]:
            raise ValueError(f"{FLAG} cannot have {field}: the methods differ in it")
    return Tuning(trials, tuple(space) or (default,), experiment.seed + SEED_OFFSET)
