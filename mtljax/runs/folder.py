"""The run folder: its files, and the checks before a run may write to it.

config.json     the complete experiment, sufficient to rerun it
input.json      shape, dtype and range of the images that the network takes
metrics.jsonl   a record per log step and per evaluation; see `mtljax.runs.records`
result.json     the result of a finished run; see `mtljax.runs.result`
result-N.json   its result after N steps, if it was continued afterwards
checkpoints/    the latest checkpoint and the best
joint/          stacked checkpoints of a group that trains side by side, in its first run's folder
report.html     the report; its figures are in plots/
evaluation-SPLIT.json, calibration.json, predictions.json    by the verbs evaluate and predict
points.json     test metrics of a conditioned network at each ray, by the verb front
tensorboard/    event files, if requested; mlflow: the id of the run in MLflow, if requested
model.sig       the signature of a signed run

JSON has no NaN or infinity. Such numbers are written as null, and null is read as NaN.
"""

import contextlib
import dataclasses
import datetime
import os
from pathlib import Path
from typing import Any

import filelock

from mtljax.config import Data, Experiment, to_json
from mtljax.config.files import (
    CODE,
    changed_code,
    defaults,
    moved_code,
    run_config,
    trust_code,
)
from mtljax.config.task_classes import require_not_executing
from mtljax.data.resolve import complete
from mtljax.runs.checkpoints import saved_steps
from mtljax.runs.input_spec import REMEDY, ImageSpec, check_folds, read_object, write_input
from mtljax.runs.lock import LOCK, lock_folder, writing_to
from mtljax.runs.records import LogRecord, read_lines
from mtljax.runs.result import RunResult
from mtljax.tasks import Task
from mtljax.utils.files import (
    PART,
    append_text,
    json_text,
    nan_for_null,
    null_for_nan,
    write_json,
    write_text,
)
from mtljax.utils.locks import release_lock
from mtljax.utils.terminal import print_line
from mtljax.utils.text import first_line, shortened
from mtljax.utils.tree import as_tuples, flatten_json
from mtljax.utils.urls import require_local

CONFIG, METRICS, RESULT = "config.json", "metrics.jsonl", "result.json"
"""Names of files in a run folder."""
REPORT = "report.html"
"""Name of the page of a run."""
CONTINUED = ("steps", "schedule")
"""Fields that may change if a finished run is continued."""
CALIBRATION = "calibration.json"
"""Temperatures of the probabilities that `predict` computes."""


def default_workdir(experiment: Experiment) -> Path:
    """Returns the default folder of a run of the experiment."""
    return default_folder(experiment.name)


def default_folder(name: str) -> Path:
    """Returns `runs/NAME-<date>-<time>`, with a number appended if that exists."""
    plain = Path("runs") / f"{name}-{datetime.datetime.now():%Y%m%d-%H%M%S}"
    path, n = plain, 2
    while path.exists():
        path, n = plain.with_name(f"{plain.name}-{n}"), n + 1
    return path


def check_folder(
    path: Path, experiment: Experiment, *, may_continue: bool = False
) -> RunResult | None:
    """Checks, without writing, that an experiment may be run in a folder.

    Args:
      may_continue: Accept a finished run of fewer steps, also with another schedule.

    Returns:
      The result of that run, if the folder holds one.

    Raises:
      ValueError: The path is a URL or not a folder, holds another experiment or other files, is
        damaged, or contains a link that leads out of it; or the experiment cannot be recorded.
    """
    require_not_executing()
    require_local(path)
    config = path / CONFIG
    to_json(experiment)  # checks that it can be recorded
    if path.exists() and not path.is_dir():
        raise ValueError(f"{path} is a file, not a folder; choose another --workdir")
    if not path.is_dir():
        return None
    shorter = None
    if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
        raise ValueError(f"cannot write to {path}: permission denied; choose another --workdir")
    for inside in path.iterdir():
        if inside.is_symlink() and not inside.resolve().is_relative_to(path.resolve()):
            raise ValueError(f"{inside} is a link that leads out of the run folder; remove it")
    if config.exists():
        stored = read_object(config)
        requested = null_for_nan(to_json(_with_tasks(stored, experiment)))
        for file in changed_code(experiment, stored):
            print_line(f"warning: {file} has changed since {path} was started")
        stored = moved_code(experiment, stored)
        if may_continue and (shorter := _shorter(path, stored, experiment)) is not None:
            stored |= {name: requested[name] for name in CONTINUED}
        _require_same(_completed(stored, experiment), requested, path)
        if shorter is not None:
            _require_last_checkpoint(path, shorter)
    elif any(not inside.name.endswith((PART, LOCK)) for inside in path.iterdir()):
        raise ValueError(f"{path} is not empty and not a run folder; choose another --workdir")
    read_lines(path / METRICS)
    return shorter


def with_recorded_tasks(path: Path, experiment: Experiment) -> Experiment:
    """Returns the experiment with what its run in this folder derived from the data."""
    return (
        _with_tasks(read_object(path / CONFIG), experiment)
        if (path / CONFIG).exists()
        else experiment
    )


def _with_tasks(config: dict[str, Any], experiment: Experiment) -> Experiment:
    recorded = {t.get("name"): t for t in config.get("tasks") or () if isinstance(t, dict)}
    fields = lambda task: {k: as_tuples(x) for k, x in recorded.get(task.name, {}).items()}
    tasks = tuple(complete(task, fields(task)) for task in experiment.tasks)
    return dataclasses.replace(experiment, tasks=tasks)


def _shorter(path: Path, config: dict[str, Any], experiment: Experiment) -> RunResult | None:
    """Returns the result of a finished run if it has fewer steps than the experiment."""
    result = read_result(path)
    if result is None:
        return None
    steps = result.steps or config.get("steps")
    if not isinstance(steps, int) or not 0 < steps < experiment.steps:
        return None
    return dataclasses.replace(result, steps=steps)


