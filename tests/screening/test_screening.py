"""Screening: planted faults are found, clean data is left alone, and what is listed is left out."""

import base64
import dataclasses
import io
import json

import jax
import numpy as np
import pytest
from PIL import Image
from support import planted

from mtljax.build import load_source
from mtljax.config import find_experiment
from mtljax.data import SOURCES, from_arrays
from mtljax.data.base import map_splits
from mtljax.data.droplist import drop_examples
from mtljax.data.pool import ExampleId, pool_of
from mtljax.evaluation.predictions import Predictions
from mtljax.main import main
from mtljax.screening.appearance import find_odd_images
from mtljax.screening.droplist import examples_to_drop, write_drop
from mtljax.screening.findings import Finding
from mtljax.screening.images import find_duplicates, summarize_images
from mtljax.screening.labels import find_label_issues
from mtljax.screening.screen import load_screened
from mtljax.tasks import Classification, Regression, Segmentation

QUICK = {"steps": 20, "log_every": 10, "eval_every": 10}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """(folder with faults, what they are, clean folder): 400 digits."""
    root = tmp_path_factory.mktemp("digits")
    found = planted.write_digits(root / "faulty", most=400, each=8)
    planted.write_digits(root / "clean", faults=False, most=400)
    return root / "faulty", found, root / "clean"


def screened(folder, tmp_path, *flags, **fields):
    """What is found, by the command line."""
    path = planted.write_experiment(tmp_path / "planted.py", folder, **(fields or QUICK))
    output = tmp_path / "screened"
    arguments = ["screen", "--experiment", path, "--output", str(output), *map(str, flags)]
    assert main(arguments) == 0
    return planted.read_findings(output, folder)


def test_all_faults_that_need_no_training_are_found(folders, tmp_path):
    folder, faults, _ = folders
    found = screened(folder, tmp_path, "--folds", 0)
    for kind in ("unreadable", "not finite", "out of range", "duplicate", "leak"):
        assert found[kind].keys() == faults[kind].keys(), kind
    for kind in ("duplicate", "leak"):
        assert found[kind] == faults[kind]
    assert set(found) == set(faults) - {"label"}


def test_nothing_is_found_in_clean_data(folders, tmp_path, capsys):
    assert screened(folders[2], tmp_path, "--folds", 0) == {}
    assert "no findings" in capsys.readouterr().out
    assert "No findings in 400 examples" in (tmp_path / "screened" / "report.html").read_text()


@pytest.mark.full
def test_training_leaves_out_what_is_listed(folders, tmp_path, capsys):
    folder, faults, _ = folders
    drop, path = tmp_path / "drop.jsonl", tmp_path / "planted.py"
    screened(folder, tmp_path, "--folds", 0, "--drop", drop)
    train = ["--experiment", str(path), "--workdir", str(tmp_path / "run"), "--quiet"]
    assert main(train) == 2
    assert "cannot be read as an array" in capsys.readouterr().err
    assert main([*train, "--data.drop", str(drop)]) == 0
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["data"]["drop"] == str(drop)
    source = load_source(find_experiment(str(tmp_path / "run" / "config.json")))
    kept = len(source.train) + len(source.validation) + len(source.test)
    assert kept == 400 + 16 - sum(len(faults[kind]) for kind in faults if kind != "label")
    assert np.isfinite(source.mean).all()
    assert max(float(source.train[i]["image"].max()) for i in range(len(source.train))) <= 16


@pytest.mark.full
def test_strict_refuses_data_with_errors(folders, tmp_path, capsys):
    faulty, _, clean = folders
    for folder, status in ((faulty, 2), (clean, 0)):
        path = planted.write_experiment(tmp_path / "planted.py", folder, **QUICK)
        run = tmp_path / folder.name
        flags = ["--experiment", path, "--workdir", str(run), "--screen", "strict", "--quiet"]
        assert main(flags) == status
        assert run.exists() == (status == 0)
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "the data has errors (4 unreadable, 4 not finite, 8 out of range, 8 leak)" in err


class Counting:
    """A split that counts how often each example is read."""

    def __init__(self, split):
        self.split, self.reads = split, np.zeros(len(split), int)

    def __len__(self):
        return len(self.split)

    def __getitem__(self, index):
        self.reads[index] += 1
        return self.split[index]


