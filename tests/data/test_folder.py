"""Somebody's own data: a folder of images and a table of labels, and what can be wrong with it."""

import dataclasses
import json
import re

import numpy as np
import pytest
import tifffile
from PIL import Image
from support.folders import (
    FOR,
    LABELS,
    H,
    N,
    W,
    coco,
    gaps,
    make_folder,
    picture,
    rows_of,
    write_experiment,
    write_table,
    wrong_mask,
)

from mtljax.build import load_source
from mtljax.config import Data, Experiment
from mtljax.data import Arrays, make_source
from mtljax.data.base import LabelRequest
from mtljax.data.splitting import split_by_hash
from mtljax.main import main


@pytest.fixture
def folder(tmp_path):
    make_folder(tmp_path / "pets")
    return tmp_path / "pets"


def opened(folder, arguments="", names=tuple(FOR)):
    wanted = [LabelRequest(FOR[name], LABELS.get(name, name)) for name in names]
    return make_source(f"folder:'{folder}'{arguments}", wanted)


def test_every_kind_of_label_is_what_the_files_say(folder):
    source = opened(folder)
    assert [len(s) for s in source.splits().values()] == [12, 6, 6]
    example = source.validation[1]  # row 6
    labels = example["labels"]
    assert example["image"].shape == (H, W, 3)
    assert all(example["present"].values())
    assert labels["kind"] == 0
    assert labels["weight"] == pytest.approx(float(list(rows_of())[6]["weight"]))
    assert labels["traits"].tolist() == [0, 1]
    np.testing.assert_array_equal(labels["mask"], np.asarray(Image.open(folder / "mask/006.png")))
    np.testing.assert_array_equal(example["image"][..., 0], labels["mask"] * 80)
    np.testing.assert_array_equal(labels["depth"], np.asarray(Image.open(folder / "depth/006.png")))
    np.testing.assert_array_equal(labels["normals"], np.load(folder / "normals/006.npy"))
    assert labels["eyes"].tolist() == [[2, 3.5, 1], [7, 9, 1]]
    boxes = source.train[5]["labels"]["boxes"]  # row 9 has none, row 8 two
    assert (source.train[4]["labels"]["boxes"]["classes"] == [1, 0, -1]).all()
    assert source.train[4]["labels"]["boxes"]["boxes"][0].tolist() == [2, 0, 7, 6]
    assert (boxes["classes"] == -1).all()
    assert source.train[5]["present"]["boxes"]


def test_points_outside_and_unmeasured_maps_are_counted_and_do_not_stop_the_others(folder):
    rows = list(rows_of())
    rows[5] |= {"y0": "-3"}
    rows[9] |= {"y0": "", "x0": ""}
    write_table(folder, rows)
    for name in ("depth/005.png", "depth/009.png"):
        Image.fromarray(np.zeros((H, W), np.uint16)).save(folder / name)
    np.save(folder / "normals/009.npy", np.zeros((H, W, 3), np.float32))
    source = opened(folder)
    fifth, ninth = source.train[3], source.train[5]
    assert fifth["labels"]["eyes"].tolist() == [[0, 0, 0], [7, 9, 1]]
    assert ninth["labels"]["eyes"].tolist() == [[0, 0, 0], [7, 9, 1]]
    missing = [[name for name, here in x["present"].items() if not here] for x in (fifth, ninth)]
    assert missing == [["depth"], ["depth", "normals"]]
    (note,) = (note for note in source.notes if "points outside" in note.what)
    assert (note.count, "row 7 (005.png)" in note.first) == (1, True)


def test_classes_of_a_row_may_be_unknown(folder):
    rows = list(rows_of())
    rows[4] |= {"wild": ""}
    write_table(folder, rows)
    fourth = opened(folder, names=("traits",)).train[2]["labels"]["traits"]
    assert fourth.tolist() == [-1, 0]


def test_columns_in_another_order_than_the_task_are_refused(folder):
    wanted = [LabelRequest(FOR["eyes"], "x0,y0,x1,y1")]
    with pytest.raises(ValueError, match=r"task 'eyes': the columns x0, y0 have x before y"):
        make_source(f"folder:'{folder}'", wanted)
    wanted = [LabelRequest(FOR["traits"], "old,wild")]
    with pytest.raises(ValueError, match="task 'traits': the columns old, wild are in another"):
        make_source(f"folder:'{folder}'", wanted)


