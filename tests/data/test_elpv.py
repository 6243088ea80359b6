"""Solar cells: read from wherever pip put the package, and split fairly, once and for all."""

import importlib.util
from collections import Counter

import numpy as np
import pytest
from support.datasets import CELLS, make_elpv

from mtljax.data import make_source
from mtljax.data.base import LabelRequest
from mtljax.tasks import Classification, Regression

DEFECT = LabelRequest(Regression(name="how_bad"), "defect")
TYPE = LabelRequest(Classification(name="type", num_classes=2), "type")


@pytest.fixture
def table(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    return make_elpv(tmp_path)


def cells(split):
    """Which cells are in a split."""
    return [int(split[i]["image"][-1, -1, 0]) for i in range(len(split))]


def test_images_and_labels_belong_together(table):
    source = make_source("elpv:size=6", [DEFECT, TYPE])
    for split in source.splits().values():
        for i, cell in enumerate(cells(split)):
            defect, kind = CELLS[cell]
            assert split[i]["image"].shape == (6, 6, 1)
            assert split[i]["image"][0, 0, 0] == 255
            assert split[i]["labels"]["how_bad"] == np.float32(defect)
            assert split[i]["labels"]["type"] == ("mono", "poly").index(kind)


def test_every_cell_is_in_one_split_and_every_split_has_its_share_of_every_combination(table):
    source = make_source("elpv:size=6", [DEFECT])
    found = {name: cells(split) for name, split in source.splits().items()}
    assert sorted(sum(found.values(), [])) == list(range(len(CELLS)))
    assert {name: len(part) for name, part in found.items()} == {
        "train": 108,
        "validation": 12,
        "test": 40,
    }
    of = lambda name: Counter(CELLS[cell] for cell in found[name])
    assert of("test") == dict.fromkeys(CELLS, 5)
    assert set(of("validation").values()) == {1, 2}


def test_the_split_depends_on_neither_the_tasks_nor_the_size(table):
    both, one = make_source("elpv:size=6", [DEFECT, TYPE]), make_source("elpv:size=3", [TYPE])
    assert one.test[0]["image"].shape == (3, 3, 1)
    assert cells(both.test) == cells(one.test)
    # Written down, so that it is noticed if another scikit-learn draws others.
    assert cells(both.test)[:12] == [0, 1, 2, 9, 14, 24, 26, 30, 31, 37, 44, 45]


def test_without_the_package_pip_is_told(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="pip install elpv-dataset") as error:
        make_source("elpv", [DEFECT])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("images/cell0000.png 0.5", "line 3 is damaged"),
        ("images/cell0000.png often mono", "line 3 is damaged"),
        ("images/cell0000.png 0.5 thin", "line 3 is damaged"),
    ],
)
def test_a_damaged_table_is_named(table, line, message):
    lines = table.read_text().splitlines()
    table.write_text("\n".join([*lines[:2], line, *lines[3:]]))
    with pytest.raises(ValueError, match=message):
        make_source("elpv", [DEFECT])


@pytest.mark.parametrize(
    ("text", "key", "message"),
    [
        ("elpv:size=0", "defect", "size must be >= 1, not 0"),
        ("elpv", "defects", "no labels 'defects' for task 'how_bad'; did you mean 'defect'"),
    ],
)
def test_mistakes_are_named(table, text, key, message):
    with pytest.raises(ValueError, match=message):
        make_source(text, [LabelRequest(DEFECT.task, key)])


@pytest.mark.skipif(
    importlib.util.find_spec("elpv_dataset") is None, reason="needs the package elpv-dataset"
)
def test_the_real_package_is_split_as_its_docstring_says():
    source = make_source("elpv:size=8", [DEFECT, TYPE])
    assert [len(split) for split in source.splits().values()] == [1771, 197, 656]
