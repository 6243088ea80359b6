"""Data of a task that defines its loss and head only."""

import dataclasses
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from mtljax.data import make_source
from mtljax.data.base import LabelRequest
from mtljax.tasks import Task


@dataclasses.dataclass(frozen=True, kw_only=True)
class Count(Task):
    """A number, or several, without a reader of its own."""

    def loss(self, output, label, present):
        raise NotImplementedError


def opened(root, values, form):
    (root / "images").mkdir()
    rows = [{"image": f"{i}.png", "n": value} for i, value in enumerate(values)]
    for i, row in enumerate(rows):
        Image.new("RGB", (4, 4), (i, 0, 0)).save(root / "images" / row["image"])
    if form == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), root / "t.parquet")
    elif form == "jsonl":
        (root / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    else:
        text = lambda v: "" if v is None else " ".join(map(str, np.ravel(v)))
        lines = [f"{row['image']},{text(row['n'])}" for row in rows]
        (root / "t.csv").write_text("\n".join(["image,n", *lines]))
    return make_source(f"folder:{root}", [LabelRequest(Count(name="n"), "n")])


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize(
    "values", [range(20), [i / 4 for i in range(20)], [[i, 2] for i in range(20)]]
)
def test_numbers_are_the_same_in_all_tables(form, values, tmp_path):
    source = opened(tmp_path, list(values), form)
    for split in source.splits().values():
        assert len(split)
        for example in map(split.__getitem__, range(len(split))):
            label = example["labels"]["n"]
            expected = np.asarray(values[int(example["image"][0, 0, 0])], np.float32)
            assert label.dtype == np.float32
            np.testing.assert_array_equal(label, expected)
            assert label.shape == expected.shape
            assert example["present"]["n"]


def test_what_is_no_number_needs_a_reader(tmp_path):
    source = opened(tmp_path, ["many"] * 20, "csv")
    with pytest.raises(ValueError, match=r"t.csv row 2 .*task 'n': 'many' is not a number"):
        source.train[0]


def test_a_missing_label_needs_a_placeholder(tmp_path):
    source = opened(tmp_path, [*range(19), None], "jsonl")
    split = next(s for s in source.splits().values() if any(_is_last(s, i) for i in range(len(s))))
    row = next(i for i in range(len(split)) if _is_last(split, i))
    with pytest.raises(ValueError, match=r"19.png\): task 'n' has missing labels: define Count.pl"):
        split[row]


def _is_last(split, row):
    return split.place(row).endswith("(19.png)")
