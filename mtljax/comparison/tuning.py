"""Tuning of the methods of a comparison, each with the same number of trials on validation."""

import contextlib
import dataclasses
from collections.abc import Sequence
from pathlib import Path

from mtljax.comparison.engines.base import Engine, Local, Work
from mtljax.comparison.members import Failure, Member
from mtljax.comparison.plan import FOLDER, Candidate, Method
from mtljax.comparison.progress import ComparisonProgress
from mtljax.comparison.trials import has_all_trials, train_trials
from mtljax.config import Experiment
from mtljax.config.overrides import with_overrides
from mtljax.training.stopping import Stopped
from mtljax.tuning.records import TrialRecord
from mtljax.tuning.space import FLAG, parse_space
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
        self,
        methods: Sequence[Method],
        workdir: Path,
        engine: Engine = Local(),
        *,
        devices: int | None,
        quiet: bool,
    ) -> tuple[list[Method], list[Failure]]:
        """Trains the trials that are missing: those of a method one after the other.

        An engine other than this process trains the trials of several methods at a time.

        Returns:
          The methods with the setting of their best trial as the candidate, and the methods of
          which all trials failed, which keep their setting.

        Raises:
          ValueError: A method cannot have a setting of the space, or the engine cannot be used;
            nothing was trained.
          Stopped: SIGTERM was received, or trials are missing since workers failed; the same call
            resumes.
        """
        require("optuna", "search", "--tune")
        members = [
            self._member(method, workdir) for method in methods if not method.candidates[0].merge
        ]
        for member in members:
            parse_space(self.space, member.candidate.experiment)
        trainer = Trainer(devices=devices, quiet=quiet)
        if isinstance(engine, Local):
            for member in members:
                trainer.check(member.candidate.experiment)
            (workdir / FOLDER).mkdir(parents=True, exist_ok=True)  # marks the folder
        else:
            _train_elsewhere(members, workdir, engine, devices, quiet)
        failures: list[Failure] = []
        tuned: dict[int, Candidate] = {}
        for member in members:
            candidate = member.candidate
            if not quiet and isinstance(engine, Local):
                print_line(f"tuning {member.method.name}")
            try:
                tuned[id(candidate)] = _with_best(candidate, train_trials(member, trainer))
            except Stopped as stopped:
                if stopped.status != 1:  # a signal
                    raise
                failures.append(Failure(member.name, str(stopped)))
                tuned[id(candidate)] = candidate
        return _with_candidates(methods, tuned), failures

    def _member(self, method: Method, workdir: Path) -> Member:
        (candidate,) = method.candidates
        folder = workdir / STUDIES / candidate.folder(Path(), 0).parent.name
        return Member(method, candidate, self.seed, folder, trials=self.trials, space=self.space)


def _train_elsewhere(
    members: Sequence[Member], workdir: Path, engine: Engine, devices: int | None, quiet: bool
) -> None:
    """Trains the missing trials on an engine.

    Raises:
      ValueError: The engine cannot be used, or a folder has another study.
      Stopped: SIGTERM was received, or the engine did not train all trials.
    """
    pending = [member for member in members if not has_all_trials(member)]
    if not pending:
        return
    progress = ComparisonProgress(len(members), pending, quiet=quiet)
    work = Work([[member] for member in pending], workdir, None, devices, "no", progress, quiet)
    with engine.open(work) as train, progress.bar or contextlib.nullcontext():
        failures = {failure.member: failure.reason for failure in train()}
    for member in pending:
        if member.name in failures and not has_all_trials(member):  # else all trials failed
            raise Stopped(f"{member.name}: {failures[member.name]}; run the same command to resume")


def _with_best(candidate: Candidate, records: Sequence[TrialRecord]) -> Candidate:
    """Returns a candidate with the setting of its best trial."""
    (best,) = best_trials(records, 1)
    experiment = with_overrides(candidate.experiment, best.overrides, FLAG)
    return dataclasses.replace(candidate, settings=best.settings, experiment=experiment)


def _with_candidates(methods: Sequence[Method], tuned: dict[int, Candidate]) -> list[Method]:
    """Returns the methods with other candidates, by the `id` of theirs, and merges of these."""
    changed = []
    for method in methods:
        (candidate,) = method.candidates
        if candidate.merge:
            parts = tuple(tuned[id(part)] for part in candidate.parts)
            new = dataclasses.replace(candidate, parts=parts)
        else:
            new = tuned[id(candidate)]
        changed.append(dataclasses.replace(method, candidates=(new,)))
    return changed


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
