"""Optuna study of a search: its storage, its trials, and locks that processes share it by.

The number of a trial is its place in the study. A process holds the lock of a trial that it trains,
so that a running trial without a holder is one of a process that was killed: it is continued.
"""

import contextlib
import uuid
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import filelock
import numpy as np

from mtljax.config import Experiment, to_json
from mtljax.runs.lock import writing_to
from mtljax.tuning.records import TrialRecord, read_record
from mtljax.tuning.space import Space
from mtljax.tuning.storage import open_storage, storage_errors
from mtljax.utils.files import null_for_nan, write_text
from mtljax.utils.locks import acquire_lock, release_lock
from mtljax.utils.optional import require
from mtljax.utils.terminal import print_line
from mtljax.utils.text import one_line, shortened
from mtljax.utils.tree import flatten_json

if TYPE_CHECKING:
    import optuna

DATABASE = "study.db"
"""SQLite file in the folder of a search, unless another storage is given."""
TRIALS = "trials"
"""Folder of the run folders of the trials, by number."""
Pruning = Literal["asha", "none"]
"""How bad trials are stopped; asha: successive halving."""
ATTEMPTS = 5
"""Number of processes that a trial may end, say for lack of memory, without a new evaluation."""
MIN_TRIALS = 4
"""Complete trials that importances need at least."""
REDUCTION = 3
"""One in so many trials goes on at each of the two rungs of ASHA."""


