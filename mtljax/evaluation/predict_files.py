"""Predictions for image files, in the pixels of the files, written as JSON, arrays and pictures."""

import contextlib
import dataclasses
import glob
import json
import os
import textwrap
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float, PyTree
from PIL import Image

from mtljax.data.files.images import FILES, read_content
from mtljax.data.layouts import walk
from mtljax.evaluation.predictor import Input, Predictor, read_inputs
from mtljax.runs.load import TrainedModel
from mtljax.tasks import Task, drawing
from mtljax.tasks.warps import Pixels, Resize
from mtljax.utils.files import PART, null_for_nan
from mtljax.utils.terminal import print_line

MAX_SHOWN = 20
"""Maximum number of entries that are returned for the terminal."""
MAX_INLINE = 1000
"""Maximum number of values of an array in the JSON."""
PROGRESS_SECONDS = 10.0
"""Seconds between two lines of progress."""


class FilePrediction(NamedTuple):
    """Predictions for one file; none if it cannot be read."""

    file: Input
    """Predicted file."""
    predictions: dict[str, PyTree[np.ndarray]]
    """{task: prediction in the form of a label, in the pixels of the file}."""
    probabilities: dict[str, Float[np.ndarray, " C"]]
    """Probability of each class, of tasks with classes."""


class Summary(NamedTuple):
    """Result of `predict_files`."""

    total: int
    """Number of files, including unreadable ones."""
    entries: list[dict[str, Any]]
    """First entries of the JSON, without unreadable files."""
    failed: list[str]
    """Reasons for unreadable files."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Options of the written predictions.

    Attributes:
      overlay: Write pictures of maps, boxes and points on top of the image.
      top_k: Number of the most probable classes that are listed in order.
      temperatures: Task -> divisor of its logits in probabilities.
    """

    overlay: bool = False
    top_k: int = 5
    temperatures: Mapping[str, float] = dataclasses.field(default_factory=dict)


def find_images(names: Sequence[Path]) -> list[Path]:
    """Returns image files: files as given, those in folders, and those that match a pattern.

    Hidden files in folders, such as `._1.jpg`, are left out, as in training.

    Raises:
      ValueError: A folder has no image, or no file matches a pattern.
    """
    images: list[Path] = []
    for name in names:
        if name.is_dir():
            inside = sorted(path for path in walk(name) if path.suffix.lower() in FILES)
            if not inside:
                raise ValueError(f"no image files in {name}; extensions: {', '.join(FILES)}")
            images += inside
        elif not name.exists() and glob.has_magic(str(name)):
            matches = sorted(map(Path, glob.glob(str(name), recursive=True)))
            if not matches:
                raise ValueError(f"no file matches {name}")
            images += matches
        else:
            images.append(name)
    return images


def predict_each(
    trained: TrainedModel,
    paths: Sequence[Path],
    temperatures: Mapping[str, float] | None = None,
) -> Iterator[FilePrediction]:
    """Iterates over the predictions for image files, in batches of bounded size."""
    predictor = Predictor(trained)
    for start in range(0, len(paths), predictor.batch_size):
        # In a separate function, so that no arrays are left when the next batch is read.
        yield from _predict_batch(
            predictor, paths[start : start + predictor.batch_size], temperatures or {}
        )


def _predict_batch(
    predictor: Predictor, paths: Sequence[Path], temperatures: Mapping[str, float]
) -> Iterator[FilePrediction]:
    trained = predictor.trained
    inputs, images = read_inputs(trained, paths)
    outputs = predictor.outputs(images) if len(images) else {}
    del images
    decoded = predictor.decode(outputs) if outputs else {}
    probabilities = _probabilities(trained.experiment.tasks, outputs, temperatures)
    del outputs
    row = 0
    for item in inputs:
        if item.error:
            yield FilePrediction(item, {}, {})
            continue
        at = lambda x, row=row: x[row]
        predictions = {
            task.name: restored(
                task, jax.tree.map(at, decoded[task.name]), trained.shape[:2], item.size
            )
            for task in trained.experiment.tasks
        }
        yield FilePrediction(item, predictions, {n: p[row] for n, p in probabilities.items()})
        row += 1


def restored(task: Task, value: PyTree, old: Pixels, size: Pixels) -> PyTree:
    """Returns a prediction in an image of another size."""
    if old != size:
        with contextlib.suppress(ValueError):  # without `warp`, predictions are not in its pixels
            value = jax.tree.map(np.asarray, task.restore(value, Resize(old=old, size=size)))
    return value


def _probabilities(
    tasks: Sequence[Task], outputs: Mapping[str, PyTree], temperatures: Mapping[str, float]
) -> dict[str, Float[np.ndarray, "B C"]]:
    if not outputs:
        return {}
    probabilities = {
        t.name: t.probabilities(outputs[t.name], temperatures.get(t.name, 1.0)) for t in tasks
    }
    return {
        name: np.asarray(values) for name, values in probabilities.items() if values is not None
    }


def predict_files(
    trained: TrainedModel, paths: Sequence[Path], output: Path, options: Options | None = None
) -> Summary:
    """Predicts every task for image files and writes the predictions as JSON, batch by batch.

    An entry has the keys `image`, `size` (height and width of the file, in whose pixels the
    predictions are), `model_size`, and a key for each task: `prediction`, `text`, with classes also
    `probabilities` and `top`. Maps are written to `.npy` files next to `output`, and as `png`. An
    unreadable file has the key `error` instead.

    Raises:
      ValueError: No file can be read; then no file is written.
    """
    options = options or Options()
    summary, printed = Summary(len(paths), [], []), time.monotonic()
    with _json_array(output) as write:
        predictions = predict_each(trained, paths, options.temperatures)
        for i, item in enumerate(predictions):
            prefix = output.with_name(f"{output.stem}_{i}_{item.file.path.stem}")
            entry = _entry(trained, item, prefix, options)
            write(entry)
            if item.file.error:
                summary.failed.append(item.file.error)
            elif len(summary.entries) < MAX_SHOWN:
                summary.entries.append(entry)
            if time.monotonic() - printed > PROGRESS_SECONDS:
                printed = time.monotonic()
                print_line(f"predicted {i + 1} of {len(paths)} images")
        if paths and len(summary.failed) == len(paths):
            raise ValueError(describe_failures(summary))
    return summary


