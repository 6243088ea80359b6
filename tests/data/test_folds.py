"""Folds of a cross-validation: every example is tested once, in its own fold."""

import dataclasses
import json
import re
import shutil
from collections import Counter

import numpy as np
import pytest
from PIL import Image
from support.comparison import SMALL
from support.folders import make_folder

from mtljax.build import load_source, open_source
from mtljax.config import Data, Experiment
from mtljax.data import make_source
from mtljax.data.base import LabelRequest, membership_of
from mtljax.data.folds import Fold, fold_rows, fold_source, parse_fold
from mtljax.data.pipeline import read_batch, read_split
from mtljax.data.pool import pool_of
from mtljax.data.sources.arrays import from_arrays
from mtljax.data.sources.join import join_sources
from mtljax.evaluation.predict import open_split
from mtljax.runs.load import load_run
from mtljax.tasks import Classification
from mtljax.training.loop import train


def arrays(count=60, **columns):
    """Images with the number of the example as their pixel."""
    image = np.arange(count, dtype=np.float32).reshape(count, 1, 1, 1)
    return from_arrays(image, {"digit": np.arange(count) % 10}, **columns)


def numbers(split):
    return [int(split[row]["image"].ravel()[0]) for row in range(len(split))]


def folds_of(source, total):
    return [fold_source(source, Fold(number, total)) for number in range(1, total + 1)]


@pytest.mark.parametrize("total", [2, 3, 7, 60])
def test_every_example_is_tested_once_and_is_in_one_split_of_each_fold(total):
    folds = folds_of(arrays(), total)
    tested = [number for fold in folds for number in numbers(fold.test)]
    assert sorted(tested) == list(range(60))
    sizes = [len(fold.test) for fold in folds]
    assert max(sizes) - min(sizes) <= 1
    for fold in folds:
        used = [number for split in fold.splits().values() for number in numbers(split)]
        assert sorted(used) == list(range(60))
        assert abs(len(fold.validation) - (60 - len(fold.test)) * 6 / 48) < 1
        np.testing.assert_allclose(fold.mean, np.mean(numbers(fold.train)), rtol=1e-6)


def test_groups_are_whole_and_classes_in_proportion_in_every_split_of_every_fold():
    patient = np.repeat(np.arange(20), 3)
    for fold in folds_of(arrays(group=patient), 5):
        groups = [{patient[i] for i in numbers(split)} for split in fold.splits().values()]
        assert sum(map(len, groups)) == 20
        assert len(fold.test) == 12
    kind = np.array([0] * 41 + [1] * 19)
    for fold in folds_of(arrays(stratify=kind), 5):
        counts = Counter(kind[numbers(fold.test)].tolist())
        assert abs(counts[0] - 41 / 5) < 1
        assert abs(counts[1] - 19 / 5) < 1
        rest = kind[numbers(fold.train) + numbers(fold.validation)]
        share = np.bincount(kind[numbers(fold.validation)], minlength=2) / np.bincount(rest)
        np.testing.assert_allclose(share, 1 / 8, atol=1 / 15)


