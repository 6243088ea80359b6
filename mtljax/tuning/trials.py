"""Trials of a study: each trains one setting on validation, with a seed that no result has."""

import contextlib
import dataclasses
import shutil
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mtljax.config import Experiment
from mtljax.config.overrides import Override, with_overrides
from mtljax.data import Source
from mtljax.runs.checkpoints import FOLDER as CHECKPOINTS
from mtljax.runs.records import ValidationRecord
from mtljax.training.programs import Programs
from mtljax.training.setup import Setup, data_key, set_up
from mtljax.training.stopping import Stopped, stop_signal
from mtljax.training.validation import train_on_validation
from mtljax.tuning.records import TrialRecord, read_overrides
from mtljax.tuning.space import FLAG
from mtljax.tuning.storage import StorageError, is_unwritable
from mtljax.tuning.study import TRIALS, Study
from mtljax.utils.terminal import announcements, print_line
from mtljax.utils.text import count, number

if TYPE_CHECKING:
    import optuna

SEED_OFFSET = 1000
"""Seed of all trials minus that of the experiment, so that results have other seeds."""
WAIT = 1.0
"""Seconds between two looks at the trials of other processes."""
WORST = sys.float_info.max
"""Score of an evaluation that is not finite."""


class Pruned(Exception):
    """The trial is ended since other trials were better at the same evaluation."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trainer:
    """Training of the trials of one or several studies."""

    devices: int | None = None
    """Number of devices to use; None: all."""
    quiet: bool = False
    """True to print nothing but failures."""
    sources: dict[str, Source] = dataclasses.field(default_factory=dict)
    """Data that was read, by `data_key`."""

    def check(self, experiment: Experiment) -> None:
        """Reads the data and the initial weights of an experiment before a study is created.

        Raises:
          ValueError: They cannot be used, so that all trials would fail.
        """
        self._set_up(experiment).initial  # noqa: B018

    def _set_up(self, experiment: Experiment) -> Setup:
        key = data_key(experiment)
        with announcements(not self.quiet and not self.sources):
            setup = set_up(experiment, devices=self.devices, source=self.sources.get(key))
        self.sources[key] = setup.source
        return setup

    def run(self, study: Study, experiment: Experiment, total: int) -> list[TrialRecord]:
        """Trains the missing trials, until no process trains one, and returns all of them.

        Args:
          study: The study; several processes may call this with it.
          experiment: Experiment whose settings the trials change.
          total: Number of trials, those of earlier and other processes included.

        Raises:
          Stopped: SIGTERM was received (the same call resumes), or no trial was completed.
        """
        is_waiting = False
        with stop_signal() as stop:
            while not stop.was_received:
                with study.next_trial(total) as trial:
                    if trial is not None:
                        self._run_trial(study, trial, experiment)
                        if not self.quiet:
                            print_line(_line(study.records(), trial.number, total))
                        continue
                if not study.is_running():
                    break
                if not is_waiting and not self.quiet:
                    print_line("waiting for the trials of other processes")
                is_waiting = True
                time.sleep(WAIT)
            else:
                raise Stopped("stopped between two trials", status=128 + signal.SIGTERM)
        records = study.records()
        if not best_trials(records, 1):
            failed = [record for record in records if record.state == "failed"]
            number_failed = f"{len(failed)} of {count(len(records), 'trial')} failed"
            raise Stopped(f"no trial was completed: {number_failed}; the first: {failed[0].reason}")
        return records

    def _run_trial(self, study: Study, trial: "optuna.Trial", experiment: Experiment) -> None:
        """Trains the setting of a trial and tells the study its score."""
        overrides = read_overrides(trial.user_attrs)
        for other in best_trials(study.records()):
            if other.overrides == overrides and other.score is not None:
                study.complete(trial, other.score, f"same setting as trial {other.number + 1}")
                return
        workdir = study.folder / TRIALS / f"{trial.number + 1:04d}"
        try:
            score = self._train(study, trial, workdir, experiment, overrides)
        except Pruned:
            study.prune(trial)
        except (Stopped, StorageError):
            raise
        except Exception as error:
            if is_unwritable(error):  # the reason is not the setting: it is trained later
                raise
            study.fail(trial, error)
        else:
            if isinstance(score, Stopped):
                study.fail(trial, score)
            else:
                study.complete(trial, score)
        with contextlib.suppress(OSError):
            shutil.rmtree(workdir / CHECKPOINTS)  # results have other seeds

    def _train(
        self,
        study: Study,
        trial: "optuna.Trial",
        workdir: Path,
        experiment: Experiment,
        overrides: Sequence[Override],
    ) -> float | Stopped:
        """Returns the best score of a setting, or the reason why its training failed."""
        changed = with_overrides(experiment, overrides, FLAG)
        seed = experiment.seed + SEED_OFFSET
        changed = dataclasses.replace(changed, seed=seed, telemetry_every=0)
        programs, observe = Programs(self._set_up(changed)), _observer(study, trial, changed.steps)
        evaluations = train_on_validation(changed, workdir, programs, observe=observe)
        if isinstance(evaluations, Stopped):
            return evaluations
        score = min(record.score for record in evaluations)
        return Stopped("no evaluation has a finite score") if score == WORST else score


def best_trials(records: Sequence[TrialRecord], most: int | None = None) -> list[TrialRecord]:
    """Returns the complete trials with the lowest scores, at most one for each setting."""
    complete = [record for record in records if record.state == "complete"]
    by_setting: dict[str, TrialRecord] = {}
    for record in sorted(complete, key=lambda record: record.rank_score):
        by_setting.setdefault(record.settings, record)
    return list(by_setting.values())[:most]


def _observer(
    study: Study, trial: "optuna.Trial", steps: int
) -> Callable[[Sequence[ValidationRecord]], None]:
    """Returns a function that reports evaluations to the study and raises `Pruned`."""
    reported = study.reported(trial)

    def observe(evaluations: Sequence[ValidationRecord]) -> None:
        nonlocal reported
        for i in range(reported, len(evaluations)):
            study.report(trial, i + 1, min(record.score for record in evaluations[: i + 1]))
        is_new, reported = reported < len(evaluations), len(evaluations)
        if is_new and evaluations[-1].step < steps and study.should_prune(trial):
            raise Pruned

    return observe


def _line(records: Sequence[TrialRecord], index: int, total: int) -> str:
    """Returns the line of a trial that has ended."""
    record = records[index]
    text = f"trial {index + 1} of {total}: {record.settings}"
    if record.state == "failed":
        return f"{text}  FAILED: {record.reason}"
    if record.state == "pruned":
        return f"{text}  ended after {count(len(record.scores), 'evaluation')}"
    best = min(record.rank_score for record in records)
    is_best = "best" if record.score == best else f"best {number(best, 4)}"
    reason = f" ({record.reason})" if record.reason else ""
    return f"{text}  score {number(record.score, 4)}, {is_best}{reason}"