def test_strict_screening_and_training_read_the_data_once(monkeypatch):
    images = np.random.default_rng(0).uniform(0, 1, (50, 6, 6, 1)).astype(np.float32)
    source = source_of(images, digit=np.zeros(50, np.int32), value=np.zeros(50, np.float32))
    counting = map_splits(source, Counting)
    monkeypatch.setitem(SOURCES, "digits", lambda: counting)
    loaded = load_screened(find_experiment("digits"))
    for name, split in loaded.splits().items():
        np.testing.assert_array_equal(split.image, source.splits()[name].image)
        reads = counting.splits()[name].reads
        # The first example is read again, for its size in memory and the names of the labels.
        assert (reads[1:] == 1).all()
        assert reads[0] <= 4


def test_strict_screening_reports_a_first_example_that_cannot_be_read(monkeypatch):
    images = np.random.default_rng(0).uniform(0, 1, (50, 6, 6, 1)).astype(np.float32)
    source = source_of(images, digit=np.zeros(50, np.int32), value=np.zeros(50, np.float32))

    class Broken(Counting):
        def __getitem__(self, index):
            if index == 0:
                raise OSError("broken")
            return self.split[index]

    broken = dataclasses.replace(source, test=Broken(source.test))
    monkeypatch.setitem(SOURCES, "digits", lambda: broken)
    with pytest.raises(ValueError, match="the data has errors .* first test 0 unreadable: broken"):
        load_screened(find_experiment("digits"))


def test_a_list_of_other_data_is_refused(folders, tmp_path, capsys):
    faulty, _, clean = folders
    drop = tmp_path / "drop.jsonl"
    screened(faulty, tmp_path, "--folds", 0, "--drop", drop)
    path = planted.write_experiment(tmp_path / "planted.py", clean, **QUICK)
    for text, reason in (
        (drop.read_text(), "is not the image that was screened"),
        ("nonsense\n", "line 1 was not written by `screen --drop`"),
    ):
        drop.write_text(text)
        assert main(["--experiment", path, "--data.drop", str(drop), "--quiet"]) == 2
        assert reason in capsys.readouterr().err


def test_the_page_shows_what_was_found(folders, tmp_path):
    screened(folders[0], tmp_path, "--folds", 0)
    page = (tmp_path / "screened" / "report.html").read_text()
    assert "examples are suspicious" in page
    pictures = page.split("data:image/png;base64,")[1:]
    assert len(pictures) >= 8 * 2 * 2
    first = base64.b64decode(pictures[0].partition('"')[0])
    assert Image.open(io.BytesIO(first)).size == (8, 8)


def source_of(images, **labels):
    return from_arrays(images, labels, validation=0.1, test=0.2)


def test_one_wild_pixel_does_not_make_itself_the_white():
    images = np.random.default_rng(0).uniform(0, 1, (100, 6, 6, 1)).astype(np.float32)
    images[17, 2, 3] = 50
    source = source_of(images, value=np.zeros(100, np.float32))
    seen, findings = summarize_images(source, (Regression(name="value"),))
    assert [finding.kind for finding in findings] == ["out of range"]
    assert len(seen) == 99


def test_bytes_are_never_out_of_range():
    images = np.full((100, 6, 6, 1), 20, np.uint8)
    images[3] = 255
    _, findings = summarize_images(
        source_of(images, value=np.zeros(100)), (Regression(name="value"),)
    )
    assert findings == []


def test_a_label_that_the_task_cannot_learn_is_found():
    images = np.random.default_rng(0).uniform(0, 1, (50, 6, 6, 1)).astype(np.float32)
    digits = np.arange(50) % 10
    digits[7] = 12
    source = source_of(images, digit=digits)
    _, findings = summarize_images(source, (Classification(name="digit", num_classes=10),))
    assert [finding.kind for finding in findings] == ["unreadable"]
    assert "label of example 0 is 12" in findings[0].detail


def test_doubles_are_found_across_blocks(monkeypatch):
    monkeypatch.setattr("mtljax.screening.images.BLOCK", 7)
    images = np.random.default_rng(1).uniform(0, 1, (60, 20, 30, 3)).astype(np.float32)
    images[50] = images[2] + 0.001
    source = source_of(images, value=np.zeros(60, np.float32))
    seen, _ = summarize_images(source, (Regression(name="value"),))
    (found,) = find_duplicates(seen)
    same = [
        place
        for place, one in zip(pool_of(source).places, pool_of(source), strict=True)
        if np.abs(one["image"] - images[2]).max() < 0.01
    ]
    assert {found.place, found.like} == set(same)


