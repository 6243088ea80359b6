"""Data as people have it: nothing is silently reinterpreted, and common tables are read."""

import json
import unicodedata

import numpy as np
import pytest
from PIL import Image

from mtljax.build import load_source, open_source
from mtljax.config import Data, Experiment
from mtljax.data.annotations.coco import read_column
from mtljax.data.notes import NoteCounter
from mtljax.data.statistics import label_statistics, unseen_classes
from mtljax.data.tables.table import read_table
from mtljax.screening.survey import survey
from mtljax.tasks import Classification, Detection, MultiLabel, Segmentation
from mtljax.tasks.parsing import class_index, numbers

CATS, ANY = Detection(name="boxes", class_names=("cat",)), Detection(name="boxes")


def write_coco(path, annotations, names=("a.png",), categories=("cat", "dog")):
    images = [{"id": i, "file_name": n, "height": 10, "width": 20} for i, n in enumerate(names)]
    content = {
        "images": images,
        "annotations": [{"image_id": 0, "category_id": 1, **a} for a in annotations],
        "categories": [{"id": i + 1, "name": n} for i, n in enumerate(categories)],
    }
    path.write_text(json.dumps(content))
    return path


@pytest.mark.parametrize(
    ("annotation", "boxes", "note"),
    [
        ({"bbox": [18, 8, 5, 5]}, [[8, 18, 10, 20]], "clipped 1 boxes that exceed"),
        ({"bbox": [-3, -2, 5, 5]}, [[0, 0, 3, 2]], "clipped 1 boxes that exceed"),
        ({"bbox": [3, 2, 5, 0]}, [], "dropped 1 boxes without area"),
        ({"bbox": [25, 2, 5, 5]}, [], "dropped 1 boxes without area"),
        ({"bbox": [3, 2, 5, 5], "iscrowd": 1}, [], "dropped 1 crowd regions"),
        ({"bbox": [3, 2, 5, 5], "category_id": 2}, [], "dropped 1 boxes of category 'dog'"),
    ],
)
def test_boxes_that_are_changed_are_counted(annotation, boxes, note, tmp_path):
    notes = NoteCounter()
    path = write_coco(tmp_path / "boxes.json", [annotation, {"bbox": [1, 1, 2, 2]}])
    found = read_column(path, CATS, ["a.png"], notes)[1][0]["boxes"].tolist()
    assert found == [*boxes, [1, 1, 3, 3]]
    (text,) = map(str, notes.notes())
    assert text.startswith(note)
    assert "annotation 0" in text


@pytest.mark.parametrize(
    ("names", "images", "expected"),
    [
        (["cam_a/0.png", "cam_b/0.png"], ["cam_b/0.png", "cam_a/0.png"], [1, 0]),
        (["cam_a\\0.png", ".\\cam_b\\0.png"], ["cam_a/0.png", "cam_b/0.png"], [0, 1]),
        (["train/0.png"], ["0.png"], [0]),
        (["0.png"], ["cam_a/0.png", "1.png"], [0, None]),
        ([unicodedata.normalize("NFD", "é.png")], ["é.png"], [0]),
    ],
)
def test_images_are_matched_by_path_and_else_by_a_unique_name(names, images, expected, tmp_path):
    boxes = [{"bbox": [1, 1, 2 + i, 2], "image_id": i} for i in range(len(names))]
    path, notes = write_coco(tmp_path / "boxes.json", boxes, names), NoteCounter()
    found = read_column(path, ANY, images, notes)[1]
    assert [None if b is None else int(b["boxes"][0, 3] - 3) for b in found] == expected
    assert [n.kind for n in notes.notes()] == (["missing"] if None in expected else [])


@pytest.mark.parametrize(
    ("names", "images"),
    [(["0.png"], ["cam_a/0.png", "cam_b/0.png"]), (["x/0.png", "y/0.png"], ["z/0.png"])],
)
def test_an_ambiguous_name_is_an_error(names, images, tmp_path):
    path = write_coco(tmp_path / "boxes.json", [{"bbox": [1, 1, 2, 2]}], names)
    with pytest.raises(ValueError, match="base name only, which is not unique"):
        read_column(path, ANY, images, NoteCounter())


