"""Grids of images, each with its truth and its prediction in words."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from PIL import Image

from mtljax.evaluation.predictions import Predictions, take
from mtljax.tasks import Task

FONT = 8.5
LINE = 1.25 * FONT / 72
GAP = 0.08
INK = "#14171c"
_PIXELS = 160
_RED = "#b3261e"
_NEAREST = Image.Resampling.NEAREST


class Caption(NamedTuple):
    """A line beneath an image."""

    name: str
    """Of the task; empty where it is clear."""
    true: str
    predicted: str
    wrong: bool
    """Whether the prediction is plainly another class."""

    def lines(self, width: float) -> list[str]:
        """As text at most `width` inches wide: one line, or two where one would be too wide."""
        room = width * 72 / FONT / (1.1 if self.wrong else 1.0)
        tail = f"{self.true} → {self.predicted}"
        for name in (self.name, self.name[:7] + "…"):
            line = f"{name}: {tail}" if self.name else tail
            if _ems(line) <= room:
                return [line]
        first = f"{self.name}: {self.true}" if self.name else self.true
        return [_cut(first, room), _cut(f"→ {self.predicted}", room)]


class Tile(NamedTuple):
    """One image and the lines beneath it."""

    image: np.ndarray
    """[h, w, 3], uint8."""
    captions: list[Caption]


class Grid(NamedTuple):
    """Tiles laid out in columns; sizes in inches."""

    tiles: list[Tile]
    columns: int
    width: float
    headings: tuple[str, ...] = ()
    """Of the parts that every image has side by side."""
    legend: tuple[tuple[str, np.ndarray], ...] = ()
    """What colours mean: [(words, RGB)]."""

    @property
    def rows(self) -> int:
        """As many as the tiles fill."""
        return math.ceil(len(self.tiles) / self.columns)

    @property
    def cell(self) -> tuple[float, float, float]:
        """(width of a cell, height of a cell, height of the image in it)."""
        width = self.width / self.columns
        height, pixels = self.tiles[0].image.shape[:2]
        image = (width - GAP) * min(height / pixels, 1.5)
        lines = max(sum(len(c.lines(width)) for c in tile.captions) for tile in self.tiles)
        return width, image + lines * LINE + 1.5 * GAP, image

    @property
    def top(self) -> float:
        """Where the first row begins: below the headings."""
        return LINE if self.headings else 0.0

    @property
    def height(self) -> float:
        """Of all rows, headings and the legend."""
        return self.top + self.rows * self.cell[1] + len(self._legend_lines()) * LINE

    def draw(self, axis: Axes) -> None:
        """On an axis of `width` x `height` inches."""
        width, height, image = self.cell
        axis.set_axis_off()
        for i, tile in enumerate(self.tiles):
            left, top = (i % self.columns) * width, self.top + (i // self.columns) * height
            shown = image * tile.image.shape[1] / tile.image.shape[0]
            inset = left + (width - shown) / 2
            axis.imshow(
                tile.image,
                extent=(inset, inset + shown, top + image, top),
                interpolation="nearest" if tile.image.shape[1] < 64 else "antialiased",
            )
            if i < self.columns:
                for j, heading in enumerate(self.headings):
                    middle = inset + shown * (j + 0.5) / len(self.headings)
                    axis.text(middle, LINE / 2, heading, ha="center", va="center", fontsize=FONT)
            line = 0
            for caption in tile.captions:
                at = left + width / 2, top + image + GAP / 2 + line * LINE
                line += draw_caption(axis, caption, at, width)
        self._draw_legend(axis, self.top + self.rows * height)
        axis.set_aspect("auto")
        axis.set_xlim(0, self.width)
        axis.set_ylim(self.height, 0)

    def _legend_lines(self) -> list[list[tuple[float, str, np.ndarray]]]:
        """Lines of (left edge, words, colour)."""
        lines: list[list[tuple[float, str, np.ndarray]]] = []
        left = self.width
        for words, color in self.legend:
            wide = (_ems(words) + 2.6) * FONT / 72
            if left + wide > self.width:
                lines.append([])
                left = 0.0
            lines[-1].append((left, words, color))
            left += wide
        return lines

    def _draw_legend(self, axis: Axes, top: float) -> None:
        side = 0.8 * FONT / 72
        for i, line in enumerate(self._legend_lines()):
            middle = top + (i + 0.5) * LINE
            for left, words, color in line:
                box = (left, left + side, middle + side / 2, middle - side / 2)
                axis.imshow(np.asarray(color, np.uint8)[None, None], extent=box)
                at = left + 1.4 * side
                axis.text(at, middle, words, ha="left", va="center", fontsize=FONT, color=INK)


def draw_caption(axis: Axes, caption: Caption, at: tuple[float, float], width: float) -> int:
    """Writes a caption's lines below the point `at`, centred; how many they are."""
    lines = caption.lines(width)
    for i, text in enumerate(lines):
        axis.text(
            at[0],
            at[1] + (i + 0.5) * LINE,
            text,
            ha="center",
            va="center",
            fontsize=FONT,
            color=_RED if caption.wrong else INK,
            fontweight="bold" if caption.wrong else "normal",
        )
    return len(lines)