def describe_failures(summary: Summary) -> str:
    """Returns the number of unreadable files, if several were given, and the first reason."""
    count = f"{len(summary.failed)} of {summary.total} images cannot be predicted; first: "
    return (count if summary.total > 1 else "") + summary.failed[0]


@contextlib.contextmanager
def _json_array(path: Path) -> Iterator[Callable[[Any], None]]:
    """Context that writes a JSON array item by item, atomically."""
    part, separator = path.with_name(path.name + PART), "[\n"
    part.unlink(missing_ok=True)
    try:
        with part.open("x", encoding="utf-8") as file:

            def write(item: Any) -> None:
                nonlocal separator
                text = json.dumps(null_for_nan(item), indent=2, allow_nan=False)
                file.write(separator + textwrap.indent(text, "  "))
                separator = ",\n"

            yield write
            file.write("[]\n" if separator == "[\n" else "\n]\n")
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def _entry(
    trained: TrainedModel, item: FilePrediction, prefix: Path, options: Options
) -> dict[str, Any]:
    entry: dict[str, Any] = {"image": str(item.file.path)}
    if item.file.error:
        return {**entry, "error": item.file.error}
    entry |= {"size": list(item.file.size), "model_size": list(trained.shape[:2])}
    picture = _as_rgb(trained, item.file.path) if options.overlay else None
    for task in trained.experiment.tasks:
        value, probabilities = item.predictions[task.name], item.probabilities.get(task.name)
        named = prefix.with_name(f"{prefix.name}_{task.name}")
        described = _as_json(value, task, item.file.size, named, picture)
        if probabilities is not None:
            described |= _classes(task, probabilities, options.top_k)
        if task.name in options.temperatures:
            described["temperature"] = options.temperatures[task.name]
        entry[task.name] = described
    return entry


def _as_json(
    value: PyTree[np.ndarray], task: Task, size: Pixels, prefix: Path, image: drawing.RGB | None
) -> dict[str, Any]:
    """Returns the JSON of one prediction; writes maps and pictures to files."""
    described: dict[str, Any] = {}
    is_map = isinstance(value, np.ndarray) and value.ndim >= 2 and value.shape[:2] == size
    if is_map or (isinstance(value, np.ndarray) and value.size > MAX_INLINE):
        count = getattr(task, "num_classes", 0) if value.dtype.kind in "iu" else 0
        value = value.astype(np.uint8) if 0 < count <= 256 else value
        described["prediction"] = _save(prefix, ".npy", lambda path: np.save(path, value))
        picture = _map_picture(task, value, count) if is_map else None
        if picture is not None:
            described["png"] = _save(prefix, ".png", picture.save)
    else:
        described["prediction"] = jax.tree.map(lambda x: np.asarray(x).tolist(), value)
    described["text"] = task.text(value)
    if image is not None and (drawn := task.picture(value, image)) is not None:
        mixed = (image.astype(np.uint16) + drawn) // 2 if is_map else drawn
        picture = Image.fromarray(mixed.astype(np.uint8))
        described["overlay"] = _save(prefix, "_overlay.png", picture.save)
    return described


def _save(prefix: Path, suffix: str, write: Callable[[Path], Any]) -> str:
    file = prefix.with_name(prefix.name + suffix)
    file.unlink(missing_ok=True)  # a symbolic link would be followed
    write(file)
    return str(file)


def _map_picture(task: Task, value: np.ndarray, count: int) -> Image.Image | None:
    """Returns a picture of a map; of classes, their indices with a palette."""
    if 0 < count <= 256:
        picture = Image.fromarray(value, "P")
        colors = np.asarray(getattr(task, "colors", ()) or drawing.class_colors(count), np.uint8)
        picture.putpalette(colors.tobytes())
        return picture
    drawn = task.picture(value, np.zeros((*value.shape[:2], 3), np.uint8))
    return None if drawn is None else Image.fromarray(drawn)


def _classes(task: Task, probabilities: Float[np.ndarray, " C"], count: int) -> dict[str, Any]:
    """Returns the probability of each class and the most probable classes, by name."""
    names = getattr(task, "class_names", ()) or [str(i) for i in range(len(probabilities))]
    named = {name: float(p) for name, p in zip(names, probabilities, strict=True)}
    ranked = np.argsort(-probabilities, kind="stable")[:count]
    top = [{"class": names[i], "probability": float(probabilities[i])} for i in ranked]
    return {"probabilities": named, "top": top}


def _as_rgb(trained: TrainedModel, path: Path) -> drawing.RGB:
    """Reads an image file as a picture, at its full size."""
    decoder = trained.experiment.data.decoder
    pixels, is_scaled, _ = read_content(path, trained.shape[-1], decoder=decoder)
    low, high = (0.0, 255.0) if is_scaled else (trained.low, trained.high)
    fraction = (pixels.astype(np.float32) - low) / (high - low)
    return drawing.as_rgb(np.round(255 * np.clip(fraction, 0, 1)).astype(np.uint8))
