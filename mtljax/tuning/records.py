"""Trials of a study as plain data."""

import dataclasses
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from mtljax.config.overrides import Override

if TYPE_CHECKING:
    import optuna

State = Literal["complete", "pruned", "failed", "running"]
"""State of a trial."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrialRecord:
    """Trial of a study."""

    number: int
    """Number of the trial, from 0."""
    state: State
    """State of the trial."""
    overrides: tuple[Override, ...]
    """Setting; empty if the process was killed before it was drawn."""
    parameters: Mapping[str, Any]
    """Values of the distributions by name."""
    scores: Mapping[int, float]
    """Best score so far by number of evaluations; lower is better."""
    score: float | None
    """Best score of a complete trial."""
    reason: str = ""
    """Reason why it failed, or of its state."""

    @property
    def rank_score(self) -> float:
        """The score; infinite for a trial without one."""
        return math.inf if self.score is None else self.score

    @property
    def settings(self) -> str:
        """Setting as text: `learning_rate=0.01, balancer=uw`."""
        return ", ".join(f"{field}={value}" for field, value in self.overrides)


def read_overrides(attributes: Mapping[str, Any]) -> tuple[Override, ...]:
    """Returns the setting in the attributes of a trial of Optuna, which are JSON."""
    return tuple((field, value) for field, value in attributes.get("overrides", ()))


def read_record(trial: "optuna.trial.FrozenTrial") -> TrialRecord:
    """Returns the record of a trial of Optuna."""
    states: dict[str, State] = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed"}
    state = states.get(trial.state.name, "running")
    return TrialRecord(
        number=trial.number,
        state=state,
        overrides=read_overrides(trial.user_attrs),
        parameters=trial.params,
        scores=trial.intermediate_values,
        score=trial.value if state == "complete" else None,
        reason=trial.user_attrs.get("reason", ""),
    )
