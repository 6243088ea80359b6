"""Folders whose tables are as people have them: ids, shards, splits, repeated and damaged rows."""

import dataclasses
import inspect
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mtljax.build import load_source
from mtljax.config import Data, Experiment
from mtljax.data import make_source
from mtljax.data.base import LabelRequest
from mtljax.data.sources import HIDDEN
from mtljax.data.sources.folder import folder
from mtljax.tasks import Classification, Detection, Keypoints, MultiLabel, Regression, Segmentation

N = 12
KIND = Classification(name="kind", class_names=("cat", "dog"))
NAMES = [f"{i:04}.png" for i in range(N)]


def write_images(root, names=NAMES, subfolder="images"):
    (root / subfolder).mkdir(parents=True, exist_ok=True)
    for i, name in enumerate(names):
        Image.new("RGB", (4, 4), (i, 0, 0)).save(root / subfolder / name)


def write_csv(root, rows, name="labels.csv", delimiter=","):
    lines = [list(rows[0]), *(list(row.values()) for row in rows)]
    text = "\n".join(delimiter.join(map(str, line)) for line in lines)
    (root / name).write_text(text)


def rows_of(names=NAMES):
    return [{"image": name, "kind": ("cat", "dog")[i % 2]} for i, name in enumerate(names)]


def opened(root, arguments="", tasks=(KIND,), labels=None):
    requests = [LabelRequest(task, (labels or {}).get(task.name, task.name)) for task in tasks]
    return make_source(f"folder:'{root}'{arguments}", requests)


def notes_of(source):
    notes = map(str, source.notes)
    return [note for note in notes if "are few to split at random" not in note]


def labels_of(source):
    """Image number -> labels, of all splits."""
    found = {}
    for split in source.splits().values():
        for row in range(len(split)):
            example = split[row]
            labels = [example["labels"][task.name] for task in source.tasks]
            found[int(example["image"][0, 0, 0])] = labels
    return found


def contents(source):
    """Image number -> labels as lists, of all splits."""
    return {i: [label.tolist() for label in labels] for i, labels in labels_of(source).items()}


def faults_of(source):
    return [text for split in source.splits().values() for text in split.faults().values()]


LABELS = {i: [i % 2] for i in range(N)}


@pytest.mark.parametrize("form", ["full", "stem", "backslash", "upper case", "absolute"])
def test_image_names_of_every_form(form, tmp_path):
    write_images(tmp_path)
    change = {
        "full": lambda name: name,
        "stem": lambda name: name[:-4],
        "backslash": lambda name: f".\\images\\{name}",
        "upper case": lambda name: name.replace("png", "PNG"),
        "absolute": lambda name: f"/home/me/photos/images/{name}",
    }[form]
    write_csv(tmp_path, rows_of([change(name) for name in NAMES]))
    source = opened(tmp_path)
    assert contents(source) == LABELS
    count = {"stem": "image names without", "absolute": "absolute paths that do not"}.get(form)
    assert [f"converted {N} {count}" in note for note in notes_of(source)] == [True] * bool(count)


def test_ids_are_text(tmp_path):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    write_images(tmp_path, [f"{i}.png" for i in range(N)])
    columns = {"image": list(range(N)), "kind": [row["kind"] for row in rows_of()]}
    parquet.write_table(pa.table(columns), tmp_path / "t.parquet")
    assert contents(opened(tmp_path)) == LABELS
    for i in range(N):
        (tmp_path / "images" / f"{i}.png").rename(tmp_path / "images" / f"{i:04}.png")
    with pytest.raises(ValueError, match="no file 0 in .*did you mean 0000.png.* 11 other rows"):
        opened(tmp_path)


def test_rows_without_an_image_are_listed_and_images_without_a_row_counted(tmp_path):
    write_images(tmp_path, [*NAMES[:-1], "other.png", "more.jpg"])
    write_csv(tmp_path, rows_of())
    source = opened(tmp_path)
    (fault,) = faults_of(source)
    assert re.search(r"labels.csv row 13 \(0011.png\): there is no file 0011.png in ", fault)
    (note,) = notes_of(source)
    assert re.fullmatch("unmatched 2 image files without a row in the .*, first: .*more.jpg", note)


