"""YOLO label files: layouts, data.yaml, kinds of lines, and what is clipped, counted or refused."""

import re

import numpy as np
import pytest
from PIL import Image

from mtljax.data import make_source
from mtljax.data.annotations.yolo import Points, read_label_file, read_yolo_file
from mtljax.data.base import LabelRequest
from mtljax.data.notes import NoteCounter
from mtljax.tasks import Detection, Keypoints, MultiLabel, Segmentation

H, W = 10, 20
LINE = "1 0.5 0.5 0.2 0.4\n"  # y 3 to 7, x 8 to 12


def write(root, images, labels, count=6, text=LINE, first=0):
    for folder in (images, labels):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for i in range(first, first + count):
        Image.new("RGB", (W, H), (i, 0, 0)).save(root / images / f"{i:03}.png")
        (root / labels / f"{i:03}.txt").write_text(text)


def opened(root, *tasks, arguments=""):
    tasks = tasks or (Detection(name="boxes"),)
    return make_source(f"yolo:'{root}'{arguments}", [LabelRequest(t, t.name) for t in tasks])


def splits_of(root, text=LINE, config="names: [cat, dog]"):
    for name in ("train", "val", "test"):
        write(root, f"images/{name}", f"labels/{name}", text=text)
    (root / "data.yaml").write_text(config)


def texts(source):
    return [str(note).removeprefix("warning: ") for note in source.notes]


def box(split, i=0):
    label = split[i]["labels"]["boxes"]
    return label["boxes"][0].tolist(), int(label["classes"][0])


def sizes(source):
    return [len(split) for split in source.splits().values()]


