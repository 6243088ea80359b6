"""A picture of some examples with all of their labels."""

from pathlib import Path
from typing import Any

import numpy as np

from mtljax.data.base import Source, Split
from mtljax.tasks import Task

CELL, LINE = 1.9, 0.17
"""Width of a picture, and height of a line of text, in inches."""
WIDEST = 8
"""Most pictures beside each other, if an example has not more itself."""


def draw_sheet(tasks: tuple[Task, ...], source: Source, path: Path, count: int = 8) -> None:
    """Writes a PNG of examples that are evenly spaced in the training split.

    Beside the image is a picture of every label that can be drawn, beneath it what the others say.
    """
    from matplotlib.figure import Figure

    rows = _rows(source.train, count)
    examples = [source.train[int(row)] for row in rows]
    images = [_bytes(example["image"], source) for example in examples]
    drawn = [task for task in tasks if _picture(task, examples, images) is not None]
    told = [task for task in tasks if task not in drawn]
    columns, lines = 1 + len(drawn), max(len(told), 1) + 1.5
    beside = max(1, WIDEST // columns)
    height, width = images[0].shape[:2]
    tall = CELL * min(height / width, 1.5)
    deep = -(-len(examples) // beside)
    figure = Figure(figsize=(CELL * columns * beside, deep * (tall + LINE * lines)), dpi=110)
    axes = figure.subplots(deep, columns * beside, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    blocks = axes.reshape(-1, columns)
    for block, row, example, image in zip(blocks, rows, examples, images, strict=False):
        texts = [f"training example {row}", *(_text(task, example) for task in told)]
        _show(block[0], image, texts)
        for axis, task in zip(block[1:], drawn, strict=True):
            there = example["present"][task.name]
            picture = task.picture(example["labels"][task.name], image) if there else None
            _show(axis, picture, [_text(task, example)])
    bottom = LINE * lines / figure.get_figheight()
    figure.subplots_adjust(0.01, bottom, 0.99, 0.995, 0.04, LINE * lines / tall)
    figure.savefig(path)


def _rows(split: Split, count: int) -> np.ndarray:
    return np.unique(np.linspace(0, len(split) - 1, min(count, len(split))).astype(int))


def _bytes(image: Any, source: Source) -> np.ndarray:
    """An image in 0..255."""
    if np.asarray(image).dtype == np.uint8:
        return np.asarray(image)
    share = (np.asarray(image, np.float64) - source.low) / (source.high - source.low)
    return np.round(255 * np.clip(share, 0, 1)).astype(np.uint8)


def _picture(task: Task, examples: list[dict[str, Any]], images: list[np.ndarray]) -> Any:
    """What the task makes of the first label that is there."""
    for example, image in zip(examples, images, strict=True):
        if example["present"][task.name]:
            return task.picture(example["labels"][task.name], image)
    return None


def _text(task: Task, example: dict[str, Any]) -> str:
    there = example["present"][task.name]
    told = " ".join(task.text(example["labels"][task.name]).split()) if there else "missing"
    line = f"{task.name}: {told}"
    return line if len(line) <= 34 else line[:33] + "…"


def _show(axis: Any, picture: np.ndarray | None, lines: list[str]) -> None:
    if picture is not None:
        small = max(picture.shape[:2]) < 64
        gray = picture if picture.shape[-1] == 3 else np.repeat(picture[..., :1], 3, -1)
        axis.imshow(gray, interpolation="nearest" if small else "antialiased")
    axis.text(
        0, -0.03, "\n".join(lines), transform=axis.transAxes, va="top", ha="left", fontsize=6.5
    )