@pytest.mark.parametrize("value", ["3", 3, 3.0, np.int64(3), b"3"])
def test_class_names_that_are_numbers_are_names_in_every_format(value):
    assert class_index(value, ("1", "2", "3")) == 2
    with pytest.raises(ValueError, match="unknown class '0'"):
        class_index(0, ("1", "2", "3"))
    with pytest.raises(ValueError, match="did you mean '03'"):
        class_index(value, ("01", "02", "03"))


def test_other_class_names_accept_an_index():
    assert class_index(1, ("cat", "dog")) == class_index("1", ("cat", "dog")) == 1


@pytest.mark.parametrize("row", [["1", "-1", "0"], ["1", "-1", "1"], "-1 -1 -1"])
def test_minus_one_of_a_multi_label_is_not_silently_no(row):
    with pytest.raises(ValueError, match="set negative=-1 if -1 means no"):
        MultiLabel(name="m", num_classes=3).parse(row)


def test_minus_one_is_no_where_the_task_says_so():
    task = MultiLabel(name="m", num_classes=3, negative=-1)
    assert task.parse(["1", "-1", "1"]).tolist() == [1, 0, 1]
    with pytest.raises(ValueError, match="set negative=0 if 0 means no"):
        task.parse(["1", "-1", "0"])


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_tables_of_spreadsheets_are_equal(delimiter, encoding, tmp_path):
    nfd = unicodedata.normalize("NFD", "café")
    lines = [["image", "kind"], ["a.png", nfd], ["", ""], ['"b, c; d.png"', " thé "]]
    text = "".join(delimiter.join(line) + "\r\n" for line in lines)
    (tmp_path / "t.csv").write_bytes(text.encode(encoding))
    rows = [(row.number, row.cells) for row in read_table(tmp_path / "t.csv").rows]
    assert rows == [
        (2, {"image": "a.png", "kind": "café"}),
        (4, {"image": "b, c; d.png", "kind": "thé"}),
    ]


def folder_of_masks(root, values):
    (root / "images").mkdir(parents=True)
    (root / "masks").mkdir()
    lines = ["image,mask,split"]
    for i in range(9):
        mask = np.zeros((4, 4), np.uint8)
        mask[:2] = values[i % len(values)]
        Image.new("RGB", (4, 4)).save(root / "images" / f"{i}.png")
        Image.fromarray(mask).save(root / "masks" / f"{i}.png")
        lines.append(f"{i}.png,masks/{i}.png,{('training', 'val', 'testing')[i // 3]}")
    (root / "labels.csv").write_text("\n".join(lines))
    data = Data(source=f"folder:{root}", batch_size=2)
    return Experiment(name="m", tasks=(Segmentation(name="mask", num_classes=2),), data=data)


def test_masks_of_0_and_255_are_an_error(tmp_path):
    with pytest.raises(ValueError, match="only the values 0 and 255"):
        load_source(folder_of_masks(tmp_path / "bad", [255]))
    for name, values in (("mixed", [255, 1]), ("empty", [0])):
        load_source(folder_of_masks(tmp_path / name, values))


def test_the_data_page_says_what_stops_training(tmp_path):
    experiment = folder_of_masks(tmp_path / "bad", [255])
    notes = survey(experiment, tmp_path / "survey", 2).notes
    assert any("set values=(0, 255)" in str(note) for note in notes)


def test_a_class_without_a_training_label_is_a_warning(tmp_path):
    experiment = folder_of_masks(tmp_path / "data", [0])
    statistics, _ = label_statistics(experiment.tasks, open_source(experiment).train)
    (note,) = unseen_classes(experiment.tasks, statistics)
    assert str(note) == "warning: task 'mask': no training label has class 1"
    other = Classification(name="mask", num_classes=2, class_names=("sky", "tree"))
    assert "class tree" in str(*unseen_classes((other,), statistics))


def test_booleans_of_json_are_the_words_of_a_table():
    for names in (("True", "False"), ("false", "true")):
        for value in (True, False, np.True_):
            assert names[class_index(value, names)].lower() == str(bool(value)).lower()
    with pytest.raises(ValueError, match="unknown class 'True' .choose from no, yes"):
        class_index(True, ("no", "yes"))
    assert [class_index(value, ()) for value in (False, True)] == [0, 1]


@pytest.mark.parametrize("value", ["1_0", ["1_0"], "[1_0]", "2 1_0"])
def test_numbers_with_underscores_are_words(value):
    with pytest.raises(ValueError, match="is not a (list of numbers|number)"):
        numbers(value)
