"""Source of prepared TensorFlow Datasets, read without TensorFlow and without a network."""

import dataclasses
import io
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from mtljax.data.base import LabelRequest, Source, require_labels
from mtljax.data.files.images import read_content, read_label_map
from mtljax.data.files.jpeg import Decoder, decoder_version
from mtljax.data.fingerprints import fingerprint
from mtljax.data.lazy import LazySplit, RawExample, source_of_splits, tasks_of
from mtljax.data.packs import IMAGE
from mtljax.data.sources.arguments import read_size
from mtljax.tasks import Task
from mtljax.tasks.warps import Pixels
from mtljax.utils.registry import nearest
from mtljax.utils.text import error_prefix


def tfds(
    name: str,
    size: tuple[int, ...] | None = None,
    channels: int | None = None,
    image: str = "image",
    *,
    train: str = "train",
    validation: str | None = None,
    test: str | None = None,
    data_dir: str | None = None,
    requests: Sequence[LabelRequest],
    decoder: Decoder = "turbo",
) -> Source:
    """TensorFlow Dataset, such as `tfds:oxford_iiit_pet`, prepared by the command `prepare`.

    A task's label is the feature of the task's name, or the feature set in `data.labels`;
    `attributes/Smiling` is a nested feature. Boxes, also in a sequence with classes, masks,
    classes (-1: missing), numbers and dictionaries of attributes are converted to the label of the
    task. A box of size zero is a missing label.

    Args:
      name: Name in TFDS, with `/CONFIG` and `:VERSION` if there are several.
      size: (height, width) to resize images and labels to; if omitted, all sizes must be equal.
      channels: 1 or 3; defaults to the channels of the feature.
      image: Feature with the image.
      train: Training split in the notation of TFDS, for example `train[:90%]`.
      validation: Validation split; default: the split of that name, or the last 10 % of `train`.
      test: Test split, likewise; the 10 % before the validation split if both are missing.
      data_dir: Folder of the data; if omitted, $TFDS_DATA_DIR or ~/tensorflow_datasets.

    References:
      TensorFlow Datasets, https://www.tensorflow.org/datasets
    """
    builder = _open_builder(name, data_dir)
    features = builder.info.features
    paths = list(_paths(features))
    if image not in features:
        hint = nearest(image, paths)
        raise ValueError(f"tfds {name} has no feature {image!r} for the image{hint}")
    new_size = read_size(size, "tfds")
    shape = features[image].shape
    if shape is None or len(shape) != 3:
        raise ValueError(f"tfds {name}: feature {image!r} is no image [H, W, C], but {shape}")
    require_labels(f"tfds {name}", requests, paths, noun="feature")
    with error_prefix(f"tfds {name}"):
        requests = [_with_classes(request, features) for request in requests]
    if new_size is None and None in shape[:2]:
        raise ValueError(f"tfds {name} has images of different sizes: give size=(height,width)")
    settings = image, channels or shape[-1] or 3, new_size, tuple(requests), features, decoder
    splits, unusable = {}, {}
    for part, split in _splits(set(builder.info.splits), train, validation, test).items():
        try:
            data = _open_split(builder, split, name)
        except ValueError as error:
            data, unusable[part] = (), str(error)
        examples = _TfdsExamples(data, f"tfds {name} {split}", *settings)
        splits[part] = LazySplit(examples, tasks_of(requests), new_size)
    source = source_of_splits(splits, 0.0, 255.0, tasks_of(requests))
    return dataclasses.replace(source, unusable=unusable)


def _with_classes(request: LabelRequest, features: Any) -> LabelRequest:
    """Returns the request with the classes of its feature, named by number if only counted."""
    feature = _at(features, request.key)
    names = getattr(feature, "names", None) or range(getattr(feature, "num_classes", None) or 0)
    return (
        request._replace(task=request.task.with_classes([*map(str, names)])) if names else request
    )


def _open_builder(name: str, data_dir: str | None) -> Any:
    """Returns the builder of data on this machine, without its code and without a network."""
    from tensorflow_datasets.core import read_only_builder
    from tensorflow_datasets.core.registered import DatasetNotFoundError

    data_dir = data_dir or os.environ.get("TFDS_DATA_DIR")
    try:
        builder = read_only_builder.builder_from_files(name, data_dir=data_dir)
    except DatasetNotFoundError:
        place = f" in {data_dir}" if data_dir else ""
        raise ValueError(
            f"tfds {name} is not prepared{place}: run `python -m mtljax.main prepare --experiment "
            "NAME` once, with a network"
        ) from None
    if builder.info.file_format is None or builder.info.file_format.value != "array_record":
        raise ValueError(
            f"tfds {name} is prepared as {builder.info.file_format}, which has no random access: "
            "prepare it as array_record in another data_dir"
        )
    return builder


