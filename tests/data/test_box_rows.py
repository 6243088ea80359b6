"""Tables with one row per box."""

import csv
import json

import numpy as np
import pytest
from PIL import Image

from mtljax.data import make_source
from mtljax.data.base import LabelRequest
from mtljax.tasks import Classification, Detection

COLUMNS = "xmin,ymin,xmax,ymax,class"
BOXES = {  # image -> (x0, y0, x1, y1, class) of each box
    "0.png": [(0, 1, 4, 6, "cat")],
    "1.png": [(1, 1, 5, 6, "dog"), (2, 0, 9, 3, "cat"), (3, 3, 7, 8, "dog")],
    "2.png": [(0, 0, 20, 10, "owl"), (4, 4, 5, 5, "cat")],
}


def write(root, change=lambda row: row, further=()):
    (root / "images").mkdir(parents=True)
    for i, name in enumerate(BOXES):
        Image.new("RGB", (20, 10), (i, 0, 0)).save(root / "images" / name)
    rows = [
        change(
            {
                "image": name,
                **dict(zip(COLUMNS.split(","), box, strict=True)),
                "scene": "wood" if name == "0.png" else "town",
            }
        )
        for j in range(3)  # the rows of an image are not adjacent
        for name, boxes in BOXES.items()
        for box in boxes[j : j + 1]
    ]
    with (root / "labels.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows([*rows, *(rows[i] for i in further)])
    return root


def opened(root, *tasks, columns=COLUMNS, **fields):
    tasks = tasks or (Detection(name="boxes", order="xyxy", most=4, **fields),)
    requests = [LabelRequest(t, columns if isinstance(t, Detection) else t.name) for t in tasks]
    return make_source(f"folder:'{root}'", requests)


def labels(source):
    """Image -> boxes (x0, y0, x1, y1, class name)."""
    names = source.tasks[0].class_names or ("cat",)
    found = {}
    for split in source.splits().values():
        for i in range(len(split)):
            image, label = split[i]["image"], split[i]["labels"]["boxes"]
            known = np.asarray(label["classes"]) >= 0
            found[f"{image[0, 0, 0]}.png"] = [
                (*box[[1, 0, 3, 2]].tolist(), names[c])
                for box, c in zip(label["boxes"][known], label["classes"][known], strict=True)
            ]
    return found


def faults(source):
    return [fault for split in source.splits().values() for fault in split.faults().values()]


def texts(source):
    return [str(note).rpartition(", first:")[0] for note in source.notes if note.kind != "warning"]


def test_an_image_has_the_boxes_of_its_rows(tmp_path):
    source = opened(write(tmp_path))
    assert source.tasks[0].class_names == ("cat", "dog", "owl")
    assert labels(source) == BOXES
    assert texts(source) == ["converted 3 rows to further boxes of their images"]
    assert labels(opened(tmp_path, class_names=("owl", "dog", "cat"))) == BOXES


def test_boxes_of_one_class_need_no_class(tmp_path):
    source = opened(write(tmp_path), columns="xmin,ymin,xmax,ymax", num_classes=1)
    assert labels(source) == {k: [(*b[:4], "cat") for b in boxes] for k, boxes in BOXES.items()}


def test_repeated_rows_are_dropped_and_counted(tmp_path):
    source = opened(write(tmp_path, further=(1, 1)))
    assert labels(source) == BOXES
    assert "dropped 2 rows that repeat a box of their image" in texts(source)


def test_an_image_is_never_used_without_one_of_its_boxes(tmp_path):
    damage = lambda row: {**row, "ymax": ""} if row["xmin"] == 3 else row
    found = faults(opened(write(tmp_path, damage)))
    assert len(found) == 3
    assert all("1.png" in fault and "ymax is empty" in fault for fault in found)


def test_other_labels_of_the_rows_must_be_equal(tmp_path):
    tasks = Detection(name="boxes", order="xyxy", most=4), Classification(name="scene")
    assert labels(opened(write(tmp_path / "equal"), *tasks)) == BOXES
    change = lambda row: {**row, "scene": "lake"} if row["xmin"] == 3 else row
    found = faults(opened(write(tmp_path / "other", change), *tasks))
    assert len(found) == 2
    assert all("other labels" in fault for fault in found)


@pytest.mark.parametrize("part", ["category", "label"])
def test_classes_of_json_lines_are_those_of_the_data(part, tmp_path):
    write(tmp_path)
    (tmp_path / "labels.csv").unlink()
    lines = [
        json.dumps({"image": k, "objects": {"bbox": [b[:4] for b in v], part: [b[4] for b in v]}})
        for k, v in BOXES.items()
    ]
    (tmp_path / "labels.jsonl").write_text("\n".join(lines))
    source = opened(tmp_path, columns="objects")
    assert source.tasks[0].class_names == ("cat", "dog", "owl")
    assert labels(source) == BOXES
