"""Progress of training on the terminal."""

from collections.abc import Sequence
from typing import Any

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

from mtljax.tasks import Task
from mtljax.utils.terminal import console, say


class Reporter:
    """Progress of training: a bar on a terminal, a line per evaluation elsewhere."""

    def __init__(self, total: int, done: int, *, quiet: bool = False):
        self._quiet = quiet
        self._live = None
        if console.is_terminal and not quiet:
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
        self._total = total
        self._last: dict[str, Any] | None = None

    def train(self, line: dict[str, Any]) -> None:
        """A training line of metrics.jsonl."""
        self._last = line
        if self._live is not None:
            self._live.update(self._bar, completed=line["step"], numbers=_numbers(line))

    def validation(self, line: dict[str, Any], tasks: Sequence[Task], best: bool) -> None:
        """A validation line of metrics.jsonl."""
        if self._quiet:
            return
        values = "  ".join(
            f"{task.name} {task.main_metric} {line['validation'][task.name][task.main_metric]:.4g}"
            for task in tasks
        )
        numbers = _numbers(self._last) if self._last is not None else ""
        mark = "  best so far" if best else ""
        say(f"step {line['step']:>{len(str(self._total))}}  {numbers}  validation: {values}{mark}")

    def close(self) -> None:
        if self._live is not None:
            self._live.stop()


def _numbers(line: dict[str, Any]) -> str:
    """Losses, weights and speed in one short line; many tasks are cut short."""
    losses = list(line["loss"].items())
    weights = line.get("weight", {})
    parts = []
    for name, loss in losses[:4]:
        weight = f" (x{weights[name]:.2f})" if name in weights else ""
        parts.append(f"{name} {loss:.3g}{weight}")
    if len(losses) > 4:
        parts.append(f"+{len(losses) - 4} tasks")
    return f"loss {', '.join(parts)}  {line['examples_per_second']:,.0f} examples/s"
