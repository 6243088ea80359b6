"""TensorFlow Datasets, read without TensorFlow and without a network once they are prepared."""

import dataclasses
import io
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from mtljax.data.base import Source, Wanted
from mtljax.data.images import read_image, read_map
from mtljax.data.reading import Examples, Raw, sampled_moments
from mtljax.data.sources.size import read_size
from mtljax.tasks.warps import Pixels
from mtljax.utils.registry import nearest

HELD_OUT = "90%"
"""Where a training split is cut if there is no other split to validate or to test on."""


def tfds(
    name: str,
    size: tuple[int, ...] | None = None,
    channels: int | None = None,
    image: str = "image",
    train: str = "train",
    validation: str | None = None,
    test: str | None = None,
    data_dir: str | None = None,
    *,
    wanted: Sequence[Wanted],
) -> Source:
    """A TensorFlow Dataset that is prepared: `tfds:oxford_iiit_pet`; `prepare` gets it ready.

    A task's label is the feature of its name, or where `data.labels` says: `attributes/Smiling` is
    a feature in a feature. Boxes, alone or in a sequence with their classes, masks, classes (-1:
    missing), numbers and dictionaries of attributes become what their task needs. A box of no size
    is a missing label.

    Args:
      name: As TFDS calls it, with `/CONFIG` and `:VERSION` if there are several.
      size: (height, width) that images and labels are brought to; all must have one size if left
        out.
      channels: 1 or 3; as the feature says if left out.
      image: Feature with the image.
      train: Split to train on, as TFDS writes splits: `train[:90%]`.
      validation: Split to validate on. Left out: the one of that name, or else the last tenth of
        `train`.
      test: Likewise, the tenth before that if both are missing.
      data_dir: Where it is; $TFDS_DATA_DIR, or else ~/tensorflow_datasets, if left out.
      wanted: What the tasks want.

    References:
      TensorFlow Datasets, https://www.tensorflow.org/datasets
    """
    builder = _prepared(name, data_dir)
    features = builder.info.features
    if image not in features:
        raise ValueError(
            f"tfds {name} has no feature {image!r} for the image{_near(image, features)}"
        )
    brought_to = read_size(size, "tfds")
    shape = features[image].shape
    wanted = tuple(wanted)
    for item in wanted:
        _check(name, item, features)
    if brought_to is None and None in shape[:2]:
        raise ValueError(f"tfds {name} has images of many sizes: give size=(height,width)")
    splits = _splits(set(builder.info.splits), train, validation, test)
    made = {}
    for part, split in splits.items():
        rows = _Rows(
            data=_opened(builder, split, name, image, features),
            name=f"tfds {name} {split}",
            image=image,
            channels=channels or shape[-1] or 3,
            size=brought_to,
            wanted=wanted,
            features=features,
        )
        made[part] = Examples(rows, tuple(task for task, _ in wanted), brought_to)
    mean, std = sampled_moments(made["train"])
    return Source(**made, mean=mean, std=std, low=0.0, high=255.0)


def _prepared(name: str, data_dir: str | None) -> Any:
    """The builder of data that is on this machine; neither its code nor a network is needed."""
    from tensorflow_datasets.core import read_only_builder
    from tensorflow_datasets.core.registered import DatasetNotFoundError

    where = data_dir or os.environ.get("TFDS_DATA_DIR")
    try:
        builder = read_only_builder.builder_from_files(name, data_dir=where)
    except DatasetNotFoundError:
        there = f" in {where}" if where else ""
        raise ValueError(
            f"tfds {name} is not prepared{there}: python -m mtljax.main prepare --experiment NAME "
            "does that (with a network, once)"
        ) from None
    if builder.info.file_format is None or builder.info.file_format.value != "array_record":
        raise ValueError(
            f"tfds {name} is prepared as {builder.info.file_format}, which has no random access: "
            "prepare it again, as array_record, in another data_dir"
        )
    return builder


def _opened(builder: Any, split: str, name: str, image: str, features: Any) -> Any:
    """Examples of a split with random access, images still encoded."""
    import tensorflow_datasets

    encoded = {
        key: tensorflow_datasets.decode.SkipDecoding()
        for key, feature in features.items()
        if isinstance(feature, tensorflow_datasets.features.Image)
    }
    try:
        return builder.as_data_source(split=split, decoders=encoded)
    except (ValueError, KeyError, AssertionError) as error:
        raise ValueError(
            f"tfds {name} has no split {split!r}{nearest(split, builder.info.splits)}"
        ) from error