class Study:
    """Study that several processes may share.

    Attributes:
      folder: Folder of the study.
      space: Space of the settings.
    """

    def __init__(
        self,
        folder: Path,
        experiment: Experiment,
        space: Space,
        *,
        seed: int,
        storage: str | None = None,
        pruning: Pruning = "asha",
    ):
        """Creates the study, or opens that of the same experiment and space.

        Args:
          seed: Seed of the sampler.
          storage: URL of a database, or path of a journal file; None: `DATABASE` in the folder. It
            may hold the studies of other folders, too.
          pruning: `asha` ends trials with bad scores early.

        Raises:
          ValueError: Optuna is missing, the storage cannot be opened, or it has another study.
        """
        self.folder, self.space = folder, space
        self._seed = seed
        self._optuna = require("optuna", "search", "search")
        self._optuna.logging.set_verbosity(self._optuna.logging.WARNING)
        evaluations = -(-experiment.steps // experiment.eval_every)
        self._pruner = self._optuna.pruners.NopPruner()
        if pruning == "asha":
            self._pruner = self._optuna.pruners.SuccessiveHalvingPruner(
                min_resource=-(-evaluations // REDUCTION**2), reduction_factor=REDUCTION
            )
        self._default = space.parameters_of(experiment)
        with writing_to(folder):
            (folder / TRIALS).mkdir(parents=True, exist_ok=True)
        self._url = storage or f"sqlite:///{folder / DATABASE}"
        with self.exclusive(), self._errors():
            self._storage = open_storage(self._optuna, self._url)
            self._name = f"{experiment.name}-{self._identity()}"
            study = self._load(0, create=True)
            for key, value in (("space", list(space.texts)), ("experiment", to_json(experiment))):
                if key in study.user_attrs:
                    self._require_same(key, study.user_attrs[key], value)
                else:
                    study.set_user_attr(key, value)

    def _errors(self) -> contextlib.AbstractContextManager[None]:
        return storage_errors(self._url)

    def _identity(self) -> str:
        """Returns the identity of the folder, whose runs belong to the study."""
        path = self.folder / TRIALS / ".study"
        if not path.exists():
            write_text(path, uuid.uuid4().hex[:12])
        return path.read_text()

    def _require_same(self, key: str, old: Any, new: Any) -> None:
        pairs = {key: (old, new)}
        if key == "experiment":
            before, after = flatten_json(old), flatten_json(null_for_nan(new))
            pairs = {name: (value, after.get(name)) for name, value in before.items()}
        for name, (was, now) in pairs.items():
            if was != now:
                raise ValueError(
                    f"{self.folder} holds a search with {name}={shortened(str(was), 120)}, not "
                    f"{shortened(str(now), 120)}; choose another --workdir, or restore the flag to "
                    "resume it"
                )

    def _load(self, number: int, *, create: bool = False) -> "optuna.Study":
        """Returns the study with a sampler for the trial of a number.

        So the settings do not depend on which process draws them, or on interruptions.
        """
        seed = np.random.SeedSequence([self._seed, number]).generate_state(1)
        options: dict[str, Any] = {
            "study_name": self._name,
            "storage": self._storage,
            "sampler": self._optuna.samplers.TPESampler(seed=int(seed[0])),
            "pruner": self._pruner,
        }
        if create:
            return self._optuna.create_study(load_if_exists=True, **options)
        return self._optuna.load_study(**options)

    @contextlib.contextmanager
    def exclusive(self, name: str = "study", waiting: str = "") -> Iterator[None]:
        """Context that one process at a time is in; the others print `waiting` and wait."""
        try:
            lock = self._acquire(name)
        except filelock.Timeout:
            if waiting:
                print_line(waiting)
            lock = self._acquire(name, timeout=-1)
        try:
            yield
        finally:
            lock.release()

    def _acquire(self, name: str, timeout: float = 0) -> filelock.BaseFileLock:
        path = self._lock_file(name)
        lock = acquire_lock(path, timeout)
        if lock is None:
            raise ValueError(
                f"the file system of {path.parent} has no locks, which a search needs; choose "
                "another --workdir"
            )
        return lock

    def _lock_file(self, name: str) -> Path:
        return self.folder / TRIALS / f".{name}.lock"

    @contextlib.contextmanager
    def next_trial(self, total: int) -> Iterator["optuna.Trial | None"]:
        """Context of a trial of this process; None if there is no trial left.

        It is one of a process that was killed, or a new one while there are fewer than `total`. The
        trial has its setting in `user_attrs`.
        """
        with self.exclusive(), self._errors():
            claimed = self._claim(total)
        if claimed is None:
            yield None
            return
        trial, lock = claimed
        try:
            yield trial
        finally:
            release_lock(lock, self._lock_file(str(trial.number)))

    def _claim(self, total: int) -> "tuple[optuna.Trial, filelock.BaseFileLock] | None":
        states = self._optuna.trial.TrialState
        trials = self._load(0).get_trials(deepcopy=False)
        for running in trials:
            if running.state != states.RUNNING:
                continue
            try:
                lock = self._acquire(str(running.number))
            except filelock.Timeout:
                continue
            study = self._load(running.number)
            # It may have ended since it was read.
            if study.get_trials(deepcopy=False)[running.number].state == states.RUNNING:
                trial = self._optuna.trial.Trial(study, running._trial_id)
                self._draw(trial)
                if self._may_continue(trial, len(running.intermediate_values)):
                    return trial, lock
                self.fail(trial, ValueError(f"its process was killed {ATTEMPTS} times in a row"))
            release_lock(lock, self._lock_file(str(running.number)))
        number = sum(frozen.state != states.WAITING for frozen in trials)
        if number >= total:
            return None
        study = self._load(number)
        if not trials and self._default is not None:
            study.enqueue_trial(self._default)  # so that the result is not worse than without
        trial = study.ask()
        lock = self._acquire(str(trial.number))
        self._draw(trial)
        return trial, lock

    def _may_continue(self, trial: "optuna.Trial", evaluations: int) -> bool:
        """Returns False for a trial that was killed too often without a new evaluation."""
        before, attempts = trial.user_attrs.get("attempts", (evaluations, 1))
        attempts = attempts + 1 if before == evaluations else 1
        trial.set_user_attr("attempts", (evaluations, attempts))
        return attempts <= ATTEMPTS

    def _draw(self, trial: "optuna.Trial") -> None:
        trial.set_user_attr("overrides", self.space.draw(trial))

    def complete(self, trial: "optuna.Trial", score: float, reason: str = "") -> None:
        """Ends a trial with its score; lower is better."""
        with self._errors():
            trial.set_user_attr("reason", reason)
            trial.study.tell(trial, score)

    def prune(self, trial: "optuna.Trial") -> None:
        """Ends a trial early because of its scores so far."""
        with self._errors():
            trial.study.tell(trial, state=self._optuna.trial.TrialState.PRUNED)

    def fail(self, trial: "optuna.Trial", error: Exception) -> None:
        """Ends a trial that has no score."""
        with self._errors():
            trial.set_user_attr("reason", one_line(error))
            trial.study.tell(trial, state=self._optuna.trial.TrialState.FAIL)

    def reported(self, trial: "optuna.Trial") -> int:
        """Returns the number of evaluations that were reported, by earlier processes as well."""
        with self._errors():
            return len(trial.study.get_trials(deepcopy=False)[trial.number].intermediate_values)

    def report(self, trial: "optuna.Trial", evaluation: int, score: float) -> None:
        """Reports the best score so far after an evaluation, counted from 1."""
        with self._errors():
            trial.report(score, evaluation)

    def should_prune(self, trial: "optuna.Trial") -> bool:
        """Returns True if other trials were better at the same evaluation."""
        with self._errors():
            return trial.should_prune()

    def is_running(self) -> bool:
        """Returns True if a process trains a trial of the study."""
        return any(record.state == "running" for record in self.records())

    def records(self) -> list[TrialRecord]:
        """Returns all trials so far by number."""
        with self._errors():
            trials = self._load(0).get_trials(deepcopy=False)
        return [read_record(t) for t in sorted(trials, key=lambda t: t.number)]

    def importances(self) -> dict[str, float]:
        """Returns the fractions of the variance of the scores by parameter; empty for few trials.

        References:
          Watanabe et al., 2023, arXiv:2304.10255 (PED-ANOVA)
        """
        complete = [record for record in self.records() if record.state == "complete"]
        if len(complete) < MIN_TRIALS:
            return {}
        importance = self._optuna.importance
        evaluator = importance.PedAnovaImportanceEvaluator()
        with self._errors(), warnings.catch_warnings():
            warnings.simplefilter("error")  # scores that are equal say nothing
            try:
                return importance.get_param_importances(self._load(0), evaluator=evaluator)
            except (Warning, ValueError):
                return {}