def worst_first(task: Task, test: Predictions, limit: int) -> np.ndarray:
    """Indices of the labelled examples with the largest errors; not a number is the largest."""
    index, outputs, labels = test.of(task)
    if not len(index):
        return index
    errors = np.asarray(task.error(outputs, labels), float)
    errors = np.where(np.isnan(errors), np.inf, errors)
    return index[np.argsort(-errors, kind="stable")[:limit]]


def make_tiles(
    tasks: Sequence[Task], test: Predictions, index: np.ndarray, *, named: bool
) -> list[Tile]:
    """Tiles of some examples, with a caption per task.

    Args:
      tasks: Whose labels to show.
      test: Where the examples are.
      index: Which examples.
      named: Begin each caption with the task's name.
    """
    captions: list[list[Caption]] = [[] for _ in index]
    for task in tasks:
        decoded = take(task.decode(take(test.outputs[task.name], index)), slice(None))
        for i, example in enumerate(index):
            label, known = take(test.labels[task.name], example), test.present[task.name][example]
            true = _flat(task.text(label)) if known else "?"
            predicted = _flat(task.text(take(decoded, i)))
            exact = np.ndim(label) == 0 and np.asarray(label).dtype.kind in "iub"
            wrong = bool(known and exact and true != predicted)
            captions[i].append(Caption(task.name if named else "", true, predicted, wrong))
    images = to_rgb(test.images, index)
    return [Tile(*both) for both in zip(images, captions, strict=True)]


PARTS = ("image", "truth", "prediction")
"""What `make_triples` puts side by side."""


def make_triples(task: Task, test: Predictions, index: np.ndarray) -> list[Tile] | None:
    """Tiles of image, truth and prediction side by side, of a task whose labels are pictures."""
    painted = paint(task, test, index)
    if painted is None:
        return None
    images = to_rgb(test.images, index)
    return [Tile(np.concatenate(both, axis=1), []) for both in zip(images, *painted, strict=True)]


def paint(
    task: Task, test: Predictions, index: np.ndarray
) -> tuple[list[np.ndarray], list[np.ndarray]] | None:
    """(truths, predictions) of examples as pictures of their images' size.

    None if the task's labels are no pictures. Where an example has no label, its truth is grey.
    """
    decoded = take(task.decode(take(test.outputs[task.name], index)), slice(None))
    labels, known = take(test.labels[task.name], index), test.present[task.name][index]
    truths, predictions = [], []
    for i, (small, image) in enumerate(
        zip(to_rgb(test.images, index), test.images[index], strict=True)
    ):
        predicted = task.picture(take(decoded, i), image)
        if predicted is None:
            return None
        truth = task.picture(take(labels, i), image) if known[i] else np.full_like(predicted, 128)
        fit = lambda x, size=small.shape[1::-1]: np.asarray(
            Image.fromarray(x).resize(size, _NEAREST)
        )
        truths.append(fit(truth))
        predictions.append(fit(predicted))
    return truths, predictions


def _ems(text: str) -> float:
    """About how wide a text is, in font sizes."""
    return sum(0.32 if c in " .,:;'ijlI|" else 0.92 if c in "mwMW→…%@" else 0.62 for c in text)


def _cut(text: str, room: float) -> str:
    """The beginning of a text that is at most `room` font sizes wide."""
    if _ems(text) <= room:
        return text
    while len(text) > 1 and _ems(text + "…") > room:
        text = text[:-1]
    return text + "…"


def _flat(text: str) -> str:
    return " ".join(text.split())


def to_rgb(images: np.ndarray, index: np.ndarray) -> list[np.ndarray]:
    """Images for the eye: small [h, w, 3] of uint8, on one scale for the whole split."""
    chosen = images[index]
    if images.dtype != np.uint8:
        finite = images[np.isfinite(images)]
        low, high = (finite.min(), finite.max()) if finite.size else (0.0, 1.0)
        if low >= 0 and high <= 1:
            low, high = 0.0, 1.0
        scaled = (np.nan_to_num(chosen.astype(float)) - low) / max(high - low, 1e-12)
        chosen = (255 * np.clip(scaled, 0, 1)).round().astype(np.uint8)
    if chosen.shape[-1] != 3:
        chosen = np.repeat(chosen[..., :1], 3, axis=-1)
    return [_shrunk(image) for image in chosen]


def _shrunk(image: np.ndarray) -> np.ndarray:
    height, width = image.shape[:2]
    shrink = max(height, width) / _PIXELS
    if shrink <= 1:
        return image
    size = (max(1, round(width / shrink)), max(1, round(height / shrink)))
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BOX))