def _open_split(builder: Any, split: str, name: str) -> Any:
    """Returns the examples of a split with random access, with encoded images."""
    import tensorflow_datasets

    encoded = {
        key: tensorflow_datasets.decode.SkipDecoding()
        for key, feature in builder.info.features.items()
        if isinstance(feature, tensorflow_datasets.features.Image)
    }
    try:
        return builder.as_data_source(split=split, decoders=encoded)
    except (ValueError, KeyError, AssertionError) as error:
        hint = nearest(split, builder.info.splits)
        raise ValueError(f"tfds {name} has no split {split!r}{hint}") from error


def _splits(
    known: set[str], train: str, validation: str | None, test: str | None
) -> dict[str, str]:
    """Returns the split of each part; missing ones are cut from the end of the training split."""
    missing = [] if validation or "validation" in known else ["validation"]
    missing += [] if test or "test" in known else ["test"]
    parts = {"validation": validation or "validation", "test": test or "test"}
    if missing and "[" in train:
        raise ValueError(f"tfds: train={train} needs a {missing[0]} split: set {missing[0]}=...")
    ends = [100 - 10 * i for i in range(len(missing), -1, -1)]
    for part, low, high in zip(missing, ends, ends[1:], strict=False):
        parts[part] = f"{train}[{low}%:{high}%]"
    return {"train": f"{train}[:{ends[0]}%]" if missing else train, **parts}


@dataclasses.dataclass(frozen=True)
class _TfdsExamples:
    """Raw examples of one split."""

    data: Any
    name: str
    image: str
    channels: int
    size: Pixels | None
    requests: tuple[LabelRequest, ...]
    features: Any
    decoder: Decoder

    def __len__(self) -> int:
        return len(self.data)

    def identity(self) -> dict[str, str]:
        """Returns hashes of what the images, and each task's labels, depend on; see `cache`."""
        files = sorted(Path(self.data.dataset_info.data_dir).iterdir())
        settings = self.name, self.image, self.channels, self.size, decoder_version(self.decoder)
        image = fingerprint(files, settings)
        labels = {task.name: fingerprint(image, task, key) for task, key in self.requests}
        return {IMAGE: image, **labels}

    def place(self, index: int) -> str:
        """Returns the data set and number of an example."""
        return f"{self.name} example {index}"

    def __getitem__(self, index: int) -> RawExample:
        example, place = self.data[index], self.place(index)
        with error_prefix(place):
            encoded = io.BytesIO(example[self.image])
            image, _, size = read_content(encoded, self.channels, self.size, self.decoder)
        labels = {
            task.name: _raw_label(task, _at(example, key), _at(self.features, key), size)
            for task, key in self.requests
        }
        return RawExample(image, labels, place, size)


def _at(tree: Any, path: str) -> Any:
    for key in path.split("/"):
        tree = tree[key]
    return tree


def _paths(features: Any, prefix: str = "") -> Iterator[str]:
    for name, feature in features.items():
        yield prefix + name
        if isinstance(feature, Mapping) or hasattr(feature, "items"):
            yield from _paths(feature, f"{prefix}{name}/")


def _raw_label(task: Task, value: Any, feature: Any, size: Pixels) -> Any:
    """Returns the argument of `Task.parse`, or None for a missing label."""
    from tensorflow_datasets import features

    if isinstance(feature, features.Image):
        return read_label_map(task, io.BytesIO(value))
    if isinstance(feature, features.BBoxFeature):
        return _to_pixels(value, size) if np.any(value) else None
    if isinstance(feature, features.ClassLabel):
        return None if value == -1 else value
    if isinstance(feature, features.Sequence) and isinstance(value, Mapping):
        return _boxes(value, feature.feature, size)
    return value


def _boxes(value: Mapping[str, Any], feature: Any, size: Pixels) -> Any:
    """Returns {"boxes", "classes"} of a sequence of objects."""
    from tensorflow_datasets import features

    boxes = [name for name in value if isinstance(feature[name], features.BBoxFeature)]
    classes = [name for name in value if isinstance(feature[name], features.ClassLabel)]
    if len(boxes) != 1:
        return value
    in_pixels = _to_pixels(np.asarray(value[boxes[0]]).reshape(-1, 4), size)
    chosen = value[classes[0]] if classes else [0] * len(in_pixels)
    return {"boxes": in_pixels, "classes": chosen, "size": size}


def _to_pixels(box: Any, size: Pixels) -> Float[np.ndarray, "*n 4"]:
    """Converts boxes (y0, x0, y1, x1) from fractions of the image's sides to pixels."""
    return np.asarray(box, np.float32) * np.asarray([*size, *size], np.float32)
