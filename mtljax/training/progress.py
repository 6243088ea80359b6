"""Progress of training on the terminal."""

import time
from collections.abc import Sequence

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

from mtljax.runs.records import TrainRecord, ValidationRecord
from mtljax.tasks import Task
from mtljax.utils.terminal import can_show_bar, console, print_line, seconds_since_line

_MAX_TASKS = 4
"""Tasks whose losses are printed on a line."""


LINE_EVERY = 30.0
"""Seconds without a line after which the latest losses are printed, where there is no bar."""


class Reporter:
    """Progress of training: a bar on a terminal, elsewhere lines.

    A line per evaluation, and one between them if there was none for 30 seconds, or for a
    twentieth of the time so far.
    """

    def __init__(self, total: int, done: int, *, quiet: bool = False):
        self._quiet = quiet
        self._live = None
        if can_show_bar() and not quiet:
            self._live = Progress(
                TextColumn("training"),
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[numbers]}"),
                console=console,
                transient=True,
            )
            self._bar = self._live.add_task("", total=total, completed=done, numbers="compiling")
            self._live.start()
        self._total, self._start = total, time.perf_counter()
        self._last: TrainRecord | None = None

    def train(self, record: TrainRecord) -> None:
        """Updates the bar."""
        self._last = record
        if self._live is not None:
            self._live.update(self._bar, completed=record.step, numbers=_summary(record))
        elif not self._quiet:
            elapsed = time.perf_counter() - self._start
            if seconds_since_line() > max(LINE_EVERY, elapsed / 20):
                print_line(f"step {record.step:>{len(str(self._total))}}  {_summary(record)}")

    def validation(self, record: ValidationRecord, tasks: Sequence[Task], is_best: bool) -> None:
        """Prints a line about an evaluation."""
        if self._quiet:
            return
        values = "  ".join(
            f"{task.name} {task.main_metric} {record.validation[task.name][task.main_metric]:.4g}"
            for task in tasks
        )
        numbers = _summary(self._last) if self._last is not None else ""
        mark = "  best so far" if is_best else ""
        print_line(
            f"step {record.step:>{len(str(self._total))}}  {numbers}  validation: {values}{mark}"
        )

    def close(self) -> None:
        """Removes the bar."""
        if self._live is not None:
            self._live.stop()


def _summary(record: TrainRecord) -> str:
    """Formats losses, weights and throughput as one short line."""
    losses, weights = list(record.loss.items()), record.weight or {}
    parts = []
    for name, loss in losses[:_MAX_TASKS]:
        weight = f" (x{weights[name]:.2f})" if name in weights else ""
        parts.append(f"{name} {loss:.3g}{weight}")
    if len(losses) > _MAX_TASKS:
        parts.append(f"+{len(losses) - _MAX_TASKS} tasks")
    return f"loss {', '.join(parts)}  {record.examples_per_second:,.0f} examples/s"
