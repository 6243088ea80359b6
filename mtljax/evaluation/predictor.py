"""Forward passes of a trained run in batches of bounded size, and reading of its inputs."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Num, PyTree

from mtljax.compilation import compiler_options
from mtljax.data.base import Batch, Split
from mtljax.data.files.images import image_size, read_content, read_image_array
from mtljax.data.files.jpeg import require_decoder
from mtljax.data.pipeline import READER_THREADS, read_batch
from mtljax.runs.load import TrainedModel
from mtljax.step import eval_step
from mtljax.tasks.warps import Pixels, resize_image
from mtljax.utils.text import error_prefix

BATCH_SIZE = 64
"""Maximum number of images in one forward pass."""
BATCH_BYTES = 2**23
"""Maximum bytes of these images, unless one image has more."""


class Predictor:
    """Compiled forward pass of a trained run."""

    def __init__(self, trained: TrainedModel):
        require_decoder(trained.experiment.data.decoder)
        self.trained = trained
        image = 4 * int(np.prod(trained.shape))
        self.batch_size = max(1, min(BATCH_SIZE, BATCH_BYTES // image))
        self._compiled_size = 0
        self._forward = jax.jit(
            lambda state, images: eval_step.predict(trained.model, state, images),
            compiler_options=compiler_options(),
        )

    def outputs(self, images: Num[np.ndarray, "B H W C"]) -> dict[str, PyTree[np.ndarray]]:
        """Returns {task: output} of up to `batch_size` images.

        A batch is padded to the size of an earlier one, so that the last one needs no compilation.
        """
        count = len(images)
        self._compiled_size = max(self._compiled_size, count)
        if count < self._compiled_size:
            padding = np.repeat(images[-1:], self._compiled_size - count, 0)
            images = np.concatenate([images, padding])
        outputs = jax.device_get(self._forward(self.trained.state, images))
        return jax.tree.map(lambda x: x[:count], outputs)

    def decode(self, outputs: dict[str, PyTree[np.ndarray]]) -> dict[str, PyTree[np.ndarray]]:
        """Returns {task: predictions in the form of labels}."""
        return {
            task.name: jax.tree.map(np.asarray, task.decode(outputs[task.name]))
            for task in self.trained.experiment.tasks
        }


class Input(NamedTuple):
    """Image file."""

    path: Path
    """Path of the file."""
    size: Pixels
    """Height and width; (0, 0) if it cannot be read."""
    error: str
    """Reason why it cannot be read; "" if it can."""


def read_inputs(
    trained: TrainedModel, paths: Sequence[Path]
) -> tuple[list[Input], Float[np.ndarray, "B H W C"]]:
    """Reads image files by several threads; returns the images of the readable ones."""
    images = np.empty((len(paths), *trained.shape), np.float32)

    def read(i: int) -> Input:
        path = paths[i]
        try:
            images[i] = read_image(path, trained)
            return Input(path, file_size(path), "")
        except ValueError as error:
            return Input(path, (0, 0), str(error))

    with ThreadPoolExecutor(READER_THREADS) as pool:
        inputs = list(pool.map(read, range(len(paths))))
    readable = [i for i, item in enumerate(inputs) if not item.error]
    return inputs, images if len(readable) == len(paths) else images[readable]


def file_size(path: Path) -> Pixels:
    """Returns height and width of an image file, upright."""
    if not path.is_file():
        raise ValueError(f"no image file {path}")
    with error_prefix(path):
        return image_size(path)


def read_image(path: Path, trained: TrainedModel) -> Float[np.ndarray, "H W C"]:
    """Reads an image file in the size and unit of the training images.

    The file is read as in training, see `mtljax.data.files.images.read_image`, and resized as in
    training to their height and width, without keeping the aspect ratio. If the training images
    were not in 0..255, the values of pictures are scaled from black..white to their range, and
    `.npy` arrays must be in their unit.

    Raises:
      ValueError: The file does not exist or is not an image.
    """
    if not path.is_file():
        raise ValueError(f"no image file {path}")
    height, width, channels = trained.shape
    is_unscaled = (trained.low, trained.high) != (0.0, 255.0)
    with error_prefix(path):
        if is_unscaled and path.suffix.lower() == ".npy":
            pixels = _read_array(path, channels)
        else:
            decoder = trained.experiment.data.decoder
            pixels, is_scaled, _ = read_content(path, channels, (height, width), decoder)
            if is_unscaled and is_scaled:
                fraction = pixels.astype(np.float32) / np.float32(255)
                pixels = trained.low + (trained.high - trained.low) * fraction
    return resize_image(pixels, (height, width)).astype(np.float32)


def _read_array(path: Path, channels: int) -> Float[np.ndarray, "H W C"]:
    """Reads an array in the unit of the training images."""
    pixels = read_image_array(path)
    if pixels.shape[-1] != channels:
        raise ValueError(f"has {pixels.shape[-1]} channels; the model takes {channels}")
    if not np.isfinite(pixels).all():
        raise ValueError("has pixels that are NaN or infinite")
    return pixels.astype(np.float32)


def read_in_batches(split: Split, batch_size: int) -> Iterator[Batch]:
    """Iterates over a split once, in order; the last batch may be smaller."""
    for start in range(0, len(split), batch_size):
        yield read_batch(split, np.arange(start, min(start + batch_size, len(split))))
