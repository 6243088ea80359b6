"""Verbs `prepare`, `data` and `screen`."""

import dataclasses
from pathlib import Path

from mtljax.cli.verbs.experiment import ExperimentFlags, read_experiment

MAX_PROBLEMS = 20
"""Maximum number of unusable examples that `data` prints."""


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
    from mtljax.data.problems import require_no_problems
    from mtljax.data.resolve import derivations
    from mtljax.screening.survey import survey
    from mtljax.utils.terminal import console, print_line
    from mtljax.utils.text import count

    folder = flags.output or Path("runs") / f"data-{experiment.name}"
    found = survey(experiment, folder, flags.samples)
    console.print(survey_table(experiment.name, found.tasks, found.statistics))
    for line in [*derivations(experiment.tasks, found.tasks), *map(str, found.notes)]:
        print_line(line)
    for problem in found.problems[:MAX_PROBLEMS]:
        print_line(f"cannot be used: {problem.message}")
    rest = len(found.problems) - MAX_PROBLEMS
    if rest > 0:
        print_line(f"... and {count(rest, 'further example')}: see {folder / 'problems.json'}")
    print(f"written to {folder}")
    if experiment.data.on_error == "fail":
        require_no_problems(found.problems)
    return 0


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
