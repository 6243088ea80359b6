"""Search for settings of an experiment: trials, the best ones with all seeds, report and file."""

from collections.abc import Sequence
from pathlib import Path

from mtljax.comparison.members import Failure, Together
from mtljax.comparison.plan import Candidate, Method
from mtljax.comparison.running import run_members
from mtljax.comparison.workdir import check_workdir
from mtljax.config import Experiment
from mtljax.config.files import run_config
from mtljax.config.overrides import with_overrides
from mtljax.searching.conclusions import conclusions, to_terminal, trials_to_csv
from mtljax.searching.outcome import DEFAULT, SearchOutcome, collect
from mtljax.tuning.records import TrialRecord
from mtljax.tuning.space import FLAG, parse_space
from mtljax.tuning.study import TRIALS, Pruning, Study
from mtljax.tuning.trials import SEED_OFFSET, Trainer, best_trials
from mtljax.utils.files import write_json, write_text
from mtljax.utils.optional import require
from mtljax.utils.terminal import console, print_line

BEST = "best.json"
"""File with the experiment of the best setting, for `--experiment`."""


def search(
    experiment: Experiment,
    workdir: Path | str,
    *,
    space: Sequence[str],
    trials: int = 40,
    seeds: int = 5,
    finalists: int = 3,
    pruning: Pruning = "asha",
    storage: str | None = None,
    devices: int | None = None,
    together: Together = "auto",
    quiet: bool = False,
) -> tuple[SearchOutcome, list[Failure]]:
    """Searches for settings with a lower validation score, by `Experiment.select`.

    The sampler is TPE. Trials never evaluate the test split. The best settings and that of the
    experiment are then trained with several seeds, which the trials do not have, and the mean
    validation score chooses between them. Test metrics are read for the chosen one and that of the
    experiment only.

    An interrupted search resumes, and several processes may work in the same folder.

    Args:
      experiment: Experiment with the default setting; its seed is the first.
      workdir: Folder for the study, the page, `best.json` and the run folders.
      space: `FIELD=DISTRIBUTION` per field; see `mtljax.tuning.space`.
      trials: Number of trials, those of earlier and other processes included.
      seeds: Number of consecutive seeds of the best settings.
      finalists: Number of settings to train with all seeds.
      pruning: `asha` ends trials with bad scores early, by asynchronous successive halving.
      storage: URL of a database, or path of a journal file; None: an SQLite file in `workdir`.
      devices: Number of devices to use; None: all.
      together: Train all seeds of a setting in one program; auto: where that is faster.
      quiet: Show no progress.

    Returns:
      The outcome, and the runs that failed.

    Raises:
      ValueError: Invalid arguments; nothing was written.
      Stopped: SIGTERM was received (the same call resumes), or no trial was completed.

    References:
      Bergstra et al., 2011 (TPE); Li et al., 2020, arXiv:1810.05934 (ASHA)
    """
    for flag, value in {"trials": trials, "seeds": seeds, "finalists": finalists}.items():
        if value < 1:
            raise ValueError(f"--{flag} must be >= 1, not {value}")
    if seeds > SEED_OFFSET:
        raise ValueError(f"--seeds must be <= {SEED_OFFSET}, not {seeds}")
    workdir, parsed = Path(workdir), parse_space(space, experiment)
    check_workdir(workdir, TRIALS, "search")
    require("optuna", "search", "search")
    trainer, seed = Trainer(devices=devices, quiet=quiet), experiment.seed
    trainer.check(experiment)
    study = Study(workdir, experiment, parsed, seed=seed, storage=storage, pruning=pruning)
    records = trainer.run(study, experiment, trials)
    default = Candidate(settings="", experiment=experiment)
    others = _candidates(experiment, records)[:finalists]
    methods = [
        Method(name=name, kind="method", baseline="", candidates=tuple(candidates))
        for name, candidates in ((DEFAULT, [default]), ("tuned", others))
        if candidates
    ]
    numbers = range(seed, seed + seeds)
    waiting = "" if quiet else "waiting for the process that trains the best settings"
    with study.exclusive("results", waiting):  # the others will find the runs finished
        failures = run_members(
            methods, numbers, workdir, devices=devices, together=together, quiet=quiet
        )
        importances = study.importances()
        outcome = collect(
            experiment, parsed, records, importances, [default, *others], numbers, workdir
        )
        write(outcome, failures, workdir)
    return outcome, failures


def _candidates(experiment: Experiment, records: Sequence[TrialRecord]) -> list[Candidate]:
    """Returns the settings of the complete trials other than the default, the best first."""
    candidates = (
        Candidate(
            settings=record.settings,
            experiment=with_overrides(experiment, record.overrides, FLAG),
        )
        for record in best_trials(records)
    )
    return [candidate for candidate in candidates if candidate.experiment != experiment]


def show(outcome: SearchOutcome) -> None:
    """Prints the table and conclusions."""
    console.print(to_terminal(outcome))
    for sentence in conclusions(outcome):
        print_line(sentence)


def write(outcome: SearchOutcome, failures: Sequence[Failure], workdir: Path) -> None:
    """Writes the table of trials, the experiment of the best setting, and the page."""
    from mtljax.searching.page import write_page  # imports matplotlib

    write_text(workdir / "trials.csv", trials_to_csv(outcome))
    write_json(workdir / BEST, run_config(outcome.best.candidate.experiment))
    write_page(workdir, outcome, failures)
