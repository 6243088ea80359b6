"""Summary of an experiment's data: label statistics and a picture of samples."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

from mtljax.build import open_source, require_learnable
from mtljax.config import Experiment
from mtljax.data.augment import require_mirror_rules
from mtljax.data.base import Example, Source, Split, first_usable
from mtljax.data.lazy import notes_of_reading
from mtljax.data.notes import Note
from mtljax.data.problems import Problem, problem_of
from mtljax.data.resolve import named_tasks, resolve_tasks
from mtljax.data.statistics import LabelStatistics, label_statistics, unseen_classes
from mtljax.screening.appearance import to_pil
from mtljax.tasks import Task
from mtljax.utils.files import write_json

CELL, DPI = 2.6, 80
"""Width of a picture in inches, and resolution."""
COLUMNS = 8
"""Maximum number of pictures per row, unless one example has more."""


class Survey(NamedTuple):
    """Summary of an experiment's data."""

    examples: dict[str, int]
    """Number of examples in each split."""
    shape: tuple[int, ...]
    """Height, width and channels of an image; () if none can be read."""
    tasks: tuple[Task, ...]
    """The tasks, with what was derived from the data."""
    statistics: dict[str, dict[str, LabelStatistics]]
    """{split: {task: statistics}}."""
    notes: tuple[Note, ...]
    """Values that were dropped, clipped, converted or not matched."""
    problems: list[Problem]
    """Examples that cannot be used."""


def survey(experiment: Experiment, output: Path, samples: int) -> Survey:
    """Reads all examples, and writes statistics.json, samples.png and, if any, problems.json.

    Raises:
      ValueError: The data cannot be opened, or the folder cannot be written to.
    """
    if samples < 1:
        raise ValueError(f"--samples must be >= 1, not {samples}")
    source = open_source(experiment)
    tasks = named_tasks(experiment.tasks, source)
    statistics, problems = {}, []
    for name, split in source.splits().items():
        statistics[name], unusable = label_statistics(tasks, split)
        problems += [problem_of(name, split, row, text) for row, text in unusable.items()]
    tasks = resolve_tasks(experiment.tasks, source, _highest_classes(statistics))
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
        if problems:
            listed = [
                {**problem.place._asdict(), "message": problem.message} for problem in problems
            ]
            write_json(output / "problems.json", listed)
        draw_sheet(tasks, source, output / "samples.png", samples)
    except OSError as error:
        raise ValueError(
            f"cannot write to {output}: {error.strerror}; choose another --output"
        ) from None
    notes = [*source.notes, *notes_of_reading(source), *unseen_classes(tasks, statistics["train"])]
    for require in (
        lambda: require_learnable(tasks, source.train),
        lambda: require_mirror_rules(experiment.data.augment, tasks),
    ):
        try:
            require()
        except ValueError as error:  # stops training
            notes.append(Note("warning", str(error), 1, ""))
    examples = {name: len(split) for name, split in source.splits().items()}
    return Survey(examples, _image_shape(source), tasks, statistics, tuple(notes), problems)


def _highest_classes(statistics: Mapping[str, Mapping[str, LabelStatistics]]) -> dict[str, int]:
    """Returns the highest class of each task that has class indices as labels."""
    highest: dict[str, int] = {}
    for per_task in statistics.values():
        for name, labels in per_task.items():
            if labels.classes:
                highest[name] = max(highest.get(name, 0), *labels.classes)
    return highest


def _image_shape(source: Source) -> tuple[int, ...]:
    try:
        return tuple(np.shape(first_usable(source.train)["image"]))
    except ValueError:
        return ()


def draw_sheet(tasks: Sequence[Task], source: Source, path: Path, count: int) -> None:
    """Writes a PNG of evenly spaced training examples.

    Labels that can be drawn are shown next to the image, other labels as text below it.
    """
    # Lazy: matplotlib takes long to import.
    from mtljax.report.image_grid import Caption, GridCell, ImageGrid

    size = len(source.train)
    rows = np.unique(np.linspace(0, size - 1, min(count, size)).astype(int))
    read = [(row, example) for row in rows if (example := _read(source.train, int(row)))]
    if not read:
        return
    images = [
        np.asarray(to_pil(example["image"], source.low, source.high).convert("RGB"))
        for _, example in read
    ]
    examples = [example for _, example in read]
    pictured = [task for task in tasks if _can_draw(task, examples, images)]
    as_text = [task for task in tasks if task not in pictured]
    cells = []
    for (row, example), image in zip(read, images, strict=True):
        captions = [Caption("", f"training example {row}")]
        captions += [Caption(task.name, _text(task, example)) for task in as_text]
        cells.append(GridCell(image, captions))
        for task in pictured:
            present = example["present"][task.name]
            picture = task.picture(example["labels"][task.name], image) if present else None
            cells.append(GridCell(picture, [Caption(task.name, _text(task, example))]))
    per_example = 1 + len(pictured)
    columns = min(len(cells), per_example * max(1, COLUMNS // per_example))
    legend = {(text, tuple(color)): (text, color) for t in pictured for text, color in t.legend}
    grid = ImageGrid(
        cells=cells,
        columns=columns,
        width=CELL * columns,
        dpi=DPI,
        legend=list(legend.values()),
    )
    plot = grid.render(path.stem, "Evenly spaced training examples with their labels")
    path.write_bytes(plot.png)


def _read(split: Split, row: int) -> Example | None:
    """Returns an example, None if it cannot be used."""
    try:
        return split[row]
    except ValueError:
        return None


def _can_draw(
    task: Task, examples: Sequence[Example], images: Sequence[UInt8[np.ndarray, "H W 3"]]
) -> bool:
    """True if the task draws a picture of the first label that is present."""
    for example, image in zip(examples, images, strict=True):
        if example["present"][task.name]:
            return task.picture(example["labels"][task.name], image) is not None
    return False


def _text(task: Task, example: Example) -> str:
    present = example["present"][task.name]
    return " ".join(task.text(example["labels"][task.name]).split()) if present else "missing"
