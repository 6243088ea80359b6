"""Class folders: splits, subfolders, and what is ignored, counted or refused."""

import os
import unicodedata

import numpy as np
import pytest
from PIL import Image

from mtljax.data import make_source
from mtljax.data.base import LabelRequest
from mtljax.data.layouts import split_name
from mtljax.tasks import Classification, Regression


def write(root, *names):
    for i, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4), (i, i, i)).save(root / name)


def opened(root, arguments="", **fields):
    request = LabelRequest(Classification(name="kind", **fields), "class")
    return make_source(f"class_folders:'{root}'{arguments}", [request])


def classes(split):
    return sorted(int(split[i]["labels"]["kind"]) for i in range(len(split)))


def texts(source, kind):
    return [str(note).removeprefix("warning: ") for note in source.notes if note.kind == kind]


def names(source):
    return source.train.tasks[0].class_names


def cats_and_dogs(root, *splits, count=3):
    for split in splits:
        write(root, *(f"{split}/{c}/{i}.jpg" for c in ("cat", "dog") for i in range(count)))


@pytest.mark.parametrize(
    "splits", ["train val test", "Training VALID Testing", "train2017 dev test"]
)
def test_folders_of_splits_are_the_splits(splits, tmp_path):
    cats_and_dogs(tmp_path, *splits.split())
    source = opened(tmp_path)
    assert [classes(split) for split in source.splits().values()] == [[0, 0, 0, 1, 1, 1]] * 3
    assert names(source) == ("cat", "dog")
    assert source.notes == ()


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("training_set", "train"),
        ("Test2017", "test"),
        ("val-images", "validation"),
        ("images", None),
        ("train_val", None),
        ("trains", None),
        ("contest", None),
    ],
)
def test_names_of_splits(name, split):
    assert split_name(name) == split


@pytest.mark.parametrize("absent", ["test", "validation"])
def test_an_absent_split_is_cut_from_train_and_noted(absent, tmp_path):
    folders = {"train": 40, "validation": 5, "test": 5}
    for name, count in folders.items():
        if name != absent:
            cats_and_dogs(tmp_path, name, count=count)
    source = opened(tmp_path)
    sizes = {name: len(split) for name, split in source.splits().items()}
    cut = sizes[absent]
    assert 5 <= cut <= 30  # of 80, each with probability 0.2
    assert sizes == {"train": 80 - cut, "validation": 10, "test": 10} | {absent: cut}
    (note,) = texts(source, "converted")
    assert note.startswith(f"converted {cut} training images to the {absent} split")
    assert "20%" in note
    again = opened(tmp_path, f",{absent}=0.5")
    assert len(again.splits()[absent]) > cut


def test_only_train_gives_all_splits(tmp_path):
    cats_and_dogs(tmp_path, "train", count=30)
    source = opened(tmp_path)
    assert sum(len(split) for split in source.splits().values()) == 60
    assert all(len(split) for split in source.splits().values())
    assert len(texts(source, "converted")) == 2


def test_subfolders_of_a_class_belong_to_it(tmp_path):
    kinds = {"cat": ("persian", "siamese/white"), "dog": ("poodle", "setter")}
    write(tmp_path, *(f"{c}/{k}/{i}.png" for c in kinds for k in kinds[c] for i in range(9)))
    (tmp_path / "more").mkdir()
    write(tmp_path / "more", *(f"{i}.png" for i in range(5)))
    (tmp_path / "dog" / "linked").symlink_to(tmp_path / "more")
    (tmp_path / "more").rename(tmp_path / ".more")
    (tmp_path / "dog" / "linked").unlink()
    (tmp_path / "dog" / "linked").symlink_to(tmp_path / ".more")
    source = opened(tmp_path)
    found = [c for split in source.splits().values() for c in classes(split)]
    assert (found.count(0), found.count(1)) == (18, 23)


def test_a_link_to_a_parent_is_an_error(tmp_path):
    cats_and_dogs(tmp_path, "train", "val", "test")
    (tmp_path / "train" / "cat" / "loop").symlink_to(tmp_path / "train")
    with pytest.raises(ValueError, match="is a link to a folder that contains it"):
        opened(tmp_path)


