"""Verbs `prepare`, `data` and `screen`."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mtljax.cli.verbs.experiment import ExperimentFlags, read_experiment

if TYPE_CHECKING:
    from mtljax.data.problems import Problem

MAX_CAUSES = 10
"""Maximum number of causes of unusable examples that `data` prints."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataFlags(ExperimentFlags):
    """Options of the summary."""

    output: Path | None = None
    """Output folder for statistics.json and samples.png; if omitted, runs/data-NAME."""
    samples: int = 8
    """Number of examples to draw."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScreenFlags(ExperimentFlags):
    """Options of screening."""

    output: Path | None = None
    """Output folder for report.html and findings.json; if omitted, runs/screen-NAME."""
    drop: Path | None = None
    """Output file for the list of examples and labels to leave out, which training reads with
    --data.drop."""
    folds: int = 4
    """Number of networks trained to check the labels, each on the other folds; 0: skip labels."""


def prepare_verb(arguments: list[str]) -> int:
    """Runs `prepare` and returns the exit status."""
    _, experiment = read_experiment(arguments, "prepare", "Prepares the data of", ExperimentFlags)
    from mtljax.data.prepare import prepare

    messages = prepare(experiment.data.source)
    print("\n".join(messages) or f"source {experiment.data.source} needs no preparation")
    return 0


def data_verb(arguments: list[str]) -> int:
    """Runs `data` and returns the exit status."""
    flags, experiment = read_experiment(arguments, "data", "Summarizes the data of", DataFlags)
    from mtljax.cli.tables import survey_table
    from mtljax.data.resolve import derivations
    from mtljax.screening.survey import survey
    from mtljax.utils.terminal import console, print_line
    from mtljax.utils.text import count

    folder = flags.output or Path("runs") / f"data-{experiment.name}"
    summary = survey(experiment, folder, flags.samples)
    sizes = ", ".join(f"{size:,} {name}" for name, size in summary.examples.items())
    shape = f"; images {' x '.join(map(str, summary.shape))}" if summary.shape else ""
    total = sum(summary.examples.values())
    print_line(f"data of {experiment.name}: {count(total, 'example')} ({sizes}){shape}")
    console.print(survey_table(summary.tasks, summary.statistics))
    for line in [*derivations(experiment.tasks, summary.tasks), *map(str, summary.notes)]:
        print_line(line)
    for line in _problem_lines(summary.problems, folder):
        print_line(line)
    print(f"written to {folder}")
    if summary.problems and experiment.data.on_error == "fail":
        which = count(len(summary.problems), "example")
        raise ValueError(f"{which} cannot be used; --data.on-error skip leaves them out")
    return 0


def _problem_lines(problems: "Sequence[Problem]", folder: Path) -> list[str]:
    """Returns a line for each cause for which examples cannot be used, up to a maximum."""
    from mtljax.data.problems import by_cause
    from mtljax.utils.text import count

    lines = []
    for cause, examples in by_cause(problems):
        first = f", first: {examples[0].where}" if examples[0].where else ""
        lines.append(f"{count(len(examples), 'example')} cannot be used: {cause}{first}")
    rest = len(lines) - MAX_CAUSES
    if rest > 0:
        lines[MAX_CAUSES:] = [f"... and for {count(rest, 'further cause')}"]
    return [*lines, f"all are listed in {folder / 'problems.json'}"] if lines else []


def screen_verb(arguments: list[str]) -> int:
    """Runs `screen` and returns the exit status."""
    flags, experiment = read_experiment(arguments, "screen", "Screens the data of", ScreenFlags)
    from mtljax import compilation
    from mtljax.screening.findings import by_kind
    from mtljax.screening.screen import screen_to_folder
    from mtljax.utils.terminal import print_line

    compilation.use_compile_cache()
    output = flags.output or Path("runs") / f"screen-{experiment.name}"
    findings, remarks = screen_to_folder(experiment, output, flags.drop, flags.folds, print_line)
    for kind, examples in by_kind(findings):
        first = examples[0]
        print_line(f"{len(examples):>6} {kind}, e.g. {first.place}: {first.detail}")
    if not findings:
        print_line("no findings")
    for remark in remarks:
        print_line(remark)
    print(f"report: {output / 'report.html'}")
    return 0