def test_everything_is_brought_to_one_size(folder):
    small, large = opened(folder), opened(folder, ",size=(24,32)")
    before, after = small.validation[1]["labels"], large.validation[1]["labels"]
    assert large.train[0]["image"].shape == (24, 32, 3)
    np.testing.assert_array_equal(after["mask"], before["mask"].repeat(2, 0).repeat(2, 1))
    np.testing.assert_array_equal(after["depth"], before["depth"].repeat(2, 0).repeat(2, 1))
    np.testing.assert_array_equal(after["eyes"][:, :2], 2 * before["eyes"][:, :2])
    np.testing.assert_array_equal(
        large.train[4]["labels"]["boxes"]["boxes"], 2 * small.train[4]["labels"]["boxes"]["boxes"]
    )


def test_boxes_belong_to_the_images_of_any_column(folder):
    path = folder / "labels.csv"
    path.write_text(path.read_text().replace("image,", "photo,", 1))
    example = opened(folder, ",image=photo", ("boxes",)).train[4]  # row 8 has two boxes
    assert example["present"]["boxes"]
    assert (example["labels"]["boxes"]["classes"] == [1, 0, -1]).all()


def test_images_of_many_sizes_become_one_size(folder):
    Image.new("RGB", (40, 30)).save(folder / "images" / "000.png")
    source = opened(folder, ",size=(8,8),channels=1", ("kind",))
    assert {source.train[i]["image"].shape for i in range(12)} == {(8, 8, 1)}