def test_files_of_the_system_are_ignored_and_others_are_counted(tmp_path):
    cats_and_dogs(tmp_path, "train", "val", "test")
    write(tmp_path, "__MACOSX/train/cat/0.jpg", "train/cat/._0.jpg", "train/.cache/0.jpg")
    for name in (".DS_Store", "train/.DS_Store", "train/cat/Thumbs.db", "train/cat/desktop.ini"):
        (tmp_path / name).write_bytes(b"x")
    assert opened(tmp_path).notes == ()
    (tmp_path / "train/cat/list.txt").write_text("x")
    (tmp_path / "val/dog/a.heic").write_text("x")
    write(tmp_path, "train/stray.png")
    assert [note.split(", first")[0] for note in texts(opened(tmp_path), "dropped")] == [
        "dropped 1 images outside of the class folders",
        "dropped 1 files that are no images (.txt)",
        "dropped 1 files that are no images (.heic)",
    ]


def test_classes_that_are_not_in_every_split_are_warnings(tmp_path):
    cats_and_dogs(tmp_path, "train", "val", "test")
    write(tmp_path, "val/dogs/0.jpg", "train/owl/0.jpg", "test/owl/0.jpg")
    (tmp_path / "train/yak").mkdir()
    source = opened(tmp_path)
    assert names(source) == ("cat", "dog", "dogs", "owl", "yak")
    assert classes(source.validation) == [0, 0, 0, 1, 1, 1, 2]
    assert texts(source, "warning") == [
        f"classes without images in {tmp_path}: 'yak'",
        "classes without images in the test split: 'dogs'",
        "classes without training images: 'dogs'; did you mean 'dog'?",
        "classes without images in the validation split: 'owl'",
    ]


def test_a_folder_of_unlabelled_images_is_no_split(tmp_path):
    cats_and_dogs(tmp_path, "train", "val", count=20)
    write(tmp_path, *(f"test/{i}.jpg" for i in range(50)))  # as on Kaggle
    source = opened(tmp_path)
    assert len(source.train) + len(source.test) == 40
    assert [note.split(", ")[0] for note in map(str, source.notes)] == [
        "dropped 50 images outside of the class folders",
        "warning: the folder of the test split has no images in class folders",
        f"converted {len(source.test)} training images to the test split",
    ]


def test_classes_that_differ_in_case_are_a_warning(tmp_path):
    write(tmp_path, *(f"{s}/{c}/0.png" for s in ("train", "val", "test") for c in ("a", "A", "b")))
    (note,) = texts(opened(tmp_path), "warning")
    assert "'A' and 'a' are two classes; write them equally if they are one" in note


def test_class_names_are_equal_up_to_spaces(tmp_path):
    write(tmp_path, *(f"{s}/{c}/0.png" for s in ("train", "val", "test") for c in ("a b", "c")))
    assert classes(opened(tmp_path, class_names=("c", "a  b")).test) == [0, 1]


def test_many_absent_classes_are_one_warning(tmp_path):
    write(tmp_path, *(f"train/class{i}/0.png" for i in range(200)), "val/class0/0.png")
    (note,) = texts(opened(tmp_path), "warning")
    assert note.endswith(", ...")
    assert len(note) < 400


def test_names_are_in_normal_form_c_and_the_same_file_name_may_repeat(tmp_path):
    nfd = unicodedata.normalize("NFD", "chouette_é")
    for split, name in (("train", nfd), ("val", "chouette_é"), ("test", nfd)):
        write(tmp_path, f"{split}/{name}/0.png", f"{split}/aigle/0.png")
    source = opened(tmp_path)
    assert names(source) == ("aigle", "chouette_é")
    assert classes(source.test) == [0, 1]
    write(tmp_path, "train/chouette_é/1.png")
    with pytest.raises(ValueError, match="differ in white space or Unicode form"):
        opened(tmp_path)


def test_names_that_are_not_utf_8_are_named_in_escapes(tmp_path):
    cats_and_dogs(tmp_path, "train", "test")
    folder = os.fsencode(tmp_path / "train/cat")
    os.rename(folder + b"/1.jpg", folder + b"/caf\xe9.jpg")
    source = opened(tmp_path, ",validation=0.3")
    (fault,) = [fault for s in source.splits().values() for fault in s.faults().values()]
    assert "the name is not in UTF-8; rename the file" in fault
    assert fault.isascii()
    os.rename(folder, folder + b"\xe9")
    with pytest.raises(ValueError, match="whose name is not in UTF-8") as error:
        opened(tmp_path)
    assert str(error.value).isascii()


