"""Summary of an experiment's data: label statistics and a picture of samples."""

from pathlib import Path

from mtljax.build import open_source
from mtljax.config import Experiment
from mtljax.data.statistics import LabelStatistics, label_statistics
from mtljax.screening.sheet import draw_sheet
from mtljax.utils.files import write_json


def survey(
    experiment: Experiment, output: Path, samples: int
) -> dict[str, dict[str, LabelStatistics]]:
    """Reads an experiment's data and writes statistics.json and samples.png.

    Returns:
      {split: {task: statistics}}.

    Raises:
      ValueError: A label is invalid, or the folder cannot be written to.
    """
    if samples < 1:
        raise ValueError(f"--samples must be >= 1, not {samples}")
    source, tasks = open_source(experiment), experiment.tasks
    statistics = {name: label_statistics(tasks, split) for name, split in source.splits().items()}
    content = {
        name: {
            "examples": len(source.splits()[name]),
            **{task.name: per_task[task.name].as_json(task) for task in tasks},
        }
        for name, per_task in statistics.items()
    }
    try:
        output.mkdir(parents=True, exist_ok=True)
        write_json(output / "statistics.json", content)
        draw_sheet(tasks, source, output / "samples.png", samples)
    except OSError as error:
        raise ValueError(
            f"cannot write to {output}: {error.strerror}; choose another --output"
        ) from None
    return statistics
