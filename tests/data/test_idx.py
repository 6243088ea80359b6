"""The files of the MNIST family, and what is made of them."""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
from support.datasets import write_idx

from mtljax.build import load_source
from mtljax.config import find_experiment
from mtljax.data import SOURCES
from mtljax.data.sources.idx import read_idx
from mtljax.main import main

FASHION = Path("/usr/share/datasets/fashion-mnist")
"""Debian's package dataset-fashion-mnist, which `.ci/run` installs where it can."""
fashion = pytest.mark.skipif(
    not FASHION.is_dir(), reason="needs Debian's package dataset-fashion-mnist"
)


@pytest.fixture(scope="module", params=["", ".gz"], ids=["plain", "gz"])
def folder(request, tmp_path_factory):
    """Files like MNIST's with 60 + 20 images, bright where their class says."""
    where = tmp_path_factory.mktemp("idx")
    rng = np.random.default_rng(0)
    for part, count in (("train", 60), ("t10k", 20)):
        labels = (np.arange(count) % 10).astype(np.uint8)
        images = rng.integers(0, 60, (count, 28, 28), dtype=np.uint8)
        for image, label in zip(images, labels, strict=True):
            image[2 * label : 2 * label + 8] += 190
        write_idx(where / f"{part}-images-idx3-ubyte{request.param}", images)
        write_idx(where / f"{part}-labels-idx1-ubyte{request.param}", labels)
    return where


def test_files_are_read_as_they_were_written(folder):
    source = SOURCES["idx"](str(folder))
    assert [len(s) for s in source.splits().values()] == [54, 6, 20]
    assert source.test.image.dtype == np.uint8
    np.testing.assert_array_equal(source.test.labels["label"], np.arange(20) % 10)
    rows = np.concatenate([source.train.image, source.validation.image])
    written = next(folder.glob("train-images*"))
    assert {x.tobytes() for x in rows} == {x.tobytes() for x in read_idx(written)}


def test_images_can_be_brought_to_another_size(folder):
    source, small = SOURCES["idx"](str(folder)), SOURCES["idx"](str(folder), size=(7, 14))
    assert small.test.image.shape == (20, 7, 14, 1)
    assert small.test.image.dtype == np.uint8
    # Nothing is left out: each is as bright as before.
    whole = source.test.image.mean((1, 2), dtype=float)
    np.testing.assert_allclose(small.test.image.mean((1, 2), dtype=float), whole, rtol=0.05)
    np.testing.assert_array_equal(small.train.labels["label"], source.train.labels["label"])


@pytest.mark.parametrize("size", [(8,), (0, 8), (8, 8, 1)])
def test_a_size_is_height_and_width(folder, size):
    with pytest.raises(ValueError, match="source idx: size must be"):
        SOURCES["idx"](str(folder), size=size)


def test_a_folder_is_found_where_the_variable_says(folder, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MTLJAX_DATA", str(folder.parent))
    assert len(SOURCES["idx"](folder.name).test) == 20
    with pytest.raises(ValueError, match=f"no folder nowhere nor {folder.parent}/nowhere"):
        SOURCES["idx"]("nowhere")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: data[:-1], "do not hold an array of shape"),
        (lambda data: b"\x89PNG" + data, "is not an IDX file of bytes: it starts with 89504e47"),
        (lambda data: data[:9], "is damaged"),
        (lambda data: b"", "is not an IDX file"),
    ],
)
def test_damaged_files_are_named(folder, tmp_path, damage, message):
    path = tmp_path / "train-images-idx3-ubyte"
    data = next(folder.glob("train-images*")).read_bytes()
    path.write_bytes(damage(gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data))
    with pytest.raises(ValueError, match=message):
        read_idx(path)


def test_a_packed_file_that_is_cut_off_is_named(tmp_path):
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(gzip.compress(bytes(1000))[:-9])
    with pytest.raises(ValueError, match="cannot be read"):
        read_idx(path)


def slice_of(folder, out, images, tests):
    """The beginning of IDX files, in a folder of its own."""
    for part, count in (("train", images), ("t10k", tests)):
        for kind in ("images-idx3", "labels-idx1"):
            whole = read_idx(next(folder.glob(f"{part}-{kind}-ubyte*")))
            write_idx(out / f"{part}-{kind}-ubyte", whole[:count])


def trained(folder, workdir, *flags):
    source = f"multi:'idx:{folder}',images=2000"
    arguments = [
        *("--experiment", "multi_fashion", "--data.source", source, "--workdir", str(workdir)),
        *("--trunk", "mlp:widths=(64,)", "--quiet", *flags),
        *("--data.batch-size", "64", "--data.keep-on-device", "no"),
    ]
    assert main(arguments) == 0


@pytest.mark.full
@pytest.mark.parametrize("folder", [".gz"], indirect=True)
def test_two_tasks_are_learned_from_such_files(folder, tmp_path):
    trained(folder, tmp_path / "run", "--steps", "60", "--eval-every", "60")
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    for side in ("left", "right"):
        assert result["test"][side]["accuracy"] > 0.3  # a tenth by chance


@fashion
def test_multi_fashion_is_made_of_the_whole_of_fashion_mnist():
    source = load_source(find_experiment("multi_fashion"))
    assert [len(s) for s in source.splits().values()] == [60000, 6000, 10000]
    assert source.train.image.shape[1:] == (36, 36, 1)
    for side in ("left", "right"):
        counts = np.bincount(source.train.labels[side], minlength=10)
        assert counts.min() > 5600
        np.testing.assert_array_equal(np.bincount(source.test.labels[side]), [1000] * 10)


@fashion
def test_multi_fashion_trains_on_a_slice(tmp_path):
    slice_of(FASHION, tmp_path, 2000, 400)
    trained(tmp_path, tmp_path / "run", "--steps", "120", "--eval-every", "120")
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    for side in ("left", "right"):
        assert result["test"][side]["accuracy"] > 0.5
