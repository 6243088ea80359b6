"""Splits that are read on access: labels are checked once, sizes of files are read once."""

import os

import numpy as np
import pytest
from PIL import Image

from mtljax.data.files import images
from mtljax.data.files.images import image_size
from mtljax.data.lazy import LazySplit, RawExample, estimate_moments
from mtljax.tasks import Classification, Segmentation

TASKS = (
    Classification(name="kind", num_classes=3),
    Segmentation(name="mask", num_classes=3, ignore=None),
)


class Raw(list):
    """Raw examples in memory."""


def split_of(*masks, kinds=("1", "2", "1")):
    raw = Raw()
    for i, (mask, kind) in enumerate(zip(masks, kinds, strict=False)):
        labels = {"kind": kind, "mask": np.asarray(mask)}
        raw.append(RawExample(np.full((4, 4, 3), i, np.uint8), labels, f"{i}"))
    return LazySplit(raw, TASKS, None)


def test_a_label_is_checked_the_first_time_it_is_read(monkeypatch):
    calls = []
    for cls in (Classification, Segmentation):
        check = cls.check
        counted = lambda self, labels, check=check: (calls.append(self.name), check(self, labels))
        monkeypatch.setattr(cls, "check", counted)
    split = split_of(*[np.full((4, 4), i) for i in range(3)])
    epochs = [[split[row] for row in range(3)] for _ in range(3)]
    assert sorted(calls) == ["kind"] * 2 + ["mask"] * 3  # two different cells, three masks
    for epoch in epochs:
        assert [int(example["labels"]["kind"]) for example in epoch] == [1, 2, 1]
        assert [int(example["labels"]["mask"][0, 0]) for example in epoch] == [0, 1, 2]


def test_an_invalid_label_is_an_error_each_time(monkeypatch):
    split = split_of(np.full((4, 4), 3), np.zeros((4, 4), int), kinds=("1", "7"))
    for row, task in ((0, "mask"), (1, "kind"), (0, "mask"), (1, "kind")):
        with pytest.raises(ValueError, match=f"task '{task}'"):
            split[row]


def test_moments_are_those_of_the_readable_images():
    split = split_of(*[np.full((4, 4), m) for m in (0, 9, 1)])  # images of value 0, 1 and 2
    mean, std = estimate_moments(split)
    assert mean == (1.0, 1.0, 1.0)
    assert std == (1.0, 1.0, 1.0)


def test_the_size_of_a_file_is_read_again_if_the_file_changes(tmp_path, monkeypatch):
    path, reads = tmp_path / "a.png", []
    open_image = images.open_image
    monkeypatch.setattr(images, "open_image", lambda p: (reads.append(p), open_image(p))[1])
    Image.new("RGB", (8, 4)).save(path)
    assert [image_size(path) for _ in range(3)] == [(4, 8)] * 3
    assert len(reads) == 1
    Image.new("RGB", (6, 5)).save(path)
    os.utime(path, ns=(1, 1))
    assert image_size(path) == (5, 6)
    path.unlink()
    with pytest.raises(ValueError, match="cannot be read"):
        image_size(path)
