"""Progress of a comparison."""

import time
from collections.abc import Sequence
from typing import Protocol

from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

from mtljax.comparison.members import Failure, Member
from mtljax.utils.terminal import can_show_bar, console, print_line
from mtljax.utils.text import count, one_line


class Progress(Protocol):
    """Receiver of what happens to the runs that train."""

    def start(self, part: Sequence[Member]) -> None:
        """The runs train from now on, side by side."""

    def step(self, step: int) -> None:
        """They have taken this number of steps."""

    def finished(self, member: Member) -> None:
        """A run is finished."""

    def failed(self, member: Member, error: BaseException) -> Failure:
        """A run has failed; returns what to report."""


def failure(member: Member, error: BaseException) -> Failure:
    """Returns the report of a run that failed, in one line."""
    return Failure(member.name, one_line(error))


class ComparisonProgress:
    """Progress over all runs: a bar on a terminal, elsewhere one line per run."""

    def __init__(self, total: int, pending: Sequence[Member], *, quiet: bool):
        self._quiet, self._total, self._done = quiet, total, total - len(pending)
        self._total_steps = sum(member.candidate.steps for member in pending)
        self._steps_done, self._steps_now = 0, 0
        self._start_time = time.perf_counter()
        if self._done and not quiet:
            print_line(f"{self._done} of {total} runs are finished already")
        self.bar: Bar | None = None
        if can_show_bar() and not quiet and pending:
            self.bar = Bar(
                TextColumn("{task.completed:.0f}/{task.total:.0f} steps"),
                BarColumn(bar_width=24),
                TimeElapsedColumn(),
                TextColumn("{task.fields[left]}  {task.fields[now]}", markup=False),
                console=console,
                transient=True,
            )
            self._task = self.bar.add_task("", total=self._total_steps, left="", now="")

    def start(self, part: Sequence[Member]) -> None:
        """Announces the runs that train now, side by side."""
        self._runs, self._now = len(part), part[0].name
        if part[0].candidate is not part[-1].candidate:
            self._now = f"{part[0].name} and {count(len(part) - 1, 'further ray')}"
        elif len(part) > 1:
            seeds = ", ".join(str(member.seed) for member in part)
            self._now = f"{part[0].setting}, seeds {seeds}"
        self.step(0)

    def step(self, step: int) -> None:
        """Updates the number of steps that the present runs have taken."""
        self._steps_now = step * self._runs
        if self.bar is not None:
            steps = self._steps_done + self._steps_now
            self.bar.update(self._task, completed=steps, left=self._left(), now=self._now)

    def finished(self, member: Member) -> None:
        """Reports a finished run."""
        self._count(member)
        if not self._quiet:
            print_line(f"[{self._done}/{self._total}] {member.name}  {self._left()}")

    def failed(self, member: Member, error: BaseException) -> Failure:
        """Reports a run that failed."""
        self._count(member)
        report = failure(member, error)
        if not self._quiet:
            print_line(f"[{self._done}/{self._total}] {member.name} FAILED: {report.reason}")
        return report

    def tasks(self, running: int, waiting: int) -> None:
        """Updates the numbers of tasks of a cluster."""
        if self.bar is not None:
            now = f"{count(running, 'task')} started, {waiting} waiting"
            self.bar.update(self._task, completed=self._steps_done, left=self._left(), now=now)

    def note(self, message: str) -> None:
        """Prints a line."""
        if not self._quiet:
            print_line(message)

    def _count(self, member: Member) -> None:
        self._done += 1
        self._steps_now = 0
        self._steps_done += member.candidate.steps

    def _left(self) -> str:
        """Returns the estimated remaining time as text."""
        steps = self._steps_done + self._steps_now
        if not steps or steps >= self._total_steps:
            return ""
        left = (time.perf_counter() - self._start_time) * (self._total_steps / steps - 1)
        return f"about {left / 60:.0f} min left" if left >= 90 else f"about {left:.0f} s left"