def _require_last_checkpoint(path: Path, result: RunResult) -> None:
    steps = saved_steps(path)
    if max(steps, default=0) != result.last_step:
        kept = ", ".join(map(str, steps)) or "none"
        raise ValueError(
            f"{path} cannot be continued exactly: it has no checkpoint of its last step "
            f"{result.last_step} (only: {kept}); train with another --workdir, or start there "
            f"from the weights of this run with --init {path}"
        )


def earlier_results(path: Path) -> list[RunResult]:
    """Returns the results that a run had before it was continued, by number of steps."""
    files = [file for file in path.glob("result-*.json") if file.stem[7:].isdecimal()]
    return [_read_result(file) for file in sorted(files, key=lambda file: int(file.stem[7:]))]


class RunFolder(contextlib.AbstractContextManager["RunFolder"]):
    """A run folder that is open for writing, by process 0 of one run only."""

    def __init__(self, path: Path, experiment: Experiment, writes: bool = True):
        """Creates the folder if necessary, and locks it until `__exit__`.

        `writes` is False in all processes but the first, which then write and lock nothing.

        Raises:
          ValueError: The folder is unusable (see `check_folder`), not writable, or in use.
        """
        check_folder(path, experiment)
        self.path, self._writes = path, writes
        self._lock: filelock.BaseFileLock | None = None
        if not writes:
            return
        with writing_to(path), contextlib.ExitStack() as stack:
            path.mkdir(parents=True, exist_ok=True)
            self._lock = lock_folder(path)
            stack.callback(self.__exit__)
            check_folder(path, experiment)  # another run may have started it meanwhile
            if not (path / CONFIG).exists():
                write_json(path / CONFIG, run_config(experiment))
            trust_code(experiment)
            stack.pop_all()

    def __exit__(self, *_: Any) -> None:
        if self._lock is not None:
            release_lock(self._lock, self.path / LOCK)

    def describe_input(self, spec: ImageSpec) -> None:
        """Writes input.json; raises ValueError if the folder holds a run with other folds."""
        check_folds(self.path, spec.folds)
        if self._writes:
            with writing_to(self.path):
                write_input(self.path, spec)

    def history(self) -> list[LogRecord]:
        """Returns the records of metrics.jsonl, without a line that a crash has cut off."""
        return [record for _, record in read_lines(self.path / METRICS)]

    def truncate_history(self, step: int) -> None:
        """Drops the records of later steps, which will be taken again."""
        if self._writes:
            # As text, which keeps the fields of other versions.
            lines = [
                line for line, record in read_lines(self.path / METRICS) if record.step <= step
            ]
            with writing_to(self.path):
                write_text(self.path / METRICS, "".join(lines))

    def append(self, record: LogRecord) -> None:
        """Adds a record to metrics.jsonl."""
        if self._writes:
            append_text(self.path / METRICS, json_text(record.to_json()))

    def finish(self, result: RunResult) -> None:
        """Writes result.json."""
        if self._writes:
            write_json(self.path / RESULT, result.to_json())


def read_result(path: Path) -> RunResult | None:
    """Returns a run's result, None if it is not finished; raises ValueError if it is damaged."""
    return _read_result(path / RESULT) if (path / RESULT).exists() else None


def _read_result(file: Path) -> RunResult:
    try:
        return RunResult.from_json(nan_for_null(read_object(file)))
    except KeyError as error:
        raise ValueError(
            f"{file} is not a run's result: it has no {error.args[0]!r}; {REMEDY}"
        ) from None
    except (TypeError, AttributeError) as error:
        raise ValueError(f"{file} is damaged: {first_line(error)}; {REMEDY}") from None


def _completed(config: dict[str, Any], experiment: Experiment) -> dict[str, Any]:
    """Adds the defaults of fields that did not exist when a configuration was written.

    Those of a task are added if the experiment has a task of its name. Fields that such a
    configuration decides (`Task.former`, `Data.former`) may also be requested with this value.
    """
    tasks = {task.name: task for task in experiment.tasks}
    config = {**defaults(Experiment), **config}
    if isinstance(config.get("data"), dict):
        former = _requested_former(experiment.data)
        config["data"] = {**defaults(Data), **former, **config["data"]}
    if isinstance(config.get("tasks"), list):
        config["tasks"] = [
            {**defaults(type(tasks[name])), **_requested_former(tasks[name]), **task}
            if isinstance(task, dict) and (name := str(task.get("name"))) in tasks
            else task
            for task in config["tasks"]
        ]
    return {name: value for name, value in config.items() if name != CODE}


def _requested_former(part: Task | Data) -> dict[str, Any]:
    return {name: value for name, value in part.former.items() if getattr(part, name) == value}


def _require_same(stored: dict[str, Any], requested: dict[str, Any], path: Path) -> None:
    if stored == requested:
        return
    if stored.get("name") != requested["name"]:
        raise ValueError(
            f"{path} holds a run of experiment {stored.get('name')!r}, not {requested['name']!r}; "
            "choose another --workdir"
        )
    old, new = flatten_json(stored), flatten_json(requested)
    changed = [name for name in {**old, **new} if old.get(name) != new.get(name)]
    name = next((name for name in changed if name not in CONTINUED), changed[0])
    longer = ""
    if name in CONTINUED and (path / RESULT).exists():
        longer = f"; a finished run is continued by --steps above {old.get('steps')}"
    was, now = (shortened(str(values.get(name)), 120) for values in (old, new))
    raise ValueError(
        f"{path} holds a run with {name}={was}, not {now}; choose another "
        f"--workdir, or restore the flag to resume this run{longer}"
    )
