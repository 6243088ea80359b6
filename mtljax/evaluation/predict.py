"""Evaluation of trained runs, and predictions for images and image files."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float, Num, PyTree

from mtljax.build import load_source
from mtljax.compilation import compiler_options
from mtljax.data import Source
from mtljax.data.images import flatten_transparency, open_image
from mtljax.evaluation.evaluator import make_evaluator
from mtljax.parallel import place
from mtljax.runs.load import TrainedModel, load_run
from mtljax.step import eval_step
from mtljax.step.attacks import Attack, attack_batch
from mtljax.step.axis import Axis
from mtljax.step.state import TrainState, example_keys
from mtljax.tasks import Task
from mtljax.tasks.base import SplitMetrics
from mtljax.utils.bounded_reading import read_npy
from mtljax.utils.files import write_json
from mtljax.utils.registry import nearest

BATCH_SIZE = 64
"""Maximum number of images in one forward pass."""
SPLITS = ("train", "validation", "test")


def evaluate(
    run: TrainedModel | Path | str, split: str = "test", *, source: Source | None = None
) -> SplitMetrics:
    """Evaluates a trained run on one of its splits.

    Args:
      run: Run folder, or the result of `load_run`.
      split: train, validation or test.
      source: Data in memory, as in `train`; None: the experiment's `data.source`.

    Returns:
      {task: {metric: value}} over the full split.

    Raises:
      ValueError: The run cannot be loaded, the split does not exist, or the data is missing.
    """
    return evaluate_run(_loaded(run), split, source=source)["metrics"]


def predict(
    run: TrainedModel | Path | str,
    images: Num[np.ndarray, "B H W C"] | Array | Sequence[Path | str] | Path | str,
) -> dict[str, PyTree[np.ndarray]]:
    """Predicts every task with a trained run.

    Args:
      run: Run folder, or the result of `load_run`.
      images: [B, H, W, C] in the size and unit of the training images, or image files of any size.

    Returns:
      {task: predictions of all images in the form of labels, with leading axis B}.

    Raises:
      ValueError: The run cannot be loaded, an image cannot be read, or the shape is wrong.
    """
    trained = _loaded(run)
    if isinstance(images, np.ndarray | Array):
        pixels = np.asarray(images)
    else:
        paths = [images] if isinstance(images, str | Path) else images
        pixels = np.stack([read_image(Path(path), trained) for path in paths])
    if pixels.shape[1:] != tuple(trained.shape):
        raise ValueError(f"images must be of shape (B, *{trained.shape}), not {pixels.shape}")
    forward = jax.jit(
        lambda state, images: eval_step.predict(trained.model, state, images),
        compiler_options=compiler_options(),
    )
    batches = np.split(pixels, range(BATCH_SIZE, len(pixels), BATCH_SIZE))
    parts = [jax.device_get(forward(trained.state, batch)) for batch in batches]
    outputs = jax.tree.map(lambda *parts: np.concatenate(parts), *parts)
    return {
        task.name: jax.tree.map(np.asarray, task.decode(outputs[task.name]))
        for task in trained.experiment.tasks
    }


def _loaded(run: TrainedModel | Path | str) -> TrainedModel:
    return run if isinstance(run, TrainedModel) else load_run(run)


def evaluate_run(
    trained: TrainedModel, split: str, attack: Attack | None = None, source: Source | None = None
) -> dict[str, SplitMetrics]:
    """Evaluates a trained run as `evaluate` does, and under an adversarial attack.

    Returns:
      {"metrics": metrics}; with an attack also `own`, the metrics of each task under attacks on its
      own loss, and `all`, under attacks on the sum of all losses.

    Raises:
      ValueError: The split does not exist, or the data is missing.
    """
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}{nearest(split, SPLITS)}")
    experiment = trained.experiment
    examples = load_source(experiment, source).splits()[split]
    placement = place(experiment.data.batch_size, 1)

    def metrics(*attacked: Task) -> SplitMetrics:
        def change(state: TrainState, batch: PyTree) -> PyTree:
            assert attack is not None
            outputs = lambda image: eval_step.predict(trained.model, state, image)
            keys = example_keys(jax.random.key(0), batch, Axis())
            return attack_batch(attack, attacked, outputs, batch, keys)

        evaluator = make_evaluator(
            experiment, trained.model, examples, placement, change=change if attacked else None
        )
        return evaluator.metrics(trained.state)

    results = {"metrics": metrics()}
    if attack is not None:
        results["own"] = {task.name: metrics(task)[task.name] for task in experiment.tasks}
        results["all"] = metrics(*experiment.tasks)
    return results


def read_image(path: Path, trained: TrainedModel) -> Float[np.ndarray, "H W C"]:
    """Reads an image file in the size and unit of the training images.

    PNG, JPEG and similar files are composited on white where they are transparent, converted to
    gray or RGB like the training images, and scaled from black..white to low..high. A `.npy` array
    [H, W] or [H, W, C] must already be in the unit of the training images. Images are resized to
    the training images' height and width with a triangle filter, without keeping the aspect ratio:
    bilinear enlargement, antialiased reduction.

    Raises:
      ValueError: The file does not exist or is not an image.
    """
    if not path.is_file():
        raise ValueError(f"no image file {path}")
    height, width, channels = trained.shape
    pixels = _read_array(path) if path.suffix.lower() == ".npy" else _read_picture(path, trained)
    if pixels.shape[-1] != channels:
        raise ValueError(f"{path} has {pixels.shape[-1]} channels; the model takes {channels}")
    if pixels.shape[:2] != (height, width):
        pixels = np.asarray(jax.image.resize(pixels, trained.shape, "linear", antialias=True))
    return pixels.astype(np.float32)


def _read_array(path: Path) -> Float[np.ndarray, "H W C"]:
    try:
        pixels = np.array(read_npy(path))
    except (ValueError, OSError) as error:
        raise ValueError(f"{path} is not a NumPy array: {error}") from None
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    if pixels.ndim != 3 or 0 in pixels.shape or pixels.dtype.kind not in "fiub":
        raise ValueError(
            f"{path} contains {pixels.dtype} of shape {pixels.shape}, not an image [H, W] or "
            "[H, W, C]"
        )
    if not np.isfinite(pixels).all():
        raise ValueError(f"{path} has pixels that are NaN or infinite")
    return pixels.astype(np.float32)


def _read_picture(path: Path, trained: TrainedModel) -> Float[np.ndarray, "H W C"]:
    from PIL import ImageOps, UnidentifiedImageError

    try:
        with warnings.catch_warnings(action="ignore"), open_image(path) as file:  # color warnings
            image = ImageOps.exif_transpose(file)
            if image.mode.startswith(("I", "F")):  # 16 bits: white is 65535
                pixels = np.asarray(image, np.float32)[..., None] / 65535.0
                pixels = np.repeat(pixels, trained.shape[-1], -1)
            else:
                mode = "L" if trained.shape[-1] == 1 else "RGB"
                pixels = np.asarray(flatten_transparency(image).convert(mode), np.float32) / 255.0
                pixels = pixels.reshape(*pixels.shape[:2], -1)
    except UnidentifiedImageError:
        raise ValueError(f"{path} is not a PNG, JPEG or npy image") from None
    except Exception as error:  # Pillow raises any exception for damaged files
        raise ValueError(f"{path} is a damaged image: {error}") from None
    return trained.low + (trained.high - trained.low) * pixels


def predict_files(
    trained: TrainedModel, paths: Sequence[Path], output: Path
) -> list[dict[str, Any]]:
    """Predicts every task for image files and writes the predictions as JSON.

    Predictions that are images are written to `.npy` files in the folder of `output`.

    Returns:
      The JSON: `{"image": path, task: {"prediction": ..., "text": ...}}` per file.
    """
    predictions = predict(trained, paths)
    entries = []
    for i, path in enumerate(paths):
        entry: dict[str, Any] = {"image": str(path)}
        for task in trained.experiment.tasks:
            value = jax.tree.map(lambda x, i=i: x[i], predictions[task.name])
            entry[task.name] = _as_json(value, task, output, f"{i}_{path.stem}_{task.name}")
        entries.append(entry)
    write_json(output, entries)
    return entries


def _as_json(value: PyTree[np.ndarray], task: Task, output: Path, name: str) -> dict[str, object]:
    if isinstance(value, np.ndarray) and value.ndim >= 2:
        file = output.with_name(f"{output.stem}_{name}.npy")
        file.unlink(missing_ok=True)  # np.save would follow a symbolic link
        np.save(file, value)
        return {"prediction": str(file), "text": f"{value.shape} in {file.name}"}
    plain = jax.tree.map(lambda x: np.asarray(x).tolist(), value)
    return {"prediction": plain, "text": task.text(value)}
