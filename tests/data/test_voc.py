"""Pascal VOC: layouts, lists of splits, boxes that count from 1, masks, and damaged files."""

import re

import numpy as np
import pytest
from PIL import Image

from mtljax.data import make_source
from mtljax.data.base import LabelRequest
from mtljax.tasks import Detection, Keypoints, MultiLabel, Segmentation

H, W = 10, 20
BOX = {"xmin": 9, "ymin": 4, "xmax": 12, "ymax": 7}  # y 3 to 7, x 8 to 12, as pixels from 0


def xml(*objects, size=(H, W)):
    inside = "".join(
        f"<object><name>{name}</name>{more}<bndbox>"
        + "".join(f"<{side}>{value}</{side}>" for side, value in box.items())
        + "</bndbox></object>"
        for name, box, more in objects
    )
    sides = f"<size><width>{size[1]}</width><height>{size[0]}</height></size>" if size else ""
    return f"<annotation><filename>x.jpg</filename>{sides}{inside}</annotation>"


CAT = ("cat", BOX, "")


def write(root, images, labels, names, text=None):
    for folder in (images, labels):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for i, name in enumerate(names):
        Image.new("RGB", (W, H), (i, 0, 0)).save(root / images / f"{name}.png")
        (root / labels / f"{name}.xml").write_text(text or xml(CAT, ("dog", BOX, "")))


def voc(root, count=6, text=None, kind="Main", lists=("train", "val", "test")):
    names = [f"{name}_{i}" for name in ("train", "val", "test") for i in range(count)]
    write(root, "JPEGImages", "Annotations", names, text)
    (root / "ImageSets" / kind).mkdir(parents=True)
    for name in lists:
        inside = [n for n in names if n.startswith(name) or (name == "trainval" and n[0] in "tv")]
        inside = [n for n in inside if name != "trainval" or not n.startswith("test")]
        (root / "ImageSets" / kind / f"{name}.txt").write_text("".join(f"{n}  1\n" for n in inside))


def opened(root, *tasks, arguments=""):
    tasks = tasks or (Detection(name="boxes"),)
    return make_source(f"voc:'{root}'{arguments}", [LabelRequest(t, t.name) for t in tasks])


def texts(source):
    return [str(note).removeprefix("warning: ") for note in source.notes]


def sizes(source):
    return [len(split) for split in source.splits().values()]


def boxes(split, i=0):
    label = split[i]["labels"]["boxes"]
    known = label["classes"] >= 0
    return list(zip(label["boxes"][known].tolist(), label["classes"][known].tolist(), strict=True))


def test_lists_of_image_sets_are_the_splits(tmp_path):
    voc(tmp_path)
    source = opened(tmp_path)
    assert sizes(source) == [6, 6, 6]
    assert boxes(source.test, 5) == [([3, 8, 7, 12], 0), ([3, 8, 7, 12], 1)]
    assert source.train.tasks[0].class_names == ("cat", "dog")
    assert source.notes == ()


def test_several_years_are_one_data_set(tmp_path):
    for year in ("VOC2007", "VOC2012"):
        voc(tmp_path / year)
    assert sizes(opened(tmp_path)) == [12, 12, 12]


def test_trainval_is_read_only_without_train_and_val(tmp_path):
    voc(tmp_path / "both", lists=("train", "val", "trainval", "test"))
    assert sizes(opened(tmp_path / "both")) == [6, 6, 6]
    voc(tmp_path / "one", 20, lists=("trainval", "test"))
    found = sizes(opened(tmp_path / "one"))
    assert found[2] == 20
    assert found[0] + found[1] == 40
    assert found[1] > 0


@pytest.mark.parametrize(
    ("images", "labels"),
    [("images", "annotations"), (".", "."), ("JPEGImages", "Annotations"), ("images", "labels")],
)
def test_a_data_set_without_lists_is_split_by_a_hash(images, labels, tmp_path):
    write(tmp_path, images, labels, [str(i) for i in range(40)])
    assert sum(sizes(opened(tmp_path))) == 40


def test_files_in_other_folders_are_matched_by_unique_names(tmp_path):
    for name in ("train", "val", "test"):
        write(tmp_path / name, "pictures", "annots", [f"{name}_{i}" for i in range(5)])
    write(tmp_path / "train", "pictures", "annots", ["same"])
    write(tmp_path / "test", "pictures", "annots", ["same"])
    source = opened(tmp_path)
    assert sizes(source) == [5, 5, 5]
    assert [text.split(", first")[0] for text in texts(source)] == [
        "converted 15 files of another folder to labels, by unique names",
        "unmatched 2 files with labels (.xml) without an image",
        "missing 2 labels: images without an XML file",
        "dropped 2 images without a label of any task",
    ]


@pytest.mark.parametrize("inner", [("", ""), ("images", "annotations")])
def test_folders_of_splits(inner, tmp_path):
    for name in ("train", "valid", "test"):
        write(tmp_path / name, *inner, [str(i) for i in range(5)])
    assert sizes(opened(tmp_path)) == [5, 5, 5]


