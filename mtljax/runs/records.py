"""Records of `metrics.jsonl`: one per log step, and one per evaluation."""

import dataclasses
import itertools
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mtljax.tasks.metric import SplitMetrics
from mtljax.utils.bounded_reading import read_text
from mtljax.utils.files import nan_for_null
from mtljax.utils.text import first_line


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainRecord:
    """Means over the steps since the record before."""

    step: int
    """Number of steps taken."""
    epoch: float
    """Number of passes over the training split so far."""
    loss: dict[str, float]
    """Task -> training loss."""
    weight: dict[str, float] | None = None
    """Task -> weight; None if the balancer gives a direction instead of weights."""
    grad_norm: float
    """Norm of the gradient, before clipping."""
    skipped: int
    """Number of updates that were not finite and therefore skipped."""
    examples_per_second: float
    """Training examples per second since the record before."""
    seconds: float
    """Wall time since the start of the process that took the steps."""
    earlier_seconds: float = 0.0
    """Wall time of the run's earlier processes; left out of the line if there were none."""
    telemetry: dict[str, Any] | None = None
    """Measurement at the first of the steps, if there was one; see `mtljax.step.telemetry`."""

    def to_json(self) -> dict[str, Any]:
        """Returns the line's JSON object."""
        values = {k: v for k, v in dataclasses.asdict(self).items() if v is not None}
        if not self.earlier_seconds:
            del values["earlier_seconds"]
        return values


@dataclasses.dataclass(frozen=True, kw_only=True)
class ValidationRecord:
    """Metrics of the validation split."""

    step: int
    """Number of steps taken."""
    validation: SplitMetrics
    """Task -> metrics on the validation split."""
    score: float
    """Score that checkpoints are compared by; lower is better."""

    def to_json(self) -> dict[str, Any]:
        """Returns the line's JSON object."""
        return dataclasses.asdict(self)


LogRecord = TrainRecord | ValidationRecord
"""Line of metrics.jsonl."""


def record_from_json(line: Mapping[str, Any]) -> LogRecord:
    """Inverse of `to_json` of both kinds of record; unknown names are ignored.

    Raises:
      KeyError, TypeError: The object is neither.
    """
    kind: type[LogRecord] = ValidationRecord if "validation" in line else TrainRecord
    names = {field.name for field in dataclasses.fields(kind)}
    return kind(**{name: value for name, value in line.items() if name in names})


def read_lines(path: Path) -> list[tuple[str, LogRecord]]:
    """Returns the complete lines of metrics.jsonl, as text and as records."""
    try:
        text = read_text(path)
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{path} cannot be read: {first_line(error)}; check its permissions"
        ) from None
    lines = []
    for number, line in enumerate(text.splitlines(keepends=True), 1):
        if not line.endswith("\n"):
            break
        try:
            values = json.loads(line)
            record = record_from_json(nan_for_null({**values, "step": int(values["step"])}))
            lines.append((line, record))
        except (ValueError, KeyError, TypeError, RecursionError):
            raise ValueError(
                f"{path} is damaged: line {number} is not a record of a run; delete that line"
            ) from None
    return lines


def processes(records: Iterable[TrainRecord]) -> list[list[TrainRecord]]:
    """Splits the records of a run by the process that took the steps."""
    found: list[list[TrainRecord]] = []
    for before, record in itertools.pairwise([None, *records]):
        assert record is not None
        # In records of versions without `earlier_seconds`, only the clock shows another process.
        if (
            before is None
            or record.earlier_seconds != before.earlier_seconds
            or record.seconds <= before.seconds
        ):
            found.append([])
        found[-1].append(record)
    return found


def total_seconds(records: Iterable[TrainRecord]) -> float:
    """Returns the wall time of all processes of a run, each up to its last record."""
    ends = [part[-1] for part in processes(records)]
    if not ends:
        return 0.0
    earlier = ends[-1].earlier_seconds or sum(end.seconds for end in ends[:-1])
    return earlier + ends[-1].seconds