def test_dark_blurred_and_odd_images_are_found():
    rng = np.random.default_rng(2)
    images = rng.integers(0, 256, (60, 64, 64, 3)).astype(np.uint8)
    images[5] //= 40
    x, y = np.arange(64)[None, :, None], np.arange(64)[:, None, None]
    images[9] = 2 * x + y / 32  # no edge in it
    source = from_arrays(images, {"row": np.arange(60)})
    pool = pool_of(source)
    rows = {place: int(pool[i]["labels"]["row"]) for i, place in enumerate(pool.places)}
    found = {(f.kind, rows[f.place]) for f in find_odd_images(source, pool.places)}
    assert ("dark", 5) in found
    assert ("blurry", 9) in found
    assert {row for _, row in found} <= {5, 9}


def predictions(name, outputs, labels):
    present = {name: np.ones(len(labels), bool)}
    return Predictions(np.zeros((len(labels), 1)), {name: outputs}, {name: labels}, present)


def flagged(task, outputs, labels):
    places = [ExampleId("train", i) for i in range(len(labels))]
    found = find_label_issues(task, places, predictions(task.name, outputs, labels))
    return {finding.place.row for finding in found}


def test_classes_that_the_predictions_speak_against():
    labels = np.arange(300) % 3
    outputs = 6.0 * np.eye(3)[labels] + np.random.default_rng(0).normal(size=(300, 3))
    labels[[4, 100]] = (labels[[4, 100]] + 1) % 3
    found = flagged(Classification(name="c", num_classes=3), outputs.astype(np.float32), labels)
    assert found == {4, 100}


def test_numbers_that_the_predictions_speak_against():
    labels = np.linspace(0, 10, 300).astype(np.float32)
    outputs = labels + np.random.default_rng(0).normal(0, 0.3, 300).astype(np.float32)
    labels[[7, 200]] += np.array([6, -6], np.float32)
    assert flagged(Regression(name="n"), outputs, labels) == {7, 200}


def test_masks_that_the_predictions_speak_against():
    labels = np.zeros((20, 16, 16), np.int32)
    labels[:, :8] = 1
    outputs = 12 * np.eye(2, dtype=np.float32)[labels]
    labels[3] = 1 - labels[3]
    assert flagged(Segmentation(name="m", num_classes=2), outputs, labels) == {3}


def test_a_test_split_loses_only_what_is_broken():
    kinds = ("unreadable", "not finite", "out of range", "leak", "duplicate", "label", "dark")
    findings = [Finding(ExampleId("test", i), kind, "") for i, kind in enumerate(kinds)]
    assert set(examples_to_drop(findings)) == {ExampleId("test", i) for i in range(3)}
    learned = [f._replace(place=f.place._replace(split="train")) for f in findings]
    assert set(examples_to_drop(learned)) == {ExampleId("train", i) for i in range(6)}


def test_what_is_left_is_the_rest(tmp_path):
    images = np.random.default_rng(0).uniform(0, 1, (50, 6, 6, 1)).astype(np.float32)
    source = source_of(images, value=np.arange(50.0))
    findings = [
        Finding(ExampleId("train", 3), "label", ""),
        Finding(ExampleId("test", 0), "unreadable", ""),
    ]
    assert write_drop(tmp_path / "drop", findings, source) == 2
    left = drop_examples(source, tmp_path / "drop")
    np.testing.assert_array_equal(left.train.image, np.delete(source.train.image, 3, 0))
    np.testing.assert_array_equal(left.test.image, source.test.image[1:])
    np.testing.assert_allclose(left.mean, left.train.image.mean(), rtol=1e-5)
    assert left.validation is source.validation
    assert jax.tree.leaves(left.train.labels)[0].shape == (len(left.train),)


@pytest.mark.slow
def test_ninety_of_a_hundred_faults_are_found(tmp_path, capsys):
    faults = planted.write_digits(tmp_path / "faulty")
    assert sum(map(len, faults.values())) == 100
    fields = {"steps": 600, "optimizer": "adamw:weight_decay=1e-2"}
    found = screened(tmp_path / "faulty", tmp_path, **fields)
    hits = {kind: len(faults[kind].keys() & found.get(kind, {}).keys()) for kind in faults}
    spoilt = {name for kind in faults.values() for name in kind}
    clean = {name for kind in found.values() for name in kind} - spoilt
    with capsys.disabled():
        print(f"\nfound {hits}, false alarms {len(clean)} of 1737")
    assert sum(hits.values()) >= 90
    assert len(clean) <= 0.02 * 1737

    planted.write_digits(tmp_path / "clean", faults=False)
    (tmp_path / "again").mkdir()
    found = screened(tmp_path / "clean", tmp_path / "again", **fields)
    alarms = {name for kind in found.values() for name in kind}
    with capsys.disabled():
        print(f"false alarms on clean data: {len(alarms)} of 1797")
    assert len(alarms) <= 0.02 * 1797