@pytest.mark.parametrize("on_error", ["fail", "skip"])
def test_damaged_rows_are_left_out_on_request(on_error, tmp_path):
    write_images(tmp_path)
    rows = rows_of() + [{"image": "none.png", "kind": "cat"}, {"image": NAMES[0]}]
    write_csv(tmp_path, rows)
    data = Data(source=f"folder:{tmp_path},validation=0.3,test=0.3", on_error=on_error)
    experiment = Experiment(name="x", tasks=(KIND,), data=data)
    if on_error == "fail":
        with pytest.raises(ValueError, match="row 1[45] .*; 1 further example"):
            load_source(experiment)
        return
    source = load_source(experiment)
    assert sum(len(split) for split in source.splits().values()) == N
    assert any("cannot be used" in note for note in notes_of(source))


def test_rows_that_repeat_another_are_counted_once(tmp_path):
    write_images(tmp_path)
    write_csv(tmp_path, [*rows_of(), *rows_of()[:2]])
    source = opened(tmp_path)
    assert contents(source) == LABELS
    assert sum(len(split) for split in source.splits().values()) == N
    (note,) = notes_of(source)
    assert note.startswith("dropped 2 rows that repeat the image, the labels and the split of ano")
    assert "labels.csv row 14" in note


@pytest.mark.parametrize(
    ("name", "kind", "split"), [(NAMES[2], "dog", "train"), (f"./{NAMES[2]}", "cat", "test")]
)
def test_rows_that_contradict_another_are_both_named(name, kind, split, tmp_path):
    write_images(tmp_path)
    splits = ["train"] * 8 + ["val"] * 2 + ["test"] * 2
    rows = [{**row, "split": s} for row, s in zip(rows_of(), splits, strict=True)]
    write_csv(tmp_path, [*rows, {"image": name, "kind": kind, "split": split}])
    faults = faults_of(opened(tmp_path))
    assert re.search(r"row 4 \(0002.png\): 0002.png is in row 14, too, with other l", faults[0])
    assert re.search(r"row 14 \(0002.png\): 0002.png is in row 4 already, with oth", faults[1])


def with_splits(names):
    return [{**row, "split": name} for row, name in zip(rows_of(), names, strict=True)]


@pytest.mark.parametrize(
    ("names", "absent"),
    [
        (["train"] * 8 + ["val"] * 4, ["test"]),
        (["Training"] * 8 + ["Testing"] * 4, ["validation"]),
        (["train"] * 12, ["validation", "test"]),
        (["TRAIN"] * 8 + ["dev"] * 2 + ["test"] * 2, []),
    ],
)
def test_splits_that_a_table_lacks_are_cut_from_train(names, absent, tmp_path):
    write_images(tmp_path)
    write_csv(tmp_path, with_splits(names))
    source = opened(tmp_path, ",validation=0.3,test=0.3")
    assert contents(source) == LABELS
    assert sum(len(split) for split in source.splits().values()) == N
    notes = notes_of(source)
    assert len(notes) == len(absent)
    for name, note in zip(absent, notes, strict=True):
        assert f"training images to the {name} split, which the data set lacks: 30%" in note


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["0", "1"] * 6, r"'split' has the values '0' .6 rows., '1' .6 rows.; must be train"),
        (["yes"] * 12, "'split' has the values 'yes' .12 rows."),
        ([""] * 12, "'split' has the values '' .12 rows."),
        (["val"] * 6 + ["test"] * 6, "none of 12 rows is in the train split|no label in any train"),
    ],
)
def test_columns_without_splits_are_refused(names, message, tmp_path):
    write_images(tmp_path)
    write_csv(tmp_path, with_splits(names))
    with pytest.raises(ValueError, match=message):
        opened(tmp_path)


def test_a_row_without_a_split_is_a_fault(tmp_path):
    write_images(tmp_path)
    write_csv(tmp_path, with_splits(["train"] * 6 + ["val"] * 2 + ["test"] * 2 + ["", "holdout"]))
    faults = faults_of(opened(tmp_path))
    assert re.search("row 12 .*: split is empty; must be train, validation or test", faults[0])
    assert re.search("row 13 .*: split is 'holdout'; must be", faults[1])


