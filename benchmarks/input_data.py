"""Generators of data for benchmarks/input.py, with realistic decoding cost."""

import io
from pathlib import Path

import numpy as np
from PIL import Image


def jpegs(folder: Path, count: int = 1024, size: int = 256) -> None:
    """Writes JPEGs with about the decoding cost of photographs, and a table of labels."""
    (folder / "images").mkdir(parents=True)
    rng = np.random.default_rng(0)
    lines = ["image,label"]
    for i in range(count):
        coarse = rng.integers(0, 256, (size // 16, size // 16, 3), dtype=np.uint8)
        smooth = np.asarray(Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC))
        noisy = np.clip(smooth + rng.normal(0, 12, smooth.shape), 0, 255).astype(np.uint8)
        Image.fromarray(noisy).save(folder / "images" / f"{i:04}.jpg", quality=85)
        lines.append(f"{i:04}.jpg,{i % 10}")
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")


def npys(folder: Path, count: int = 64) -> None:
    """Writes arrays in the layout and size of NYUv2."""
    rng = np.random.default_rng(0)
    for part, size in (("train", count), ("val", 4)):
        for kind, shape in (("image", (288, 384, 3)), ("label", (288, 384))):
            (folder / part / kind).mkdir(parents=True)
            for i in range(size):
                values = (
                    rng.uniform(0, 1, shape) if kind == "image" else rng.integers(-1, 13, shape)
                )
                np.save(folder / part / kind / f"{i}.npy", values.astype(np.float32))


def array_records(folder: Path, count: int = 2000) -> None:
    """Writes a TensorFlow Dataset of 32x32 PNGs, like CIFAR-10."""
    import tensorflow_datasets as tfds

    class Bench(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            features = {
                "image": tfds.features.Image(shape=(32, 32, 3)),
                "label": tfds.features.ClassLabel(num_classes=10),
            }
            return tfds.core.DatasetInfo(
                builder=self, features=tfds.features.FeaturesDict(features)
            )

        def _split_generators(self, manager):
            return {"train": self._generate_examples(count)}

        def _generate_examples(self, count):
            rng = np.random.default_rng(0)
            for i in range(count):
                file = io.BytesIO()
                Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(file, "PNG")
                file.seek(0)
                yield i, {"image": file, "label": i % 10}

    Bench.name = "bench"
    Bench(data_dir=folder, file_format="array_record").download_and_prepare()