LAYOUTS = {
    "ultralytics": [(f"images/{name}", f"labels/{name}") for name in ("train", "val", "test")],
    "roboflow": [(f"{name}/images", f"{name}/labels") for name in ("train", "valid", "test")],
    "together": [(name, name) for name in ("train", "val", "test")],
    "years": [(f"images/{name}2017", f"labels/{name}2017") for name in ("train", "val", "test")],
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("config", ["names: {0: cat, 1: dog}", "nc: 2\nnames: ['cat', 'dog']", ""])
def test_layouts_with_splits(layout, config, tmp_path):
    for images, labels in LAYOUTS[layout]:
        write(tmp_path, images, labels)
    if config:
        (tmp_path / "data.yaml").write_text(config)
    else:
        (tmp_path / "classes.txt").write_text("\ufeffcat\r\ndog\r\n\r\n")
    source = opened(tmp_path)
    assert sizes(source) == [6, 6, 6]
    assert box(source.test, 5) == ([3, 8, 7, 12], 1)
    assert source.train.tasks[0].class_names == ("cat", "dog")
    assert source.notes == ()


@pytest.mark.parametrize(("images", "labels"), [("images", "labels"), (".", "."), ("a", "a")])
def test_a_data_set_without_splits_is_split_by_a_hash(images, labels, tmp_path):
    write(tmp_path, images, labels, 40)
    source = opened(tmp_path)
    assert sum(sizes(source)) == 40
    assert texts(source) == [
        f"{tmp_path} has no data.yaml or classes.txt: classes are named by number"
    ]
    assert source.train.tasks[0].class_names == ("0", "1")
    named = opened(tmp_path, Detection(name="boxes", class_names=("cat", "dog")))
    assert box(named.train)[1] == 1
    assert opened(tmp_path, Detection(name="boxes", num_classes=5)).train.tasks[0].num_classes == 5


def test_splits_of_data_yaml_are_folders_or_lists(tmp_path):
    write(tmp_path, "images/one", "labels/one", 10)
    write(tmp_path, "images/two", "labels/two", 10, first=10)
    (tmp_path / "list.txt").write_text("./images/two/010.png\nimages/two/011.png\n")
    (tmp_path / "own.yaml").write_text(
        "path: ../elsewhere\ntrain: [images/one]\nval: ../list.txt\ntest: ../test/images\n"
        "names: [a, b]"
    )
    source = opened(tmp_path / "own.yaml")
    assert len(source.validation) == 2
    assert len(source.train) + len(source.test) == 10
    assert "test is '../test/images', which does not exist" in texts(source)[0]
    assert texts(source)[1].startswith("dropped 8 images outside of the splits")
    assert not [note for note in source.notes if note.kind == "unmatched"]


def test_lists_beside_the_images_are_splits(tmp_path):
    write(tmp_path, "obj_train_data", "obj_train_data", 9)
    for k, name in enumerate(("train", "valid", "test")):
        lines = [f"obj_train_data/{i:03}.png" for i in range(3 * k, 3 * k + 3)]
        (tmp_path / f"{name}.txt").write_text("\n".join(lines))
    assert sizes(opened(tmp_path)) == [3, 3, 3]


def test_a_validation_split_that_is_the_training_split_is_cut_from_it(tmp_path):
    write(tmp_path, "images/train", "labels/train", 40)
    (tmp_path / "data.yaml").write_text("train: images/train\nval: images/train\nnames: [a, b]")
    source = opened(tmp_path)
    assert sum(sizes(source)) == 40
    assert "the validation split is the train split: ignored" in texts(source)[0]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("train: images/nowhere\nnames: [a]", "train is 'images/nowhere', which does not exist"),
        ("train: ../../etc\nnames: [a]", "which does not exist"),
        ("train: {a: b}\nnames: [a]", "train must be a folder or a list"),
        (
            "train: images/train\nval: images\nnames: [a]",
            "is in the train and the validation split",
        ),
        ("names: {0: a, 2: b}", "names must have the indices 0 to 1"),
        ("names: 3", "names must be a list of names"),
        ("nc: 3\nnames: [a, b]", "nc is 3, but names has 2"),
        ("names: [a, a]", "two classes have the name 'a'"),
        ("kpt_shape: [x, 3]", "kpt_shape must be"),
        ("names: [a", "is not valid YAML"),
        ("!!python/object/apply:os.system ['true']", "is not valid YAML"),
        ("- a", "must have names, train and val"),
        ("[" * 3000, "is not valid YAML"),
    ],
)
def test_a_wrong_data_yaml_is_one_line(config, message, tmp_path):
    splits_of(tmp_path, config=config)
    with pytest.raises(ValueError, match=message) as error:
        opened(tmp_path)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 400


def read(text, tmp_path, points=None):
    (tmp_path / "1.txt").write_text(text)
    notes = NoteCounter()
    return read_label_file(tmp_path / "1.txt", (H, W), points, notes), notes.notes()


def test_lines_are_boxes_or_polygons(tmp_path):
    image, _ = read("0 .5 .5 .2 .4\n\n2 0.1 0.1 0.5 0.1 0.5 0.5\n", tmp_path)
    first, second = image.annotations
    np.testing.assert_allclose(first["bbox"], [8, 3, 4, 4])
    np.testing.assert_allclose(second["bbox"], [2, 1, 8, 4])
    np.testing.assert_allclose(second["segmentation"], [[2, 1, 10, 1, 10, 5]])
    assert [a["category_id"] for a in image.annotations] == [0, 2]
    assert [a["id"] for a in image.annotations] == [1, 3]


