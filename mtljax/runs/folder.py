"""The run folder: what a run writes, and whether a folder may be written to.

config.json     the experiment, complete; it alone reruns the run
metrics.jsonl   a line per log step, and one per evaluation
result.json     the outcome; it is there only when the run is finished
checkpoints/    the latest state and the best
joint/          those of runs that are trained side by side, in the first one's folder, meanwhile
report.html     the outcome for people; its pictures are in plots/

JSON has no word for NaN or infinity, and strict readers refuse Python's. Such a number is written
as null, and the readers here give NaN for it.
"""

import contextlib
import dataclasses
import datetime
import json
import os
from pathlib import Path
from typing import Any

import filelock
import numpy as np

from mtljax.config import Experiment, to_json
from mtljax.utils.bounded_reading import read_text
from mtljax.utils.files import PART, json_text, nan_for_null, null_for_nan, write_json, write_text
from mtljax.utils.tree import flatten_json

CONFIG, INPUT, METRICS, RESULT = "config.json", "input.json", "metrics.jsonl", "result.json"
REPORT = "report.html"
LOCK = ".lock"
"""Locked by the process that writes the run; it stays if that process is killed."""


def default_workdir(experiment: Experiment) -> Path:
    """`runs/NAME-<date>-<time>`, a number behind it if that is taken."""
    plain = Path("runs") / f"{experiment.name}-{datetime.datetime.now():%Y%m%d-%H%M%S}"
    path, n = plain, 2
    while path.exists():
        path, n = plain.with_name(f"{plain.name}-{n}"), n + 1
    return path


def check_folder(path: Path, experiment: Experiment) -> None:
    """Makes sure, by looking only, that an experiment may be run in a folder.

    Raises:
      ValueError: It is of another experiment, damaged, no run folder, or not a folder at all, or a
        link in it leads out of it.
    """
    config = path / CONFIG
    if path.exists() and not path.is_dir():
        raise ValueError(f"{path} is a file, not a folder; choose another --workdir")
    if not path.is_dir():
        return
    if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
        raise ValueError(f"cannot write to {path}: permission denied; choose another --workdir")
    for inside in path.iterdir():
        if inside.is_symlink() and not inside.resolve().is_relative_to(path.resolve()):
            raise ValueError(f"{inside} is a link that leads out of the run folder; remove it")
    if config.exists():
        _require_same(_completed(_read(config)), null_for_nan(to_json(experiment)), path)
    elif any(not inside.name.endswith((PART, LOCK)) for inside in path.iterdir()):
        raise ValueError(f"{path} is not empty and not a run folder; choose another --workdir")
    _read_lines(path / METRICS)


