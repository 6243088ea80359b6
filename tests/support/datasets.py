"""Small data sets in the formats that the sources read."""

import gzip
import io
import struct

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

CELLS = [(defect, kind) for kind in ("mono", "poly") for defect in (0.0, 1 / 3, 2 / 3, 1.0)] * 20
"""Labels of what `make_elpv` writes: twenty cells of each combination."""


def make_elpv(folder):
    """A package like elpv-dataset, of tiny images: cell i is gray i, with one white pixel."""
    data = folder / "elpv_dataset" / "data"
    (data / "images").mkdir(parents=True)
    (data.parent / "__init__.py").touch()
    lines = []
    for i, (defect, kind) in enumerate(CELLS):
        pixels = np.full((6, 6), i, np.uint8)
        pixels[0, 0] = 255
        Image.fromarray(pixels).save(data / "images" / f"cell{i:04}.png")
        lines.append(f"images/cell{i:04}.png  {defect}  {kind}\n")
    (data / "labels.csv").write_text("".join(lines))
    return data / "labels.csv"


def write_idx(path, array):
    header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    data = header + array.tobytes()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


SHAPES = {"nyuv2": (288, 384), "cityscapes": (128, 256)}
CLASSES = {"nyuv2": 13, "cityscapes": 7}
COUNTS = {"train": 5, "val": 3}


def make_npy_folders(root, name):
    """Files in the exact layout: types, axes and marks of what is missing as in the archives."""
    height, width = SHAPES[name]
    rng = np.random.default_rng(0)
    for part, count in COUNTS.items():
        for i in range(count):
            label = rng.integers(-1, CLASSES[name], (height // 8, width // 8))
            label = label.repeat(8, 0).repeat(8, 1).astype(np.float64)
            depth = rng.uniform(0.5, 9, (height, width, 1)).astype(np.float32)
            depth[rng.uniform(size=depth.shape) < 0.2] = 0
            normal = rng.normal(size=(height, width, 3))
            normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
            normal[rng.uniform(size=(height, width)) < 0.2] = 0
            arrays = {
                "image": rng.uniform(0, 1, (height, width, 3)),
                "label": label,
                "depth": depth,
                "normal": normal,
            }
            if name == "cityscapes":
                del arrays["normal"]
            for kind, array in arrays.items():
                folder = root / name / part / kind
                folder.mkdir(parents=True, exist_ok=True)
                np.save(folder / f"{i}.npy", array)


def encoded(pixels, kind="PNG"):
    """A file in memory: TFDS needs TensorFlow only where it has to encode images itself."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    file.seek(0)
    return file


def builder_like(name, version, features, splits, example):
    """A builder of some name and features, whose examples are made by a function."""

    class Fake(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version(version)

        def _info(self):
            return tfds.core.DatasetInfo(builder=self, features=features)

        def _split_generators(self, manager):
            return {
                split: self._generate_examples(number, count)
                for number, (split, count) in enumerate(splits.items())
            }

        def _generate_examples(self, number, count):
            for i in range(count):
                yield i, example(np.random.default_rng([number, i]), i)

    Fake.name = name
    return Fake


def made(cls, folder):
    builder = cls(data_dir=folder, file_format="array_record")
    settings = tfds.download.DownloadConfig(try_download_gcs=False)
    builder.download_and_prepare(download_config=settings)
    return builder


SCENE = tfds.features.FeaturesDict(
    {
        "image": tfds.features.Image(shape=(None, None, 3), encoding_format="png"),
        "label": tfds.features.ClassLabel(num_classes=3),
        "marks": {"a": np.bool_, "b": np.bool_},
        "nose": tfds.features.Tensor(shape=(1, 2), dtype=np.float32),
        "objects": tfds.features.Sequence(
            {
                "bbox": tfds.features.BBoxFeature(),
                "label": tfds.features.ClassLabel(num_classes=4),
            }
        ),
    }
)


def scene(rng, i):
    image = rng.integers(0, 256, (10 + i % 3, 12, 3), dtype=np.uint8)
    image[:2, :2] = i  # TFDS shuffles: an image says which it is, also after resizing
    return {
        "image": encoded(image),
        "label": i % 4 - 1,
        "marks": {"a": bool(i % 2), "b": bool(i % 3)},
        "nose": np.array([[3, i % 7]], np.float32),
        "objects": [
            {"bbox": tfds.features.BBox(0.0, 0.25, 0.5, 1.0), "label": j} for j in range(i % 3)
        ],
    }