def test_columns_that_may_be_splits_are_noted(tmp_path):
    write_images(tmp_path)
    rows = [{**row, "Set": ("train", "test")[i % 2]} for i, row in enumerate(rows_of())]
    write_csv(tmp_path, rows)
    assert notes_of(opened(tmp_path))[0].startswith(
        "warning: column 'Set' has names of splits, but is not"
    )
    assert contents(opened(tmp_path, ",split=Set")) == LABELS
    with pytest.raises(ValueError, match="has no column 'set' with the splits; did you mean 'Set'"):
        opened(tmp_path, ",split=set")
    write_csv(tmp_path, [{**row, "is_train": i % 2} for i, row in enumerate(rows_of())])
    assert notes_of(opened(tmp_path))[0].startswith(
        "warning: column 'is_train' is not used: splits are"
    )
    with pytest.raises(ValueError, match="column 'is_train' has the values '0' .6 rows., '1'"):
        opened(tmp_path, ",split=is_train")


def test_missing_markers_and_decimal_commas(tmp_path):
    write_images(tmp_path)
    rows = [{**row, "size": f"{i},5"} for i, row in enumerate(rows_of())]
    rows[3] |= {"kind": "NA", "size": "-"}
    rows[4] |= {"kind": "", "size": "nan"}
    write_csv(tmp_path, rows, delimiter=";")
    source = opened(tmp_path, tasks=(KIND, Regression(name="size")))
    found = contents(source)
    assert {i: found[i][1] for i in found if i not in (3, 4)} == {
        i: i + 0.5 for i in range(N) if i not in (3, 4)
    }
    assert [note.partition(", first")[0] for note in notes_of(source)] == [
        "missing 1 labels of task 'kind' marked 'NA'",
        "missing 1 labels of task 'size' marked '-'",
        "missing 1 labels of task 'size' marked 'nan'",
        "converted 10 decimal commas of task 'size' to points",
    ]
    missing = [
        int(split[row]["image"][0, 0, 0])
        for split in source.splits().values()
        for row in range(len(split))
        if not split[row]["present"]["kind"]
    ]
    assert sorted(missing) == [3, 4]


def test_minus_one_is_not_guessed(tmp_path):
    write_images(tmp_path)
    write_csv(tmp_path, [{"image": n, "kind": i % 3 - 1} for i, n in enumerate(NAMES)])
    task = Classification(name="kind")
    with pytest.raises(ValueError, match="-1 may be a class or a missing label; set missing=-1"):
        opened(tmp_path, tasks=(task,))
    source = opened(tmp_path, ",missing=-1", tasks=(task,))
    assert source.tasks[0].class_names == ("0", "1")
    assert "missing 4 labels of task 'kind' marked '-1'" in notes_of(source)[0]


def test_masks_are_found_by_ids(tmp_path):
    write_images(tmp_path)
    (tmp_path / "mask").mkdir()
    for i, name in enumerate(NAMES):
        Image.fromarray(np.full((4, 4), i % 2, np.uint8)).save(tmp_path / "mask" / name)
    write_csv(tmp_path, [{"image": n, "mask": n[:-4]} for n in NAMES])
    found = contents(opened(tmp_path, tasks=(Segmentation(name="mask", num_classes=2),)))
    assert all(np.all(np.asarray(found[i]) == i % 2) for i in range(N))


def png(value, mode="RGB"):
    file = io.BytesIO()
    Image.new(mode, (4, 4), value).save(file, "PNG")
    return file.getvalue()


def hugging_face(form, count=N):
    """Columns as `datasets` writes them, and their features."""
    images = [png((i, 0, 0)) for i in range(count)]
    masks = [png(i % 2, "L") for i in range(count)]
    if form == "struct":
        images = [{"bytes": b, "path": f"{i}.png"} for i, b in enumerate(images)]
        masks = [{"bytes": b, "path": None} for b in masks]
    labels = [{"names": ["cat", "dog"], "_type": "ClassLabel"}, {"_type": "Image"}]
    features = dict(zip(("kind", "image"), labels, strict=True))
    columns = {"image": images, "mask": masks, "kind": [i % 2 for i in range(count)]}
    return columns, {"huggingface": json.dumps({"info": {"features": features}})}