def test_json_lines_and_parquet_say_the_same_as_csv(folder):
    parquet = pytest.importorskip("pyarrow.parquet")
    import pyarrow

    names = ("kind", "weight", "traits", "mask")
    wanted = opened(folder, names=names).test[2]
    rows = [{**row, "weight": float(row["weight"])} for row in rows_of()]
    (folder / "labels.csv").unlink()
    (folder / "labels.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = opened(folder, names=names).test[2]
    (folder / "labels.jsonl").unlink()
    parquet.write_table(pyarrow.Table.from_pylist(rows), folder / "labels.parquet")
    for other in (found, opened(folder, names=names).test[2]):
        for name in names:
            np.testing.assert_array_equal(other["labels"][name], wanted["labels"][name])


def test_a_row_stays_in_its_split_when_others_come_and_go():
    names = [f"{i}.png" for i in range(2000)]
    parts = split_by_hash(names, 0.1, 0.2, 0)
    where = {names[i]: part for part, index in parts.items() for i in index}
    fewer = split_by_hash(names[::3], 0.1, 0.2, 0)
    assert all(where[names[::3][i]] == part for part, index in fewer.items() for i in index)
    shares = [len(index) / 2000 for index in parts.values()]
    np.testing.assert_allclose(shares, [0.7, 0.1, 0.2], atol=0.03)  # of 2,000 draws
    assert split_by_hash(names, 0.1, 0.2, 1) != parts


def experiment(folder, names=("kind", "weight", "mask"), **settings):
    return Experiment(
        name="pets",
        tasks=tuple(FOR[name] for name in names),
        data=Data(source=f"folder:'{folder}'", labels=LABELS, batch_size=8),
        trunk="cnn:widths=(8,8,8)",
        steps=4,
        eval_every=4,
        **settings,
    )


def test_empty_cells_are_missing_labels_and_nothing_else(folder):
    left = gaps(folder)
    source = opened(folder, names=("kind", "weight", "mask"))
    # Rows of the table are dealt out as train, train, validation, test.
    numbers = {"train": [i for i in range(N) if i % 4 < 2], "test": list(range(3, N, 4))}
    for part, rows in numbers.items():
        for i, row in enumerate(rows):
            present = source.splits()[part][i]["present"]
            assert {n: bool(p) for n, p in present.items()} == {n: row in left[n] for n in left}


@pytest.mark.full
def test_training_counts_only_the_labels_that_are_there(folder, tmp_path):
    left = gaps(folder)
    path = write_experiment(tmp_path / "pets.py", folder)
    run = tmp_path / "run"
    assert main(["--experiment", path, "--workdir", str(run), "--quiet", "--devices", "1"]) == 0
    result = json.loads((run / "result.json").read_text())["test"]
    test_rows = list(range(3, N, 4))
    seen = np.sum(result["kind"]["confusion"])
    assert seen == len(set(test_rows) & set(left["kind"])) < len(test_rows)
    # A share of right pixels is a number of pixels over those of images with a mask.
    pixels = result["mask"]["pixel_accuracy"] * H * W * len(set(test_rows) & set(left["mask"]))
    assert pixels == pytest.approx(round(pixels), abs=1e-6)
    for metrics in result.values():
        assert np.isfinite(metrics["loss"])


def edit(row, **cells):
    """A damage of the table: cells of one row are something else."""

    def damage(folder):
        rows = list(rows_of())
        rows[row].update(cells)
        write_table(folder, rows)

    return damage


def text(change):
    """A damage of the table's text."""

    def damage(folder):
        path = folder / "labels.csv"
        path.write_text(change(path.read_text()))

    return damage


def array(name, value):
    return lambda folder: np.save(folder / name, value)


def cut_off(folder):
    path = folder / "images" / "005.png"
    path.write_bytes(path.read_bytes()[:60])


def boxes(change):
    def damage(folder):
        found = coco()
        change(found)
        (folder / "boxes.json").write_text(json.dumps(found))

    return damage


ROW5 = r"labels.csv row 7 .005.png.: "
MISTAKES = {
    "no table": (lambda f: (f / "labels.csv").unlink(), "pets has no table of labels"),
    "two tables": (
        lambda f: write_table(f, list(rows_of()), "b.csv"),
        "several tables .b.csv, lab",
    ),
    "empty table": (text(lambda t: t.splitlines()[0]), "labels.csv is empty: it has no rows"),
    "no image column": (text(lambda t: t.replace("image,", "img,", 1)), "no column 'image' with"),
    "no such column": (
        text(lambda t: t.replace("weight", "wait", 1)),
        "no column 'weight' for task",
    ),
    "a cell too many": (text(lambda t: t.rstrip() + ",1\n"), "row 25 .023.png.: 14 cells, but"),
    "two columns alike": (text(lambda t: t.replace("kind", "weight", 1)), "row 1: two columns"),
    "missing image": (lambda f: (f / "images/005.png").unlink(), ROW5 + "there is no file"),
    "image cut off": (cut_off, ROW5 + "005.png: cannot be read as an image"),
    "image of another size": (
        picture("images/005.png", np.zeros((9, 9, 3), np.uint8)),
        ROW5 + "005.png is 9 x 9, but that of row 2 is 12 x 16; give size=",
    ),
    "image of integers of unknown scale": (
        lambda f: tifffile.imwrite(f / "images/005.png", np.full((H, W), -1, np.int16)),
        ROW5 + "values of type int16 in -1..-1",
    ),
    "duplicate row": (
        edit(5, image="004.png"),
        r"row 6 .004.png.: 004.png is in row 7, too, with other labels",
    ),
    "unknown split": (edit(5, split="trian"), ROW5 + "split is 'trian'; must be train"),
    "no split": (edit(5, split=""), ROW5 + "split is empty; must be"),
    "class misspelt": (
        edit(5, kind="cta"),
        ROW5 + "task 'kind': unknown class 'cta'; did you mean 'cat'",
    ),
    "class out of range": (edit(5, kind="3"), ROW5 + "task 'kind': label is 3; a class must be"),
    "word for a number": (
        edit(5, weight="heavy"),
        ROW5 + "task 'weight': 'heavy' is not a number|task 'weight'",
    ),
    "not a number": (
        edit(5, weight="inf"),
        ROW5 + "task 'weight': label is inf; labels must be finite",
    ),
    "no label at all": (
        lambda f: write_table(f, [{**r, "kind": ""} for r in rows_of()]),
        "task 'kind' has no label in any training row",
    ),
    "half a point": (edit(5, x1=""), ROW5 + "task 'eyes': point 1 has no y or no x"),
    "missing mask": (
        edit(5, mask="mask/none.png"),
        ROW5 + "task 'mask': there is no file mask/none",
    ),
    "mask of another size": (
        picture("mask/005.png", np.zeros((9, 9), np.uint8)),
        ROW5 + r"task 'mask': a label of shape .9, 9. for an image of 12 x 16",
    ),
    "class out of range in a mask": (
        picture("mask/005.png", wrong_mask(9)),
        ROW5 + "task 'mask': the values 9 are not classes; must be 0",
    ),
    "colored mask": (
        picture("mask/005.png", np.eye(3, dtype=np.uint8)[wrong_mask(1)]),
        ROW5 + "task 'mask': a picture with colors",
    ),
    "mixed bit depth": (
        picture("depth/005.png", np.full((H, W), 9, np.uint8)),
        ROW5 + "005.png is an image of mode L, but that of row 2 is an image of mode I;16",
    ),
    "normals of two numbers": (
        array("normals/005.npy", np.zeros((H, W, 2), np.float32)),
        ROW5 + "task 'normals': an array of shape .12, 16, 2.",
    ),
    "normals not finite": (
        array("normals/005.npy", np.full((H, W, 3), np.nan, np.float32)),
        ROW5 + "task 'normals': label is nan",
    ),
    "damaged normals": (
        lambda f: (f / "normals/005.npy").write_bytes(b"x" * 99),
        ROW5 + "005.npy: cannot be read as an array",
    ),
    "no JSON": (lambda f: (f / "boxes.json").write_text("{"), "boxes.json is not a COCO file"),
    "no COCO": (
        boxes(lambda c: c.pop("categories")),
        "boxes.json is not a COCO file: it has no list 'categories'",
    ),
    "unknown category": (
        boxes(lambda c: c["annotations"][0].update(category_id=3)),
        "annotation 10: unknown category 3",
    ),
    "box of negative size": (
        boxes(lambda c: c["annotations"][0].update(bbox=[9, 2, -3, 5])),
        "annotation 10: bbox must have no negative size",
    ),
    "box of another image size": (
        lambda f: (f / "boxes.json").write_text(json.dumps(coco(size=(24, 32)))),
        r"row \d+ .\d+.png.: has labels for 24 x 32 pixels, but the image is 12 x 16",
    ),
    "too many boxes": (
        boxes(lambda c: c["annotations"].extend([{**c["annotations"][0]}] * 3)),
        "row 3 .001.png.: task 'boxes': 4 boxes; set `most`",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_that_names_its_place(mistake, folder, tmp_path, capsys):
    damage, message = MISTAKES[mistake]
    damage(folder)
    path = write_experiment(tmp_path / "pets.py", folder, names=tuple(FOR))
    run = tmp_path / "run"
    assert main(["--experiment", path, "--workdir", str(run), "--quiet"]) == 2
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1
    assert re.search(message, said), said
    assert not run.exists()


@pytest.mark.full
def test_the_same_mistakes_are_found_while_data_is_streamed(folder, tmp_path, capsys):
    picture("mask/005.png", wrong_mask(9))(folder)
    path = write_experiment(tmp_path / "pets.py", folder)
    run = ("--workdir", str(tmp_path / "run"), "--data.keep-on-device", "no", "--quiet")
    assert main(["--experiment", path, *run]) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert "labels.csv row 7 (005.png): task 'mask': the values 9 are not classes" in said[0]


def test_a_json_line_that_is_none_is_named(folder):
    (folder / "labels.csv").unlink()
    lines = [json.dumps(row) for row in rows_of()]
    lines[1] = lines[1][:-1]
    (folder / "labels.jsonl").write_text("\n".join(lines))
    faults = opened(folder, names=("kind",)).train.faults()
    assert list(faults) == [1]
    assert re.search("labels.jsonl row 2: invalid JSON: Expecting ',' delimiter", faults[1])


def test_no_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="there is no folder nowhere .or set MTLJAX_DATA"):
        opened("nowhere")


def test_nothing_but_what_is_kept_is_read_before_it_is_asked_for(folder):
    kept = load_source(experiment(folder))
    assert isinstance(kept.train, Arrays)
    streamed = experiment(folder)
    data = Data(source=f"folder:'{folder}'", labels=LABELS, batch_size=8, keep_on_device="no")
    streamed = load_source(Experiment(**{**vars(streamed), "data": data}))
    assert not isinstance(streamed.train, Arrays)
    for i in (0, 3):
        np.testing.assert_array_equal(streamed.train[i]["image"], kept.train[i]["image"])


def test_uncertain_classes_are_counted(folder):
    rows = list(rows_of())
    rows[4] |= {"wild": "-1"}
    write_table(folder, rows)
    task = dataclasses.replace(FOR["traits"], uncertain="positive")
    source = make_source(f"folder:'{folder}'", [LabelRequest(task, "wild,old")])
    assert source.train[2]["labels"]["traits"].tolist() == [1, 0]
    (note,) = source.notes
    assert (note.kind, note.count) == ("converted", 1)
    assert "uncertain classes to yes of task 'traits'" in note.what
