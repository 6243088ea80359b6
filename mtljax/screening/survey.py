"""What an experiment's data holds: a table for people, numbers for programs, and a picture."""

from pathlib import Path

from rich import box
from rich.markup import escape
from rich.table import Table

from mtljax.build import open_source
from mtljax.config import Experiment
from mtljax.data.statistics import LabelStatistics, label_statistics
from mtljax.screening.sheet import draw_sheet
from mtljax.utils.files import write_json


def survey(experiment: Experiment, output: Path, samples: int) -> Table:
    """Reads all of an experiment's data and says what is in it.

    Args:
      experiment: Whose data.
      output: Folder for `statistics.json` and `samples.png`.
      samples: How many examples to draw.

    Returns:
      The table.

    Raises:
      ValueError: The data is not as it must be, or the folder cannot be written to.
    """
    if samples < 1:
        raise ValueError(f"--samples must be >= 1, not {samples}")
    source, tasks = open_source(experiment), experiment.tasks
    found = {part: label_statistics(tasks, split) for part, split in source.splits().items()}
    plain = {
        part: {
            "examples": len(source.splits()[part]),
            **{task.name: tallies[task.name].as_json(task) for task in tasks},
        }
        for part, tallies in found.items()
    }
    try:
        output.mkdir(parents=True, exist_ok=True)
        write_json(output / "statistics.json", plain)
        draw_sheet(tasks, source, output / "samples.png", samples)
    except OSError as error:
        raise ValueError(
            f"cannot write to {output}: {error.strerror}; choose another --output"
        ) from None
    return _table(experiment, found)


def _table(experiment: Experiment, found: dict[str, dict[str, LabelStatistics]]) -> Table:
    table = Table(title=f"data of {experiment.name}", title_justify="left", box=box.SIMPLE_HEAD)
    for name in ("task", "split"):
        table.add_column(name, no_wrap=True)
    for name in ("labels", "missing"):
        table.add_column(name, justify="right")
    table.add_column("what they say")
    for task in experiment.tasks:
        for part, tallies in found.items():
            one = tallies[task.name]
            share = 100 * one.missing / max(one.present + one.missing, 1)
            missing = f"{one.missing} ({share:.0f} %)" if one.missing else "0"
            name = task.name if part == "train" else ""
            table.add_row(escape(name), part, str(one.present), missing, escape(one.summary(task)))
        table.add_section()
    return table