TASKS = (Classification(name="kind"), Segmentation(name="mask", num_classes=2))


@pytest.mark.parametrize("form", ["struct", "binary"])
@pytest.mark.parametrize("group", [1, 5, 100])
@pytest.mark.parametrize("layout", ["one", "shards"])
def test_parquet_of_hugging_face(form, group, layout, tmp_path):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    columns, metadata = hugging_face(form)
    table = pa.table(columns).replace_schema_metadata(metadata)
    parts = {"labels.parquet": (0, N)}
    if layout == "shards":
        (tmp_path / "data").mkdir()
        parts = {
            "data/train-00000-of-00002.parquet": (0, 4),
            "data/train-00001-of-00002.parquet": (4, 8),
            "data/validation-00000-of-00001.parquet": (8, 10),
            "data/test-00000-of-00001.parquet": (10, 12),
        }
    for name, (start, stop) in parts.items():
        part = table.slice(start, stop - start)
        parquet.write_table(part, tmp_path / name, row_group_size=group)
    source = opened(tmp_path, tasks=TASKS)
    assert source.tasks[0].class_names == ("cat", "dog")
    found = contents(source)
    assert {i: found[i][0] for i in found} == {i: i % 2 for i in range(N)}
    assert all(np.all(np.asarray(found[i][1]) == i % 2) for i in found)
    if layout == "shards":
        assert [len(split) for split in source.splits().values()] == [8, 2, 2]
        assert source.train.place(5).startswith(f"{tmp_path}/data row 2 of train-00001-of-00002.")
    other = dataclasses.replace(TASKS[0], class_names=("dog", "cat"))
    found = contents(opened(tmp_path, tasks=(other,)))
    assert found == {i: [1 - i % 2] for i in range(N)}


def test_damaged_images_in_parquet_are_named_without_their_content(tmp_path):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    columns, _ = hugging_face("struct")
    columns["image"][3]["bytes"] = b"secret" * 9
    columns["image"][4]["bytes"] = columns["image"][4]["bytes"][:50]
    columns["image"][5] = {"bytes": None, "path": "gone.png"}
    parquet.write_table(pa.table(columns), tmp_path / "t.parquet")
    faults = faults_of(opened(tmp_path, ",size=(4,4)", tasks=TASKS[1:]))
    assert re.search(r"t.parquet row 6 \(gone.png\): there is no file gone.png", faults[0])
    source = opened(tmp_path, tasks=TASKS[1:])
    texts = faults_of(source)
    assert any(
        re.search(r"t.parquet row 4 \(3.png\): 3.png: cannot be read as an image: its", text)
        for text in texts
    )
    assert not any("secret" in text or "0x" in text for text in texts)


def test_tables_of_splits_are_one_data_set(tmp_path):
    write_images(tmp_path)
    for name, part in (("train", slice(0, 8)), ("val", slice(8, 10)), ("test", slice(10, 12))):
        write_csv(tmp_path, rows_of()[part], f"{name}.csv")
    source = opened(tmp_path)
    assert [len(split) for split in source.splits().values()] == [8, 2, 2]
    assert contents(source) == LABELS
    assert source.test.place(0) == f"{tmp_path} row 2 of test.csv (0010.png)"


@pytest.mark.parametrize(
    ("values", "task", "message"),
    [
        ([[b"x"]] * N, KIND, "column 'kind' of task 'kind' has the type list<element: binary>; m"),
        ([b"x"] * N, KIND, "column 'kind' has image files, which are no labels of task 'kind' .Cl"),
        ([b"x"] * N, Keypoints(name="kind", num_keypoints=1), "which are no labels of .* .Keypo"),
    ],
)
def test_columns_of_other_types_are_refused(values, task, message, tmp_path):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    write_images(tmp_path)
    parquet.write_table(pa.table({"image": NAMES, "kind": values}), tmp_path / "t.parquet")
    with pytest.raises(ValueError, match=message):
        opened(tmp_path, tasks=(task,))