class RunFolder:
    """One run folder, open for writing. Only process 0 writes, and only one run at a time."""

    def __init__(self, path: Path, experiment: Experiment, writes: bool = True):
        """Makes the folder, if it is not there, and keeps other runs out of it until `close`.

        Raises:
          ValueError: It cannot be written to, may not be (see `check_folder`), or is in use.
        """
        check_folder(path, experiment)
        self.path, self._writes = path, writes
        self._lock: filelock.BaseFileLock | None = None
        if not writes:
            return
        try:
            path.mkdir(parents=True, exist_ok=True)
            if not (path / CONFIG).exists():
                write_json(path / CONFIG, to_json(experiment))
            self._lock = filelock.FileLock(path / LOCK, thread_local=False)
            self._lock.acquire(timeout=0)
        except filelock.Timeout:
            raise ValueError(
                f"another run is writing to {path}; choose another --workdir"
            ) from None
        except OSError as error:
            raise ValueError(
                f"cannot write to {path}: {error.strerror}; choose another --workdir"
            ) from None

    def __enter__(self) -> "RunFolder":
        return self

    def __exit__(self, *_: Any) -> None:
        if self._lock is not None:
            # Removed while it is held: afterwards it may be another process's.
            with contextlib.suppress(OSError):  # Windows removes no open file; filelock does then
                (self.path / LOCK).unlink()
            self._lock.release()

    def describe_input(self, image: np.ndarray, low: float, high: float) -> None:
        """Writes down what images the network takes: such as this, black `low` and white `high`."""
        told = {"shape": list(image.shape), "dtype": str(image.dtype), "low": low, "high": high}
        if self._writes:
            write_json(self.path / INPUT, told)

    def history(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl; one that was cut off by a crash is left out."""
        return _read_lines(self.path / METRICS)

    def forget_after(self, step: int) -> None:
        """Drops the lines of steps that will be taken again."""
        if self._writes:
            lines = [json_text(line) for line in self.history() if line["step"] <= step]
            write_text(self.path / METRICS, "".join(lines))

    def append(self, lines: list[dict[str, Any]]) -> None:
        """Adds lines to metrics.jsonl."""
        if self._writes:
            with (self.path / METRICS).open("a") as file:
                file.write("".join(map(json_text, lines)))

    def finish(self, result: dict[str, Any]) -> None:
        """Writes the outcome."""
        if self._writes:
            write_json(self.path / RESULT, result)


def read_input(path: Path) -> dict[str, Any]:
    """What images the network of the run in a folder takes: `shape`, `dtype`, `low`, `high`.

    Raises:
      ValueError: It is not there, or damaged.
    """
    told = _read(path / INPUT)
    try:
        height, width, channels = map(int, told["shape"])
        return {
            "shape": (height, width, channels),
            # Runs of version 0.1.0 do not say it; their networks take numbers of any type.
            "dtype": str(np.dtype(told.get("dtype", "float32"))),
            "low": float(told["low"]),
            "high": float(told["high"]),
        }
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{path / INPUT} does not say shape, low and high; {REMEDY}") from None


def read_result(path: Path) -> dict[str, Any] | None:
    """The outcome of the run in a folder, None if it is not finished.

    Raises:
      ValueError: It is damaged.
    """
    if not (path / RESULT).exists():
        return None
    result = _read(path / RESULT)
    missing = {"experiment", "best_step", "validation", "test"} - result.keys()
    if missing:
        raise ValueError(
            f"{path / RESULT} is not a run's result: it has no {min(missing)!r}; {REMEDY}"
        )
    return nan_for_null(result)


REMEDY = "delete it and train again with the same --workdir"


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(read_text(path))
    except FileNotFoundError:
        raise ValueError(f"there is no {path}; {REMEDY}") from None
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise ValueError(f"{path} is damaged (no valid JSON); {REMEDY}") from None
    if not isinstance(found, dict):
        raise ValueError(f"{path} is damaged (not a JSON object); {REMEDY}")
    return found


def _read_lines(path: Path) -> list[dict[str, Any]]:
    try:
        text = read_text(path)
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from None
    lines = []
    for number, line in enumerate(text.splitlines(keepends=True), 1):
        if not line.endswith("\n"):
            break
        try:
            found = json.loads(line)
            lines.append(nan_for_null({**found, "step": int(found["step"])}))
        except (ValueError, KeyError, TypeError, RecursionError):
            raise ValueError(
                f"{path} is damaged: line {number} is not one that a run wrote; delete that line"
            ) from None
    return lines


def _completed(config: dict[str, Any]) -> dict[str, Any]:
    """A configuration with the fields that there were not yet when it was written."""
    known = dataclasses.fields(Experiment)
    defaults = {f.name: f.default for f in known if f.default is not dataclasses.MISSING}
    return {**json.loads(json.dumps(null_for_nan(defaults))), **config}


def _require_same(found: dict[str, Any], wanted: dict[str, Any], path: Path) -> None:
    if found == wanted:
        return
    if found.get("name") != wanted["name"]:
        raise ValueError(
            f"{path} holds a run of experiment {found.get('name')!r}, not {wanted['name']!r}; "
            "choose another --workdir"
        )
    ours, theirs = flatten_json(wanted), flatten_json(found)
    name = next(n for n in {**theirs, **ours} if theirs.get(n) != ours.get(n))
    raise ValueError(
        f"{path} holds a run with {name}={theirs.get(name)}, not {ours.get(name)}; choose another "
        "--workdir, or leave the flag as it was to go on with this one"
    )