def test_repeated_lines_are_dropped_and_counted(tmp_path):
    image, notes = read(2 * LINE, tmp_path)
    assert len(image.annotations) == 1
    assert str(notes[0]).startswith("dropped 1 repeated lines of label files")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("1 0.5 0.5 0.2", "4 numbers; must be class"),
        ("1 0.5 0.5 0.2 0.4 0.9", "6 numbers; must be class.* confidences are not accepted"),
        ("1 0.1 0.1 0.5 0.1 0.5 0.5 0.4", "8 numbers"),
        ("cat 0.5 0.5 0.2 0.4", "must have finite numbers"),
        ("1,0.5,0.5,0.2,0.4", "must have finite numbers, separated by spaces"),
        ("1 nan 0.5 0.2 0.4", "must have finite numbers"),
        ("1 inf 0.5 0.2 0.4", "must have finite numbers"),
        ("1.5 0.5 0.5 0.2 0.4", "the class '1.5' is not an index"),
        ("-1 0.5 0.5 0.2 0.4", "the class '-1' is not an index"),
        ("1 320 240 50 60", "320 is not a fraction of the image"),
        ("1 0.5 0.5 0.2 -0.4", "bbox must have no negative size"),
        ("7 0.5 0.5 0.2 0.4", "unknown category 7"),
        ("1" * 400 + " 0.5 0.5 0.2 0.4", "must have finite numbers"),
    ],
)
def test_a_bad_line_is_a_fault_of_its_image_alone(line, message, tmp_path):
    splits_of(tmp_path)
    (tmp_path / "labels/train/002.txt").write_text(LINE + line)
    source = opened(tmp_path)
    (fault,) = source.train.faults().items()
    assert fault[0] == 2
    assert str(tmp_path / "labels/train/002.txt") in fault[1]
    assert "line 2: " in fault[1]
    assert re.search(message, fault[1]), fault[1]
    assert len(fault[1]) < 400
    assert source.test.faults() == {}


@pytest.mark.parametrize("content", [b"\xff\xfe\x00\x01", b"\x00" * 100, b"1 0.5 0.5 0.2 0.4\xff"])
def test_other_files_are_faults(content, tmp_path):
    splits_of(tmp_path)
    (tmp_path / "labels/train/002.txt").write_bytes(content)
    assert list(opened(tmp_path).train.faults()) == [2]


def test_boxes_that_exceed_the_image_are_clipped_and_counted(tmp_path):
    splits_of(tmp_path, "1 0.95 0.5 0.2 0.4\n1 1.2 0.5 0.2 0.4\n")
    source = opened(tmp_path)
    assert box(source.train) == ([3, 17, 7, 20], 1)
    assert [note.split(", first")[0] for note in texts(source)] == [
        "clipped 18 boxes that exceed their image",
        "dropped 18 boxes without area inside their image",
    ]


def test_images_without_label_files_have_no_objects_and_are_counted(tmp_path):
    splits_of(tmp_path)
    (tmp_path / "labels/train/002.txt").unlink()
    (tmp_path / "labels/train/003.txt").write_text("")
    (tmp_path / "labels/val/stray.txt").write_text(LINE)
    (tmp_path / "README.roboflow.txt").write_text("hello")
    source = opened(tmp_path)
    for row in (2, 3):
        assert source.train[row]["present"]["boxes"]
        assert (source.train[row]["labels"]["boxes"]["classes"] == -1).all()
    assert [note.split(", first")[0] for note in texts(source)] == [
        "unmatched 1 label files without an image",
        "converted 1 images without a label file to images without objects",
    ]


def test_a_split_without_any_label_file_is_not_a_split_without_objects(tmp_path):
    splits_of(tmp_path)
    for file in (tmp_path / "labels/test").iterdir():
        file.unlink()
    source = opened(tmp_path, arguments=",test=0.4,validation=0.1")
    assert sizes(source)[0] + sizes(source)[2] == 6
    assert texts(source)[0] == (
        "dropped 6 images of the test split, none of which has a file with its labels"
    )
    for file in (tmp_path / "labels/train").iterdir():
        file.unlink()
    with pytest.raises(ValueError, match="no training image has a file with its labels"):
        opened(tmp_path)


def test_two_images_with_one_label_file_are_faults(tmp_path):
    splits_of(tmp_path)
    Image.new("RGB", (W, H)).save(tmp_path / "images/train/002.bmp")
    faults = opened(tmp_path).train.faults()
    assert len(faults) == 2
    assert all("have the same name" in fault for fault in faults.values())


def test_a_damaged_image_is_a_fault(tmp_path):
    splits_of(tmp_path)
    (tmp_path / "images/train/002.png").write_bytes(b"x")
    assert list(opened(tmp_path).train.faults()) == [2]