def test_classes_of_lists(tmp_path):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    write_images(tmp_path)
    feature = {"feature": {"names": ["cat", "dog"], "_type": "ClassLabel"}, "_type": "List"}
    metadata = {"huggingface": json.dumps({"info": {"features": {"kind": feature}}})}
    values = [[[], [0], [1], [1, 0]][i % 4] for i in range(N)]
    table = pa.table({"image": NAMES, "kind": values}).replace_schema_metadata(metadata)
    parquet.write_table(table, tmp_path / "t.parquet")
    source = opened(tmp_path, tasks=(MultiLabel(name="kind"),))
    assert source.tasks[0].class_names == ("cat", "dog")
    assert contents(source) == {i: [[[0, 0], [1, 0], [0, 1], [1, 1]][i % 4]] for i in range(N)}


def test_every_argument_is_documented():
    page = (Path(__file__).parents[2] / "docs" / "my_data.md").read_text()
    rows = re.search("## Arguments of `folder`\n(.*?)\n## ", page, re.S)[1]
    documented = re.findall(r"`(\w+)`", "".join(re.findall(r"^\| (`.*?) \|", rows, re.M)))
    assert documented == [n for n in inspect.signature(folder).parameters if n not in HIDDEN]


def test_classes_that_differ_in_case_or_spaces_are_noted(tmp_path):
    write_images(tmp_path)
    names = ["New York", "New\u00a0York", "cat", "Cat"]
    write_csv(tmp_path, [{"image": n, "kind": names[i % 4]} for i, n in enumerate(NAMES)])
    source = opened(tmp_path, tasks=(Classification(name="kind"),))
    assert len(source.tasks[0].class_names) == 4
    assert [note.partition(" are two")[0] for note in notes_of(source)] == [
        r"warning: task 'kind': 'New York' and 'New\xa0York'",
        "warning: task 'kind': 'Cat' and 'cat'",
    ]
    given = Classification(name="kind", class_names=("New York", "cat", "Cat"))
    found = contents(opened(tmp_path, tasks=(given,)))
    assert found == {i: [[0, 0, 1, 2][i % 4]] for i in range(N)}


def test_images_beside_a_table_in_a_subfolder(tmp_path):
    write_images(tmp_path / "data", subfolder="")
    write_csv(tmp_path / "data", rows_of(), "train.csv")
    assert contents(opened(tmp_path)) == LABELS


@pytest.mark.parametrize("form", ["dict of lists", "list of dicts"])
def test_boxes_of_hugging_face(form, tmp_path):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    write_images(tmp_path)
    boxes = [[[0.0, 1.0, 2.0, 3.0]] * (i % 3) for i in range(N)]  # x, y, width, height
    classes = [[i % 2] * (i % 3) for i in range(N)]
    if form == "dict of lists":
        values = [{"bbox": b, "category": c} for b, c in zip(boxes, classes, strict=True)]
    else:
        values = [
            [{"bbox": box, "category": name} for box, name in zip(b, c, strict=True)]
            for b, c in zip(boxes, classes, strict=True)
        ]
    label = {"names": ["cat", "dog"], "_type": "ClassLabel"}
    feature = {"feature": {"bbox": {"_type": "List"}, "category": label}, "_type": "Sequence"}
    metadata = {"huggingface": json.dumps({"info": {"features": {"objects": feature}}})}
    table = pa.table({"image": NAMES, "objects": values}).replace_schema_metadata(metadata)
    parquet.write_table(table, tmp_path / "t.parquet")
    given = Detection(name="objects", order="xywh", class_names=("dog", "cat"), most=2)
    for task, order in (
        (dataclasses.replace(given, num_classes=0, class_names=()), 1),
        (given, -1),
    ):
        source = opened(tmp_path, tasks=(task,))
        assert source.tasks[0].class_names == ("cat", "dog")[::order]
        for i, (label,) in labels_of(source).items():
            count, index = i % 3, i % 2 if order == 1 else 1 - i % 2
            assert label["classes"].tolist() == [index] * count + [-1] * (2 - count)
            assert (label["boxes"][:count] == [1, 0, 4, 2]).all()


