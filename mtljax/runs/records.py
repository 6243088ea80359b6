"""Records of `metrics.jsonl`: one per log step, and one per evaluation."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from mtljax.tasks.base import SplitMetrics


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainRecord:
    """Means over the steps since the record before."""

    step: int
    epoch: float
    loss: dict[str, float]
    """Task -> training loss."""
    weight: dict[str, float] | None = None
    """Task -> weight; None if the balancer gives a direction instead of weights."""
    grad_norm: float
    skipped: int
    """Number of updates that were not finite and therefore skipped."""
    examples_per_second: float
    seconds: float
    """Wall time since this process started to train."""
    telemetry: dict[str, Any] | None = None
    """Measurement at the first of the steps, if there was one; see `mtljax.step.telemetry`."""

    def to_json(self) -> dict[str, Any]:
        """Returns the line's JSON object."""
        return {k: v for k, v in dataclasses.asdict(self).items() if v is not None}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ValidationRecord:
    """Metrics of the validation split."""

    step: int
    validation: SplitMetrics
    score: float
    """Score that checkpoints are compared by; lower is better."""

    def to_json(self) -> dict[str, Any]:
        """Returns the line's JSON object."""
        return dataclasses.asdict(self)


LogRecord = TrainRecord | ValidationRecord


def record_from_json(line: Mapping[str, Any]) -> LogRecord:
    """Inverse of `to_json` of both kinds of record; unknown names are ignored.

    Raises:
      KeyError, TypeError: The object is neither.
    """
    kind: type[LogRecord] = ValidationRecord if "validation" in line else TrainRecord
    names = {field.name for field in dataclasses.fields(kind)}
    return kind(**{name: value for name, value in line.items() if name in names})