def test_masks_keypoints_and_classes(tmp_path):
    splits_of(tmp_path, "1 0.1 0.1 0.5 0.1 0.5 0.5 0.1 0.5\n")
    labels = opened(tmp_path, Segmentation(name="m"), MultiLabel(name="c")).train[0]["labels"]
    expected = np.zeros((H, W), int)
    expected[1:5, 2:10] = 2
    np.testing.assert_array_equal(labels["m"], expected)
    assert labels["c"].tolist() == [0, 1]
    (tmp_path / "labels/train/000.txt").write_text(LINE)
    faults = opened(tmp_path, Segmentation(name="m")).train.faults()
    assert "must have segmentation" in faults[0]


@pytest.mark.parametrize(
    ("width", "numbers", "expected"),
    [
        (3, "0.5 0.2 2 0.1 0.1 1 0 0 0", [[2, 10, 1], [1, 2, 1], [0, 0, 0]]),
        (2, "0.5 0.2 0.1 0.1 0 0", [[2, 10, 1], [1, 2, 1], [0, 0, 0]]),
    ],
)
def test_keypoints_follow_the_box(width, numbers, expected, tmp_path):
    config = f"names: [cat, dog]\nkpt_shape: [3, {width}]"
    splits_of(tmp_path, f"1 0.5 0.5 0.2 0.4 {numbers}\n", config)
    source = opened(tmp_path, Keypoints(name="k", num_keypoints=3), Detection(name="boxes"))
    np.testing.assert_allclose(source.train[0]["labels"]["k"], expected)
    assert box(source.train) == ([3, 8, 7, 12], 1)
    (tmp_path / "labels/train/000.txt").write_text(LINE)
    faults = opened(tmp_path, Keypoints(name="k", num_keypoints=3)).train.faults()
    assert f"requires {5 + 3 * width}" in faults[0]


def test_numbers_of_keypoints_and_polygons_do_not_mix(tmp_path):
    image, _ = read("1 0.5 0.5 0.2 0.4 0.5 0.2 0.1 0.1 0 0", tmp_path, Points(3, 2))
    assert "segmentation" not in image.annotations[0]
    image, _ = read("1 0.5 0.5 0.2 0.4 0.5 0.2 0.1 0.1 0 0", tmp_path)
    assert "keypoints" not in image.annotations[0]


def test_names_are_text_in_normal_form(tmp_path):
    (tmp_path / "data.yaml").write_text("names: {0: 'cafe\u0301 ', 1: 7}", encoding="utf-8")
    assert read_yolo_file(tmp_path / "data.yaml").names == ("café", "7")


@pytest.mark.parametrize("start", ["/content/set/", "C:\\set\\", "../", "../../set/", ""])
def test_lists_may_have_the_paths_of_another_computer(start, tmp_path):
    for name in ("cam_a", "cam_b"):
        write(tmp_path, f"images/{name}", f"labels/{name}", 6)
    for k, name in enumerate(("train", "valid", "test")):
        rows = range(2 * k, 2 * k + 2)
        lines = [f"{start}images/cam_{c}/{i:03}.png" for c in "ab" for i in rows]
        (tmp_path / f"{name}.txt").write_text("\n".join(lines))
    source = opened(tmp_path)
    places = [source.test.place(i).rpartition("/images/")[2] for i in range(4)]
    assert sizes(source) == [4, 4, 4]
    assert sorted(places) == [f"cam_{c}/{i:03}.png" for c in "ab" for i in (4, 5)]


def test_a_base_name_alone_is_not_matched_in_a_list(tmp_path):
    write(tmp_path, ".", ".", 6)
    for name in ("train", "valid"):
        (tmp_path / f"{name}.txt").write_text(f"/content/cam_a/00{len(name) - 5}.png")
    with pytest.raises(ValueError, match=r"'/content/cam_a/000.png' is outside of"):
        opened(tmp_path)