def _splits(
    known: set[str], train: str, validation: str | None, test: str | None
) -> dict[str, str]:
    """Split of each part; what is missing is cut off the end of the training split."""
    cut = [] if validation or "validation" in known else ["validation"]
    cut += [] if test or "test" in known else ["test"]
    parts = {"validation": validation or "validation", "test": test or "test"}
    if cut and "[" in train:
        raise ValueError(f"tfds: name the {cut[0]} split, {cut[0]}=..., beside train={train}")
    ends = [100 - 10 * i for i in range(len(cut), -1, -1)]
    for part, low, high in zip(cut, ends, ends[1:], strict=False):
        parts[part] = f"{train}[{low}%:{high}%]"
    return {"train": f"{train}[:{ends[0]}%]" if cut else train, **parts}


@dataclasses.dataclass(frozen=True)
class _Rows:
    """Raw examples of one split."""

    data: Any
    name: str
    image: str
    channels: int
    size: Pixels | None
    wanted: tuple[Wanted, ...]
    features: Any

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> Raw:
        example = self.data[index]
        place = f"{self.name} example {index}"
        try:
            image = read_image(io.BytesIO(example[self.image]), self.channels, self.size)
        except ValueError as error:
            raise ValueError(f"{place}: {error}") from None
        labels = {
            task.name: _raw(_at(example, key), _at(self.features, key), image.shape[:2])
            for task, key in self.wanted
        }
        return Raw(image, labels, place)


def _at(tree: Any, key: str) -> Any:
    for part in key.split("/"):
        tree = tree[part]
    return tree


def _paths(features: Any, prefix: str = "") -> Iterator[str]:
    for name, feature in features.items():
        yield prefix + name
        if isinstance(feature, Mapping) or hasattr(feature, "items"):
            yield from _paths(feature, f"{prefix}{name}/")


def _near(key: str, features: Any) -> str:
    return nearest(key, list(_paths(features)))


def _check(name: str, item: Wanted, features: Any) -> None:
    """Raises ValueError if there is no such feature, or it has other classes than the task."""
    task, key = item
    if key not in set(_paths(features)):
        raise ValueError(
            f"tfds {name} has no feature {key!r} for task {task.name!r}{_near(key, features)}"
        )
    count, own = (
        getattr(_at(features, key), "num_classes", None),
        getattr(task, "num_classes", None),
    )
    if count is not None and own is not None and own != count:
        raise ValueError(
            f"tfds {name}: {key} has {count} classes, but task {task.name!r} num_classes={own}"
        )


def _raw(value: Any, feature: Any, size: Pixels) -> Any:
    """What `Task.read` takes, None if the label is missing."""
    from tensorflow_datasets import features

    if isinstance(feature, features.Image):
        return read_map(io.BytesIO(value))
    if isinstance(feature, features.BBoxFeature):
        return _pixels(value, size) if np.any(value) else None
    if isinstance(feature, features.ClassLabel):
        return None if value == -1 else value
    if isinstance(feature, features.Sequence) and isinstance(value, Mapping):
        return _boxes(value, feature.feature, size)
    return value


def _boxes(value: Mapping[str, Any], feature: Any, size: Pixels) -> Any:
    """{"boxes", "classes"} of a sequence of objects."""
    from tensorflow_datasets import features

    kinds = {name: type(feature[name]) for name in value}
    boxes = [name for name, kind in kinds.items() if issubclass(kind, features.BBoxFeature)]
    classes = [name for name, kind in kinds.items() if issubclass(kind, features.ClassLabel)]
    if len(boxes) != 1:
        return value
    found = _pixels(np.asarray(value[boxes[0]]).reshape(-1, 4), size)
    return {"boxes": found, "classes": value[classes[0]] if classes else [0] * len(found)}


def _pixels(box: Any, size: Pixels) -> np.ndarray:
    """Boxes (y0, x0, y1, x1) from shares of the image's sides to pixels."""
    return np.asarray(box, np.float32) * np.asarray([*size, *size], np.float32)
