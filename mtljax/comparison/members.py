"""Members of a comparison: its runs, and those of them that are finished."""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from mtljax.comparison.plan import Candidate, Method
from mtljax.config import Experiment
from mtljax.data.folds import Fold
from mtljax.runs.folder import check_folder, read_result

Together = Literal["auto", "yes", "no"]
"""Whether seeds train in one program; auto: where that is faster."""


class Member(NamedTuple):
    """One run of a comparison, or the trials by which a method is tuned."""

    method: Method
    """Method that is compared."""
    candidate: Candidate
    """Setting of the method."""
    seed: int
    """Random seed."""
    folder: Path
    """Run folder."""
    fold: Fold | None = None
    """Fold of a cross-validation; None: the splits of the data."""
    parts: tuple[Path, ...] = ()
    """Folders of the single-task runs to merge; empty for a run that is trained."""
    trials: int = 0
    """Number of trials; 0 for a run."""
    space: tuple[str, ...] = ()
    """Space of the trials."""

    @property
    def experiment(self) -> Experiment:
        """Experiment of the run."""
        return self.candidate.member(self.seed, self.fold)

    @property
    def setting(self) -> str:
        """Method, candidate and fold, for messages."""
        settings = f" ({self.candidate.settings})" if self.candidate.settings else ""
        fold = f", fold {self.fold}" if self.fold else ""
        return f"{self.method.name}{settings}{fold}"

    @property
    def name(self) -> str:
        """Name for messages."""
        return f"{self.setting}, tuning" if self.trials else f"{self.setting}, seed {self.seed}"


class Failure(NamedTuple):
    """Run that did not finish."""

    member: str
    """Name of the run."""
    reason: str
    """Error message, in one line."""


def consecutive_seeds(first: int, count: int) -> range:
    """Returns seeds; raises ValueError if their number is not positive."""
    if count < 1:
        raise ValueError(f"--seeds must be >= 1, not {count}")
    return range(first, first + count)


def members_of(
    methods: Sequence[Method], seeds: Sequence[int], workdir: Path, folds: Sequence[Fold | None]
) -> list[Member]:
    """Returns the members of all methods, fold by fold, in the order in which they train."""
    return [
        Member(
            method,
            candidate,
            seed,
            candidate.folder(workdir, seed, fold),
            fold,
            tuple(part.folder(workdir, seed, fold) for part in candidate.parts),
        )
        for fold in folds
        for method in methods
        for candidate in method.candidates
        for seed in seeds
    ]


def is_finished(member: Member) -> bool:
    """Returns True if a member has a result; a folder that cannot be used is not finished."""
    try:
        check_folder(member.folder, member.experiment)
        return read_result(member.folder) is not None
    except ValueError:
        return False  # reported when it is trained


def groups_of(members: Sequence[Member]) -> list[list[Member]]:
    """Divides members into groups that the same program trains, in the same order."""
    same = itertools.groupby(members, lambda member: (member.fold, member.candidate.program))
    return [list(group) for _, group in same]
