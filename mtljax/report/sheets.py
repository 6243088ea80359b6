"""Many tasks on the same images: a column per image, beneath it its truths and predictions."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes

from mtljax.evaluation.predictions import Predictions
from mtljax.report.image_grid import FONT, GAP, LINE, Caption, draw_caption, make_tiles, paint
from mtljax.tasks import Task

_NAMES = 0.95


class Row(NamedTuple):
    """What one task says of every image."""

    name: str
    pictures: list[np.ndarray]
    """[h, w, 3] of uint8, all of one size."""


class Sheet(NamedTuple):
    """Rows of pictures with their names to the left, captions beneath; sizes in inches."""

    rows: list[Row]
    captions: list[list[Caption]]
    """Of each column."""
    width: float

    @property
    def cell(self) -> tuple[float, float]:
        """(width of a column, height of a row)."""
        width = (self.width - _NAMES) / len(self.captions)
        height, pixels = self.rows[0].pictures[0].shape[:2]
        return width, (width - GAP) * height / pixels + GAP

    @property
    def height(self) -> float:
        """Of all rows and captions."""
        lines = max(sum(len(c.lines(self.cell[0])) for c in own) for own in self.captions)
        return len(self.rows) * self.cell[1] + lines * LINE + GAP

    def draw(self, axis: Axes) -> None:
        """On an axis of `width` x `height` inches."""
        axis.set_axis_off()
        width, height = self.cell
        for i, row in enumerate(self.rows):
            top = i * height
            middle = top + (height - GAP) / 2
            axis.text(_NAMES - GAP, middle, row.name, ha="right", va="center", fontsize=FONT)
            for j, picture in enumerate(row.pictures):
                left = _NAMES + j * width
                extent = (left, left + width - GAP, top + height - GAP, top)
                axis.imshow(picture, extent=extent, interpolation="nearest")
        for j, captions in enumerate(self.captions):
            line = 0
            for caption in captions:
                at = _NAMES + j * width + (width - GAP) / 2, len(self.rows) * height + line * LINE
                line += draw_caption(axis, caption, at, width)
        axis.set_aspect("auto")
        axis.set_xlim(0, self.width)
        axis.set_ylim(self.height, 0)


def make_sheet(
    tasks: Sequence[Task], test: Predictions, index: np.ndarray, width: float
) -> Sheet | None:
    """What `tasks` say of some examples: pictures, and words where labels are none.

    None if no task's labels are pictures.
    """
    rows, in_words = [], []
    for task in tasks:
        painted = paint(task, test, index)
        if painted is None:
            in_words.append(task)
            continue
        truths, predictions = painted
        rows += [Row(f"{task.name}\ntruth", truths), Row("prediction", predictions)]
    if not rows:
        return None
    tiles = make_tiles(in_words, test, index, named=True)
    rows.insert(0, Row("image", [tile.image for tile in tiles]))
    return Sheet(rows, [tile.captions for tile in tiles], width)
