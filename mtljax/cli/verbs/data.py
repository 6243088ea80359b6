"""`prepare` and `data`."""

import dataclasses
from pathlib import Path

from mtljax.cli.verbs.experiment import read_experiment


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prepare:
    """Whose data to get ready."""

    experiment: str = ""
    """Name of an experiment, or the path of a file that defines one, or of a run's config.json."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Survey:
    """Whose data to look at."""

    experiment: str = ""
    """Name of an experiment, or the path of a file that defines one, or of a run's config.json."""
    output: Path | None = None
    """Folder for statistics.json and samples.png (default: runs/data-NAME)."""
    samples: int = 8
    """How many examples to draw."""


def prepare_verb(arguments: list[str]) -> int:
    """Downloads an experiment's data and gets it ready, once."""
    _, experiment = read_experiment(arguments, "prepare", "Gets ready the data of", Prepare)
    from mtljax.data.prepare import prepare

    done = prepare(experiment.data.source)
    print("\n".join(done) or f"source {experiment.data.source} needs no preparation")
    return 0


def data_verb(arguments: list[str]) -> int:
    """What is in an experiment's data: counts, balance, gaps, and a picture of samples."""
    flags, experiment = read_experiment(arguments, "data", "Looks at the data of", Survey)
    from mtljax.screening.survey import survey
    from mtljax.utils.terminal import console

    folder = flags.output or Path("runs") / f"data-{experiment.name}"
    console.print(survey(experiment, folder, flags.samples))
    print(f"written to {folder}")
    return 0