def test_rows_of_a_folder_are_in_the_fold_of_their_group(tmp_path):
    rows = [f"{i}.png,{'cat' if i % 2 else 'dog'},p{i // 5}" for i in range(40)]
    for i in range(40):
        Image.new("L", (4, 4), i).save(tmp_path / f"{i}.png")
    (tmp_path / "labels.csv").write_text("image,kind,patient\n" + "\n".join(rows))
    task = Classification(name="kind", num_classes=2, class_names=("cat", "dog"))
    text = f"folder:'{tmp_path}',channels=1,group=patient"
    folds = folds_of(make_source(text, [LabelRequest(task, "kind")]), 4)
    assert sorted(i for fold in folds for i in numbers(fold.test)) == list(range(40))
    for fold in folds:
        groups = [{i // 5 for i in numbers(split)} for split in fold.splits().values()]
        assert sum(map(len, groups)) == 8
        members = [membership_of(fold.test, row).group for row in range(len(fold.test))]
        assert members == [f"p{i // 5}" for i in numbers(fold.test)]


def test_domains_have_groups_of_their_own():
    source = join_sources({"a": arrays(30, group=np.arange(30) // 5), "b": arrays(30)})
    pool = pool_of(source)
    groups = {membership_of(pool, row).group for row in range(len(pool))}
    assert groups == {"", *(f"0/{i}" for i in range(6))}
    assert sum(len(fold.test) for fold in folds_of(source, 3)) == 60


def test_batches_have_the_examples_of_single_reads():
    fold = folds_of(arrays(), 5)[1]
    rows = np.array([7, 0, 3, 3])
    batch = read_batch(fold.train, rows)
    assert batch["image"].ravel().tolist() == [numbers(fold.train)[row] for row in rows]
    assert read_split(fold.train)["labels"]["digit"].tolist() == [
        i % 10 for i in numbers(fold.train)
    ]


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("multi:'digits'", "images of a split of multi share items"),
        ("digits:per_class=5", "per_class limits its training split only"),
        ("join:{'a':'digits'},proportions={'a':1}", "proportions of join repeat"),
    ],
)
def test_sources_whose_splits_are_fixed_have_no_folds(source, words):
    keys = {"multi": "left/digit", "digits": "digit", "join": "a/digit"}
    task = Classification(name="digit", num_classes=10)
    data = Data(source=source, labels={"digit": keys[source.partition(":")[0]]}, fold="1/5")
    with pytest.raises(ValueError, match=re.escape(words)):
        open_source(Experiment(name="x", tasks=(task,), data=data))


def test_too_few_groups_are_refused():
    with pytest.raises(ValueError, match="5 folds need at least 5 groups, but the data has 4"):
        fold_source(arrays(group=np.arange(60) // 15), Fold(1, 5))
    two = arrays(group=np.arange(60) // 20)
    two = dataclasses.replace(two, train=two.validation)
    with pytest.raises(ValueError, match="2 folds need at least 3 groups, but the data has 2"):
        fold_source(two, Fold(1, 2))


@pytest.mark.parametrize("text", ["0/5", "6/5", "1/1", "5", "a/b", "1/5/2", ""])
def test_an_impossible_fold_is_refused(text):
    with pytest.raises(ValueError, match="data.fold must be NUMBER/TOTAL, such as 2/5"):
        parse_fold(text)


def test_listed_examples_are_left_out_of_their_folds_without_moving_others(tmp_path):
    def tested(drop):
        data = dataclasses.replace(SMALL.data, drop=drop)
        found = []
        for number in (1, 2, 3):
            part = dataclasses.replace(data, fold=f"{number}/3")
            source = load_source(dataclasses.replace(SMALL, data=part))
            found.append([image.tobytes() for image in source.test.image])
        return found

    lines = [{"split": "train", "row": row, "image": None} for row in (3, 5, 8)]
    (tmp_path / "drop.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    whole, fewer = tested(None), tested(str(tmp_path / "drop.jsonl"))
    assert sum(map(len, whole)) - sum(map(len, fewer)) == 3
    for before, after in zip(whole, fewer, strict=True):
        assert not Counter(after) - Counter(before)
    listed = open_source(SMALL).train
    gone = Counter(sum(whole, [])) - Counter(sum(fewer, []))
    assert gone == Counter(listed[row]["image"].tobytes() for row in (3, 5, 8))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of one fold of a table that the tests may change."""
    folder = tmp_path_factory.mktemp("fold")
    make_folder(folder / "pets")
    experiment = Experiment(
        name="pets",
        tasks=(Classification(name="kind", num_classes=3, class_names=("cat", "dog", "owl")),),
        data=Data(source=f"folder:'{folder / 'pets'}'", batch_size=8, fold="2/3"),
        trunk="mlp:widths=(4,),norm=none",
        steps=2,
        eval_every=2,
        telemetry_every=0,
    )
    train(experiment, folder / "run", devices=1, quiet=True)
    return folder, experiment


def test_a_run_evaluates_its_own_fold(run):
    folder, experiment = run
    trained = load_run(folder / "run")
    assert trained.folds == json.loads((folder / "run" / "input.json").read_text())["folds"]
    tested = open_split(trained, "test")
    assert [str(place) for place in tested.places] == [
        str(place) for place in open_source(experiment).test.places
    ]
    assert len(tested) == 8
    other = dataclasses.replace(experiment, init=str(folder / "run"))
    other = dataclasses.replace(other, data=dataclasses.replace(other.data, fold="1/3"))
    with pytest.raises(ValueError, match="was trained on examples that fold 1/3 tests"):
        train(other, folder / "other", devices=1, quiet=True)
    assert not (folder / "other").exists()


def test_a_run_is_not_evaluated_on_other_folds_than_its_own(run):
    folder, _ = run
    table = folder / "pets" / "labels.csv"
    text = table.read_text()
    try:
        table.write_text("".join(text.splitlines(keepends=True)[:-1]))
        with pytest.raises(ValueError, match="fold 2/3 are not those of the training"):
            open_split(load_run(folder / "run"), "test")
    finally:
        table.write_text(text)


def test_unusable_examples_are_left_out_of_their_folds_without_moving_others(tmp_path):
    make_folder(tmp_path / "pets")
    task = Classification(name="kind", num_classes=3, class_names=("cat", "dog", "owl"))
    data = Data(source=f"folder:'{tmp_path / 'pets'}'", batch_size=8, on_error="skip")
    experiment = Experiment(name="pets", tasks=(task,), data=data)

    def tested():
        folds = []
        for number in (1, 2, 3):
            part = dataclasses.replace(data, fold=f"{number}/3")
            source = load_source(dataclasses.replace(experiment, data=part))
            assert source.folds
            folds.append({source.test.place(row) for row in range(len(source.test))})
        return folds

    before = tested()
    (tmp_path / "pets" / "images" / "003.png").write_bytes(b"no picture")
    after = tested()
    gone = [first - second for first, second in zip(before, after, strict=True)]
    assert [second - first for first, second in zip(before, after, strict=True)] == [set()] * 3
    (place,) = set().union(*gone)
    assert "003.png" in place


def test_a_run_does_not_resume_on_other_examples(run, tmp_path):
    folder, experiment = run
    longer = dataclasses.replace(experiment, steps=4)
    shutil.copytree(folder / "run", tmp_path / "run")
    table = folder / "pets" / "labels.csv"
    text = table.read_text()
    try:
        table.write_text("".join(text.splitlines(keepends=True)[:-1]))
        with pytest.raises(ValueError, match="has a cross-validation of other examples"):
            train(longer, tmp_path / "run", devices=1, quiet=True)
    finally:
        table.write_text(text)


def test_screening_holds_out_whole_groups():
    patient = np.arange(60) // 5
    source = arrays(group=patient)
    pool = pool_of(source)
    for rows in fold_rows(pool, 4):
        inside = {membership_of(pool, int(row)).group for row in rows}
        outside = {membership_of(pool, row).group for row in range(60) if row not in rows}
        assert not inside & outside
