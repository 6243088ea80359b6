"""Result of a finished run, as `result.json` holds it."""

import dataclasses
from collections.abc import Mapping
from dataclasses import MISSING
from typing import Any

from mtljax.tasks.metric import SplitMetrics


@dataclasses.dataclass(frozen=True, kw_only=True)
class ParameterCounts:
    """Numbers of parameters. Parameters that only distillation uses are not counted."""

    total: int
    """Number of all parameters."""
    shared: int
    """Parameters that all tasks share."""
    task_specific: dict[str, int]
    """Task -> parameters of this task only."""
    frozen: int = 0
    """Parameters that training does not change."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunResult:
    """Result of a run: metrics at the best checkpoint, cost, and the environment.

    Fields with a default may be missing in the files of earlier versions.
    """

    experiment: str
    """Name of the experiment."""
    seed: int = 0
    """Random seed."""
    steps: int = 0
    """Length of the training, in updates, as configured."""
    stopped_step: int | None = None
    """Step at which early stopping ended the training; None if all steps were taken."""
    best_step: int
    """Step of the checkpoint with the best validation score."""
    validation: SplitMetrics
    """Task -> metrics on the validation split."""
    test: SplitMetrics
    """Task -> metrics on the test split."""
    constant_predictor: SplitMetrics = dataclasses.field(default_factory=dict)
    """Test metrics of the constant-predictor baseline; `trivial` in JSON."""
    parameters: ParameterCounts | None = None
    """Numbers of parameters."""
    test_looks: int = 1
    """Number of results of this run on the test split: above 1 if a finished run was continued."""
    preference: dict[str, float] | None = None
    """Task -> preference at which a conditioned network was evaluated, with sum 1."""
    merged: dict[str, Any] | None = None
    """For a run that was merged, not trained: method, runs, their steps, and what was chosen."""
    seconds: float | None = None
    """Wall time of all processes that trained the run, up to the result."""
    train_seconds: float | None = None
    """Time of all steps, compilation included, evaluation not."""
    ms_per_step: float | None = None
    """Time per step after compilation, in milliseconds."""
    examples_per_second: float | None = None
    """Training examples per second, after compilation."""
    compile_seconds: float | None = None
    """Compilation time of the train step."""
    memory_bytes: int | None = None
    """Peak device memory of the compiled step, in bytes, data on the device included."""
    together: int = 1
    """Number of runs that were trained side by side in one program."""
    telemetry: dict[str, float] = dataclasses.field(default_factory=dict)
    """Means over training; see `mtljax.step.telemetry`."""
    skipped: int = 0
    """Updates that were not finite and therefore skipped."""
    device: str = ""
    """Kind of device."""
    environment: dict[str, str] = dataclasses.field(default_factory=dict)
    """Versions of the packages that the numbers depend on."""

    @property
    def selection(self) -> str:
        """Origin of the parameters, as text."""
        if self.merged is not None:
            return f"merged by {self.merged['method']}"
        return f"step {self.best_step:,} of {self.last_step:,}"

    @property
    def condition(self) -> str:
        """Preference of the metrics as the end of a sentence; empty for other networks."""
        return "" if self.preference is None else ", at equal preference for all tasks"

    @property
    def last_step(self) -> int:
        """Number of steps taken."""
        return self.steps if self.stopped_step is None else self.stopped_step

    def to_json(self) -> dict[str, Any]:
        """Returns the contents of `result.json`; unknown quantities are left out."""
        values = {_JSON_NAMES.get(k, k): v for k, v in dataclasses.asdict(self).items()}
        if self.parameters is not None and not self.parameters.frozen:
            del values["parameters"]["frozen"]
        return {name: value for name, value in values.items() if value is not None}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "RunResult":
        """Inverse of `to_json`; names that this version does not know are ignored.

        Raises:
          KeyError: A required name is missing.
          TypeError, AttributeError: A value has another type.
        """
        json_names = {field.name: _JSON_NAMES.get(field.name, field.name) for field in _FIELDS}
        read: dict[str, Any] = {k: values[n] for k, n in json_names.items() if n in values}
        required = {f.name for f in _FIELDS if f.default is f.default_factory is MISSING}
        if missing := required - read.keys():
            raise KeyError(min(missing))
        if "parameters" in read:
            names = {field.name for field in dataclasses.fields(ParameterCounts)}
            counts = {k: v for k, v in read["parameters"].items() if k in names}
            read["parameters"] = ParameterCounts(**counts)
        return cls(**read)


_FIELDS = dataclasses.fields(RunResult)
_JSON_NAMES = {"constant_predictor": "trivial"}