def test_folders_that_are_numbers_are_names(tmp_path):
    write(tmp_path, *(f"{s}/{n}/0.png" for s in ("train", "val", "test") for n in ("2", "10", "3")))
    source = opened(tmp_path, class_names=("2", "3", "10"))
    value = lambda i: source.train[i]["image"][0, 0, 0]
    by_name = {name: i for i, name in enumerate(("2", "10", "3"))}  # the gray level in `write`
    found = {int(value(i)): int(source.train[i]["labels"]["kind"]) for i in range(3)}
    assert found == {by_name["2"]: 0, by_name["3"]: 1, by_name["10"]: 2}
    assert names(opened(tmp_path)) == ("10", "2", "3")


def test_class_names_select_folders(tmp_path):
    write(tmp_path, *(f"{s}/{c}/0.png" for s in ("train", "val", "test") for c in ("a", "b", "c")))
    source = opened(tmp_path, class_names=("c", "a"))
    assert classes(source.test) == [0, 1]
    (note,) = texts(source, "dropped")
    assert note.startswith("dropped 3 images of folder 'b', which is not in class_names")
    with pytest.raises(ValueError, match="no folder 'd', which is in class_names"):
        opened(tmp_path, class_names=("a", "d"))
    with pytest.raises(ValueError, match="num_classes=2, but the data has 3 classes: a, b, c"):
        opened(tmp_path, num_classes=2)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["cat/train/0.png", "cat/val/0.png", "dog/train/0.png"], "contains the splits train, val"),
        (["train/a/0.png", "eval/a/0.png"], "'eval' is not the name of a split"),
        (["train/a/0.png", "training/b/0.png"], "two folders for the train split"),
        (["val/a/0.png", "test/b/0.png"], "none of 2 images is in the train split, only"),
        (["0.png", "1.png"], "has no folders; expected CLASS/"),
        (["a/train/b/0.png", "a/val/b/0.png", "a/test/b/0.png"], "; write class_folders:.*/a$"),
        (["photos/a/0.png", "photos/b/0.png"], "one class only, in the folder photos; .*/photos$"),
        (["images/0.png", "labels/0.txt"], "one class only, in the folder images"),
        (["a/b.txt", "c/d.txt"], "has no images in folders of classes"),
    ],
)
def test_other_layouts_are_refused_with_what_is_expected(files, message, tmp_path):
    write(tmp_path, *(name for name in files if name.endswith("png")))
    for name in files:
        if name.endswith("txt"):
            (tmp_path / name).parent.mkdir()
            (tmp_path / name).write_text("x")
    with pytest.raises(ValueError, match=message) as error:
        opened(tmp_path)
    assert "\n" not in str(error.value)


def test_a_split_repeated_by_an_archive_is_one_folder(tmp_path):
    cats_and_dogs(
        tmp_path, "seg_train/seg_train".replace("seg_", "set_"), "test_set/test_set", "val"
    )
    assert classes(opened(tmp_path).test) == [0, 0, 0, 1, 1, 1]


def test_a_single_classification_task_may_have_any_name(tmp_path):
    cats_and_dogs(tmp_path, "train", "val", "test")
    kind, age = Classification(name="kind"), Regression(name="age")
    source = make_source(f"class_folders:{tmp_path}", [LabelRequest(kind, "kind")])
    assert classes(source.test) == [0, 0, 0, 1, 1, 1]
    for requests in ([(age, "age")], [(kind, "kind"), (age, "class")], [(kind, "species")]):
        with pytest.raises(ValueError, match="source class_folders has no labels"):
            make_source(f"class_folders:{tmp_path}", [LabelRequest(*r) for r in requests])


def test_a_class_may_be_called_train(tmp_path):
    write(tmp_path, *(f"{c}/{i}.png" for c in ("train", "car", "bus") for i in range(20)))
    source = opened(tmp_path)
    assert names(source) == ("bus", "car", "train")
    assert sum(len(split) for split in source.splits().values()) == 60
    assert np.unique(classes(source.train)).tolist() == [0, 1, 2]
