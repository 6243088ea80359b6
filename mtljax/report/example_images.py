"""Example images with labels and predictions, as cells of an image grid."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int, Num
from PIL import Image

from mtljax.evaluation.predictions import Predictions, take
from mtljax.report.image_grid import Caption, GridCell, ImageGrid, Pixels
from mtljax.tasks import Task

PARTS = ("image", "label", "prediction")
"""Parts of the images of `triple_cells`."""
_MOST_PIXELS = 160
_UNLABELED = 128
_Index = Int[np.ndarray, " n"]


def worst_first(task: Task, test: Predictions, limit: int) -> _Index:
    """Returns the indices of the labeled examples with the largest errors; NaN is the largest."""
    index, outputs, labels = test.of(task)
    if not len(index):
        return index
    errors = np.asarray(task.error(outputs, labels), float)
    errors = np.where(np.isnan(errors), np.inf, errors)
    return index[np.argsort(-errors, kind="stable")[:limit]]


def file_names(test: Predictions, index: _Index) -> list[list[Caption]]:
    """Returns captions with the file name of each example, none if it is unknown."""
    places = [test.places[i] if test.places else "" for i in index]
    return [[Caption("", _file_name(place))] if place else [] for place in places]


def _file_name(place: str) -> str:
    """Returns the file in "labels.csv row 7 (a/b.png)", or the end of another place."""
    table, _, file = place.partition(" (")
    return file.removesuffix(")") or table.replace("\\", "/").rpartition("/")[2]


def captioned_cells(
    tasks: Sequence[Task],
    test: Predictions,
    index: _Index,
    *,
    with_names: bool,
    with_files: bool = False,
) -> list[GridCell]:
    """Returns images with captions.

    Each has a caption per task, which starts with its name if `with_names`, below the name of its
    file if `with_files`.
    """
    captions = file_names(test, index) if with_files else [[] for _ in index]
    for task in tasks:
        decoded = take(task.decode(take(test.outputs[task.name], index)), slice(None))
        for i, example in enumerate(index):
            label, present = take(test.labels[task.name], example), test.present[task.name][example]
            text = _one_line(task.text(label)) if present else "?"
            predicted = _one_line(task.text(take(decoded, i)))
            is_class = np.ndim(label) == 0 and np.asarray(label).dtype.kind in "iub"
            is_wrong = bool(present and is_class and text != predicted)
            name = task.name if with_names else ""
            captions[i].append(Caption(name, text, predicted, is_wrong))
    images = to_rgb(test.images, index)
    return [GridCell(*cell) for cell in zip(images, captions, strict=True)]


def triple_cells(task: Task, test: Predictions, index: _Index) -> list[GridCell] | None:
    """Returns image, label and prediction side by side; None if labels are not images."""
    drawn = label_images(task, test, index)
    if drawn is None:
        return None
    images = to_rgb(test.images, index)
    parts = zip(images, drawn, file_names(test, index), strict=True)
    return [GridCell(np.concatenate([image, *pair], axis=1), name) for image, pair, name in parts]


def label_images(task: Task, test: Predictions, index: _Index) -> list[list[Pixels]] | None:
    """Returns [label, prediction] of each example as images; None if labels are not images.

    The label of an example without one is gray.
    """
    decoded = take(task.decode(take(test.outputs[task.name], index)), slice(None))
    labels, present = take(test.labels[task.name], index), test.present[task.name][index]
    pairs = []
    images = zip(test.images[index], to_rgb(test.images, index), strict=True)
    for i, (image, small) in enumerate(images):
        predicted = task.picture(take(decoded, i), image)
        if predicted is None:
            return None
        label = task.picture(take(labels, i), image) if present[i] else None
        if label is None:
            label = np.full_like(predicted, _UNLABELED)
        pictures = (Image.fromarray(pixels) for pixels in (label, predicted))
        size = small.shape[1::-1]
        pairs.append([np.asarray(p.resize(size, Image.Resampling.NEAREST)) for p in pictures])
    return pairs


def label_grid(
    tasks: Sequence[Task], test: Predictions, index: _Index, width: float
) -> ImageGrid | None:
    """Returns a grid with a column per example, and rows of the labels and predictions.

    Tasks whose labels are not images get captions. None if there are no other tasks.
    """
    rows: list[tuple[str, list[Pixels]]] = []
    captioned = []
    for task in tasks:
        drawn = label_images(task, test, index)
        if drawn is None:
            captioned.append(task)
        else:
            labels, predictions = map(list, zip(*drawn, strict=True))
            rows += [(f"{task.name}\nlabel", labels), ("prediction", predictions)]
    if not rows:
        return None
    cells = captioned_cells(captioned, test, index, with_names=True)
    *inner, (_, last) = rows
    grid = [GridCell(cell.image) for cell in cells]
    grid += [GridCell(image) for _, images in inner for image in images]
    grid += [GridCell(image, cell.captions) for image, cell in zip(last, cells, strict=True)]
    row_labels = ["image", *(name for name, _ in rows)]
    return ImageGrid(cells=grid, columns=len(index), width=width, row_labels=row_labels)


def to_rgb(images: Num[np.ndarray, "N H W C"], index: _Index) -> list[Pixels]:
    """Returns examples as small RGB images, on one intensity scale for the entire split."""
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
    return [_shrink(image) for image in chosen]


def _shrink(pixels: Pixels) -> Pixels:
    image = Image.fromarray(pixels)
    scale = _MOST_PIXELS / max(image.size)
    if scale >= 1:
        return pixels
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    return np.asarray(image.resize(size, Image.Resampling.BOX))


def _one_line(text: str) -> str:
    return " ".join(text.split())
