"""The run folder: what a run writes, and whether a folder may be written to.

config.json     the experiment, complete; it alone reruns the run
metrics.jsonl   a line per log step, and one per evaluation
result.json     the outcome; it is there only when the run is finished
checkpoints/    the latest state and the best
report.html     the outcome for people; its pictures are in plots/
"""

import datetime
import json
import os
from pathlib import Path
from typing import Any

from mtljax.config import Experiment, read_config, to_json

CONFIG, INPUT, METRICS, RESULT = "config.json", "input.json", "metrics.jsonl", "result.json"


def default_workdir(experiment: Experiment) -> Path:
    """`runs/NAME-<date>-<time>`."""
    return Path("runs") / f"{experiment.name}-{datetime.datetime.now():%Y%m%d-%H%M%S}"


class RunFolder:
    """One run folder, open for writing. Only process 0 writes."""

    def __init__(self, path: Path, experiment: Experiment, *, writes: bool = True):
        """Makes the folder, or makes sure that it is this experiment's.

        Raises:
          ValueError: It cannot be written to, is of another experiment, or is no run folder.
        """
        self.path, self._writes = path, writes
        config = path / CONFIG
        if config.exists():
            _require_same(read_config(config), experiment, path)
        elif path.is_dir() and any(path.iterdir()) and writes:
            raise ValueError(f"{path} is not empty and not a run folder; choose another --workdir")
        if not writes:
            return
        try:
            path.mkdir(parents=True, exist_ok=True)
            if not os.access(path, os.W_OK | os.X_OK):
                raise PermissionError(13, "Permission denied")
            if not config.exists():
                write_json(config, to_json(experiment))
        except OSError as error:
            raise ValueError(f"cannot write to {path}: {error.strerror}") from None

    @property
    def result(self) -> dict[str, Any] | None:
        """The outcome, if the run is finished."""
        return read_result(self.path)

    def describe_input(self, shape: tuple[int, ...], low: float, high: float) -> None:
        """Writes down what images the network takes."""
        if self._writes:
            write_json(self.path / INPUT, {"shape": list(shape), "low": low, "high": high})

    def history(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl; one that was cut off by a crash is left out."""
        try:
            text = (self.path / METRICS).read_text()
        except FileNotFoundError:
            return []
        return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]

    def forget_after(self, step: int) -> None:
        """Drops the lines of steps that will be taken again."""
        if self._writes:
            lines = [json.dumps(line) + "\n" for line in self.history() if line["step"] <= step]
            _write_atomically(self.path / METRICS, "".join(lines))

    def append(self, lines: list[dict[str, Any]]) -> None:
        """Adds lines to metrics.jsonl."""
        if self._writes:
            with (self.path / METRICS).open("a") as file:
                file.write("".join(json.dumps(line) + "\n" for line in lines))

    def finish(self, result: dict[str, Any]) -> None:
        """Writes the outcome."""
        if self._writes:
            write_json(self.path / RESULT, result)


def read_input(path: Path) -> dict[str, Any]:
    """What images the network of the run in a folder takes: `shape`, `low`, `high`."""
    try:
        told = json.loads((path / INPUT).read_text())
        return {
            "shape": [int(n) for n in told["shape"]],
            **{k: float(told[k]) for k in ("low", "high")},
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path / INPUT} cannot be read: {error}") from None


def read_result(path: Path) -> dict[str, Any] | None:
    """The outcome of the run in a folder, None if it is not finished."""
    try:
        return json.loads((path / RESULT).read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ValueError(f"{path / RESULT} cannot be read: {error}") from None


def write_json(path: Path, value: Any) -> None:
    """Writes a file that is there completely or not at all."""
    _write_atomically(path, json.dumps(value, indent=2) + "\n")


def _write_atomically(path: Path, text: str) -> None:
    part = path.with_name(path.name + ".part")
    part.write_text(text)
    os.replace(part, path)


def _require_same(found: Experiment, wanted: Experiment, path: Path) -> None:
    if found == wanted:
        return
    if found.name != wanted.name:
        raise ValueError(
            f"{path} holds a run of experiment {found.name!r}, not {wanted.name!r}; choose another "
            "--workdir"
        )
    ours, theirs = _leaves(to_json(wanted)), _leaves(to_json(found))
    name = next(n for n in {**theirs, **ours} if theirs.get(n) != ours.get(n))
    raise ValueError(
        f"{path} holds a run with {name}={theirs.get(name)}, not {ours.get(name)}; choose another "
        "--workdir, or leave the flag as it was to go on with this one"
    )


def _leaves(tree: Any, prefix: str = "") -> dict[str, Any]:
    items: Any
    if isinstance(tree, dict):
        items = tree.items()
    elif isinstance(tree, list):
        items = enumerate(tree)
    else:
        return {prefix: tree}
    result = {}
    for key, value in items:
        result.update(_leaves(value, f"{prefix}.{key}" if prefix else str(key)))
    return result