def test_boxes_count_from_1_or_0(tmp_path):
    corner = {"xmin": 1, "ymin": 1, "xmax": 1, "ymax": 1}
    voc(tmp_path / "one", text=xml(("cat", corner, "")))
    assert boxes(opened(tmp_path / "one").train) == [([0, 0, 1, 1], 0)]
    whole = {"xmin": 0, "ymin": 0, "xmax": W, "ymax": H}
    voc(tmp_path / "zero", text=xml(("cat", whole, "")))
    assert boxes(opened(tmp_path / "zero", arguments=",first=0").train) == [([0, 0, H, W], 0)]
    source = opened(tmp_path / "zero")
    assert boxes(source.train) == [([0, 0, H, W], 0)]
    assert any("set first=0" in text for text in texts(source))
    assert any(text.startswith("clipped 18 boxes that exceed") for text in texts(source))
    with pytest.raises(ValueError, match="first must be 0 or 1, not 2"):
        opened(tmp_path / "zero", arguments=",first=2")


def test_difficult_objects_are_counted_and_may_be_dropped(tmp_path):
    voc(tmp_path, text=xml(CAT, ("dog", BOX, "<difficult>1</difficult>")))
    source = opened(tmp_path)
    assert len(boxes(source.train)) == 2
    assert texts(source)[0].startswith("converted 18 difficult objects to ordinary ones")
    source = opened(tmp_path, arguments=",difficult=false")
    assert len(boxes(source.train)) == 1
    assert texts(source)[0].startswith("dropped 18 difficult objects")


def test_parts_and_unused_elements_are_no_boxes(tmp_path):
    head = "<part><name>head</name><bndbox><xmin>1</xmin></bndbox></part>"
    voc(tmp_path, text=xml(("cat", {k: f" {v}.0 " for k, v in BOX.items()}, head)))
    assert boxes(opened(tmp_path).train) == [([3, 8, 7, 12], 0)]


def test_some_names_are_requested_and_others_counted(tmp_path):
    voc(tmp_path)
    source = opened(tmp_path, Detection(name="boxes", class_names=("dog", "catt")))
    assert boxes(source.train) == [([3, 8, 7, 12], 0)]
    assert (
        "no category 'catt', which is in class_names of task 'boxes'; did you" in texts(source)[0]
    )
    assert texts(source)[1].startswith("dropped 18 boxes of category 'cat'")


@pytest.mark.parametrize("size", [None, (0, 0)])
def test_the_size_may_be_absent(size, tmp_path):
    voc(tmp_path, text=xml(CAT, size=size))
    assert boxes(opened(tmp_path).train) == [([3, 8, 7, 12], 0)]


def test_another_size_than_that_of_the_image_is_an_error_of_the_image(tmp_path):
    voc(tmp_path)
    (tmp_path / "Annotations/train_1.xml").write_text(xml(CAT, size=(2 * H, 2 * W)))
    source = opened(tmp_path)
    assert len(boxes(source.train, 0)) == 2
    ((row, fault),) = source.train.faults().items()
    assert row == 1
    assert "train_1.png: has labels for 20 x 40 pixels, but the image is 10 x 20" in fault


BOMB = '<!DOCTYPE a [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]>' + xml(CAT).replace("cat", "&b;")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is not valid XML"),
        ("<annotation>", "is not valid XML"),
        ("<a/>", "its root is not <annotation>"),
        ("<annotation>" + "<a>" * 5000, "is not valid XML"),
        (BOMB, "document type declaration"),
        (xml(CAT).encode("utf-16").decode("latin-1"), "is not valid XML"),
        (xml(("cat", {"xmin": 1}, "")), "object 1: must have bndbox with the numbers xmin, ymin"),
        (xml(("cat", {**BOX, "xmax": "nan"}, "")), "object 1: must have bndbox"),
        (xml(("cat", {**BOX, "xmax": "1e999"}, "")), "object 1: must have bndbox"),
        (xml(("cat", {**BOX, "xmax": "x"}, "")), "object 1: must have bndbox"),
        (xml(("cat", {**BOX, "xmax": 2}, "")), "object 1: bbox must have no negative size"),
        (xml(CAT, (" ", BOX, "")), "object 2: must have a name"),
        (xml(CAT).replace("<bndbox>", "<box>").replace("</bndbox>", "</box>"), "must have bndbox"),
    ],
)
def test_a_bad_file_is_a_fault_of_its_image_alone(text, message, tmp_path):
    voc(tmp_path)
    (tmp_path / "Annotations/train_1.xml").write_text(text)
    source = opened(tmp_path)
    ((row, fault),) = source.train.faults().items()
    assert row == 1
    assert re.search(message, fault), fault
    assert "Annotations/train_1.xml" in fault
    assert len(fault) < 300
    assert "\n" not in fault


def test_absent_files_are_counted(tmp_path):
    voc(tmp_path)
    (tmp_path / "Annotations/train_1.xml").unlink()
    (tmp_path / "JPEGImages/train_2.png").unlink()
    write(tmp_path, "JPEGImages", "Annotations", ["stray"])
    source = opened(tmp_path)
    assert sorted(text.split(", first")[0] for text in texts(source)) == [
        "dropped 1 images outside of the splits",
        "dropped 1 images without a label of any task",
        "missing 1 labels: images without an XML file",
        "unmatched 1 files with labels (.xml) without an image",
    ]
    (fault,) = source.train.faults().values()
    assert "there is no file" in fault
    assert "train_2" in fault


