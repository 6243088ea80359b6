"""What engines have in common: the work of a comparison, and where it is done."""

import contextlib
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Protocol

from mtljax.comparison.cross_validation import CrossValidation
from mtljax.comparison.member_training import Sources, train_members
from mtljax.comparison.members import Failure, Member, Together
from mtljax.comparison.progress import ComparisonProgress
from mtljax.utils.terminal import announcements
from mtljax.utils.text import count

TrainAll = Callable[[], list[Failure]]
"""Trains all members of a `Work` and returns those that failed."""


class Work(NamedTuple):
    """Unfinished runs of a comparison, and how to train them."""

    groups: list[list[Member]]
    """Members by program and fold, in order."""
    workdir: Path
    """Folder of the comparison."""
    validation: CrossValidation | None
    """Cross-validation whose folds are trained; None: the splits of the data."""
    devices: int | None
    """Number of devices to use; None: all."""
    together: Together
    """Whether seeds train in one program."""
    progress: ComparisonProgress
    """Display of the progress."""
    quiet: bool
    """True to print nothing but failures."""


class Resources(NamedTuple):
    """Resources of a machine that a task may use."""

    cpus: int
    """Number of CPUs."""
    gpus: int
    """Number of GPUs."""

    @property
    def text(self) -> str:
        """The resources as text: `2 CPUs and 1 GPU`."""
        return f"{count(self.cpus, 'CPU')} and {count(self.gpus, 'GPU')}"


def check_counts(**counts: tuple[int | None, int]) -> None:
    """Raises ValueError if an argument is below its least value: name=(value, least value)."""
    for name, (value, least) in counts.items():
        if value is not None and value < least:
            raise ValueError(f"--engine: {name} must be >= {least}, not {value}")


class Engine(Protocol):
    """Place where the runs of a comparison are trained."""

    def open(self, work: Work) -> contextlib.AbstractContextManager[TrainAll]:
        """Connects, and checks all that can be checked before anything is written.

        Raises:
          ValueError: The engine cannot be used, or not for these members.
        """


@dataclasses.dataclass(frozen=True, kw_only=True)
class Local:
    """This process: one program after the other, on all devices of this machine."""

    def open(self, work: Work) -> contextlib.AbstractContextManager[TrainAll]:
        """Returns the loop over the groups; nothing can fail before it."""
        return contextlib.nullcontext(lambda: _train_here(work))


def _train_here(work: Work) -> list[Failure]:
    failures: list[Failure] = []
    sources: Sources = {}
    for group in work.groups:
        with announcements(not work.quiet and not sources):  # what the first candidate does
            failures += train_members(
                group,
                sources=sources,
                progress=work.progress,
                validation=work.validation,
                devices=work.devices,
                together=work.together,
            )
    return failures