def test_repeated_rows_with_boxes_in_a_file(tmp_path):
    write_images(tmp_path)
    write_csv(tmp_path, [*rows_of(), rows_of()[3]])
    images = [{"id": i, "file_name": n, "height": 4, "width": 4} for i, n in enumerate(NAMES)]
    boxes = [{"id": i, "image_id": i, "category_id": 1, "bbox": [0, 0, 2, 2]} for i in range(N)]
    content = {"images": images, "annotations": boxes, "categories": [{"id": 1, "name": "x"}]}
    (tmp_path / "boxes.json").write_text(json.dumps(content))
    tasks = (KIND, Detection(name="boxes"))
    source = opened(tmp_path, tasks=tasks, labels={"boxes": "boxes.json"})
    assert [note for note in notes_of(source) if note.startswith("dropped 1 rows that repeat")]
    assert len(labels_of(source)) == N


def test_words_for_no_class_are_not_missing(tmp_path):
    write_images(tmp_path)
    values = ["None", "cat", "NA", "dog"]
    write_csv(tmp_path, [{"image": n, "kind": values[i % 4]} for i, n in enumerate(NAMES)])
    task = MultiLabel(name="kind", class_names=("cat", "dog"), no_class=("None",))
    found = labels_of(source := opened(tmp_path, tasks=(task,)))
    assert [found[i][0].tolist() for i in (0, 1, 3)] == [[0, 0], [1, 0], [0, 1]]
    assert [note.partition(",")[0] for note in notes_of(source)] == [
        "missing 3 labels of task 'kind' marked 'NA'"
    ]


@pytest.mark.parametrize("layout", ["{}", "data/{}", "default/{}", "{}_set"])
@pytest.mark.parametrize("images", ["", "images"])
def test_tables_in_folders_of_splits(layout, images, tmp_path):
    parts = {"train": range(8), "val": range(8, 10), "test": range(10, 12)}
    for name, part in parts.items():
        root = tmp_path / layout.format(name)
        (root / images).mkdir(parents=True)
        for row, i in enumerate(part):  # the same names in all folders
            Image.new("RGB", (4, 4), (i, 0, 0)).save(root / images / f"{row}.png")
        kinds = [("cat", "dog")[i % 2] for i in part]
        write_csv(root, [{"image": f"{row}.png", "kind": k} for row, k in enumerate(kinds)])
    source = opened(tmp_path)
    assert [len(split) for split in source.splits().values()] == [8, 2, 2]
    assert contents(source) == LABELS
    assert re.search(r" row 3 of test\w*/labels.csv .1.png.$", source.test.place(1))


def test_a_table_without_a_header_is_refused_with_the_reason(tmp_path):
    write_images(tmp_path)
    write_csv(tmp_path, rows_of())
    path = tmp_path / "labels.csv"
    path.write_text(path.read_text().partition("\n")[2])
    with pytest.raises(
        ValueError, match="no column 'image' .*; row 1 must have the names of the c"
    ):
        opened(tmp_path)


def test_indices_of_classes_with_names_are_counted(tmp_path):
    cells = ["0", "1", "dog", "", "1", "cat"]
    lines = ["image,kind,split"]
    for i, cell in enumerate(cells):
        Image.new("RGB", (4, 4)).save(tmp_path / f"{i}.png")
        lines.append(f"{i}.png,{cell},{('train', 'val', 'test')[i % 3]}")
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    for names, count in ((("cat", "dog"), 3), (("cat", "dog", "0", "1"), 0)):
        task = Classification(name="kind", class_names=names)
        source = make_source(f"folder:{tmp_path}", [LabelRequest(task, "kind")])
        notes = [note for note in source.notes if note.kind == "converted"]
        assert [note.count for note in notes] == [count] * bool(count)
        assert not notes or "where 0 is 'cat'" in notes[0].what