def test_masks_and_boxes(tmp_path):
    voc(tmp_path)
    voc(tmp_path / "x", kind="Segmentation")
    (tmp_path / "x/ImageSets/Segmentation").rename(tmp_path / "ImageSets/Segmentation")
    (tmp_path / "ImageSets/Segmentation/train.txt").write_text("train_0\ntrain_3\n")
    values = np.zeros((H, W), np.uint8)
    values[2:4], values[5] = 15, 255
    mask = Image.fromarray(values).convert("P")
    for folder in ("SegmentationClass", "SegmentationObject"):
        (tmp_path / folder).mkdir()
        for name in (
            "train_0",
            "train_3",
            *(f"{s}_{i}" for s in ("val", "test") for i in range(6)),
        ):
            mask.save(tmp_path / folder / f"{name}.png")
    for folder in ("x/JPEGImages", "x/Annotations", "x/ImageSets"):
        for file in (tmp_path / folder).iterdir():
            file.unlink()
    source = opened(tmp_path, Segmentation(name="m", num_classes=21))
    assert sizes(source) == [2, 6, 6]
    np.testing.assert_array_equal(source.train[0]["labels"]["m"], values)
    both = opened(tmp_path, Segmentation(name="m", num_classes=21), Detection(name="boxes"))
    assert sizes(both) == [6, 6, 6]
    assert [bool(both.train[i]["present"]["m"]) for i in range(6)] == [
        True,
        False,
        False,
        True,
        False,
        False,
    ]
    assert any(text.startswith("missing 4 labels: images without a mask") for text in texts(both))
    assert opened(tmp_path, MultiLabel(name="c")).train[0]["labels"]["c"].tolist() == [1, 1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (",image_set=Layout", "ImageSets/Layout has no train.txt or trainval.txt.* of Main"),
        (",first=3", "first must be 0 or 1"),
    ],
)
def test_wrong_arguments(arguments, message, tmp_path):
    voc(tmp_path)
    with pytest.raises(ValueError, match=message):
        opened(tmp_path, arguments=arguments)


def test_other_data_is_one_error(tmp_path):
    voc(tmp_path / "voc")
    (tmp_path / "voc/ImageSets/Main/val.txt").write_text("train_0\n")
    with pytest.raises(ValueError, match="train_0 is in the (train|validation) split too"):
        opened(tmp_path / "voc")
    (tmp_path / "none").mkdir()
    with pytest.raises(ValueError, match="has no images; expected JPEGImages"):
        opened(tmp_path / "none")
    Image.new("RGB", (W, H)).save(tmp_path / "none/1.png")
    with pytest.raises(ValueError, match="no training image has a file with its labels"):
        opened(tmp_path / "none")
    with pytest.raises(ValueError, match="has no labels 'sizes' for task 'boxes'"):
        make_source(f"voc:'{tmp_path}/voc'", [LabelRequest(Detection(name="boxes"), "sizes")])
    with pytest.raises(ValueError, match="source voc has no label for task 'k', a Keypoints"):
        opened(tmp_path / "voc", Keypoints(name="k", num_keypoints=2))


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "gbk", "iso-8859-1"])
def test_the_encoding_is_that_of_the_declaration_or_the_byte_order_mark(encoding, tmp_path):
    voc(tmp_path, 3)
    name = "größe" if encoding == "iso-8859-1" else "猫"
    declared = "utf-8" if encoding == "utf-8-sig" else encoding
    text = f'<?xml version="1.0" encoding="{declared}"?>\n' + xml((name, BOX, ""))
    for file in (tmp_path / "Annotations").iterdir():
        file.write_bytes(text.encode(encoding))
    assert opened(tmp_path).train.tasks[0].class_names == (name,)


def test_an_encoding_that_does_not_fit_is_named(tmp_path):
    voc(tmp_path, 3)
    files = [tmp_path / "Annotations" / f"train_{i}.xml" for i in range(2)]
    for file, encoding in zip(files, ["gb18030", "klingon"], strict=True):
        head = f'<?xml version="1.0" encoding="{encoding}"?>'.encode()
        file.write_bytes(head + xml(CAT).encode() + b"\xff")
    faults = sorted(opened(tmp_path).train.faults().values())
    assert "train_0.xml is not encoded in GB18030" in faults[0]
    assert "train_1.xml declares an encoding that is not known" in faults[1]


@pytest.mark.parametrize("name", ["{}.png", "JPEGImages/{}.png", "JPEGImages\\{}", "./{}"])
def test_lists_may_have_extensions_and_folders(name, tmp_path):
    voc(tmp_path, 3)
    for file in (tmp_path / "ImageSets" / "Main").iterdir():
        lines = file.read_text().split("  1\n")[:-1]
        file.write_text("".join(name.format(line) + "\n" for line in lines))
    assert sizes(opened(tmp_path)) == [3, 3, 3]
