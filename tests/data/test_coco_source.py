"""COCO files instead of a table: layouts, kinds of labels, and what is dropped or wrong."""

import json
import warnings

import numpy as np
import pytest
from PIL import Image

from mtljax.data import make_source
from mtljax.data.annotations.coco import read_coco
from mtljax.data.annotations.labels import read_labels, with_categories
from mtljax.data.base import LabelRequest
from mtljax.data.notes import NoteCounter
from mtljax.tasks import Classification, Detection, Keypoints, MultiLabel, Segmentation

H, W = 10, 20
CATEGORIES = ({"id": 1, "name": "cat"}, {"id": 7, "name": "dog"}, {"id": 3, "name": "owl"})


def coco(count=6, annotate=None, categories=CATEGORIES, name="{:03}.png"):
    """A COCO file with one box in each image, of the categories in turn."""
    annotate = annotate or (lambda i: [{"bbox": [i % 5, 2, 5, 5]}])
    return {
        "images": [
            {"id": i, "file_name": name.format(i), "height": H, "width": W} for i in range(count)
        ],
        "annotations": [
            {"id": 10 * i + j, "image_id": i, "category_id": (1, 7, 3)[i % 3], **annotation}
            for i in range(count)
            for j, annotation in enumerate(annotate(i))
        ],
        "categories": list(categories),
    }


def write_images(folder, count=6):
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        Image.new("RGB", (W, H), (i, 0, 0)).save(folder / f"{i:03}.png")


def write(root, images, file, content):
    write_images(root / images)
    (root / file).parent.mkdir(parents=True, exist_ok=True)
    (root / file).write_text(json.dumps(content))


def opened(root, *tasks, arguments="", **keys):
    requests = [LabelRequest(task, keys.get(task.name, task.name)) for task in tasks]
    return make_source(f"coco:'{root}'{arguments}", requests)


def texts(source):
    return [str(note).removeprefix("warning: ") for note in source.notes]


def first_box(split, i=0):
    label = split[i]["labels"]["boxes"]
    return label["boxes"][0].tolist(), int(label["classes"][0])


LAYOUTS = {
    "published": [
        (f"{name}2017", f"annotations/instances_{name}2017.json")
        for name in ("train", "val", "test")
    ],
    "published, in images": [
        (f"images/{name}2017", f"annotations/instances_{name}2017.json")
        for name in ("train", "val", "test")
    ],
    "roboflow": [(name, f"{name}/_annotations.coco.json") for name in ("train", "valid", "test")],
    "by split": [(f"{name}/images", f"{name}/labels.json") for name in ("train", "val", "test")],
    "one folder": [("images", f"annotations/{name}.json") for name in ("train", "val", "test")],
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_with_splits(layout, tmp_path):
    for k, (images, file) in enumerate(LAYOUTS[layout]):
        shared = images == "images"
        content = coco(2 if shared else 6)
        if shared:
            for image in content["images"]:
                image["file_name"] = f"{2 * k + image['id']:03}.png"
        write(tmp_path, images, file, content)
    source = opened(tmp_path, Detection(name="boxes"))
    assert [len(split) for split in source.splits().values()] == [2 if shared else 6] * 3
    assert first_box(source.validation, 1) == ([2, 1, 7, 6], 2)  # dog, after owl by its id
    assert source.train.tasks[0].class_names == ("cat", "owl", "dog")
    assert source.notes == ()


@pytest.mark.parametrize("images", [".", "images", "pictures"])
def test_one_file_is_split_by_a_hash(images, tmp_path):
    write(tmp_path, images, "boxes.json", coco(40))
    write_images(tmp_path / images, 40)
    argument = ",images=pictures" if images == "pictures" else ""
    source = opened(tmp_path, Detection(name="boxes"), arguments=argument)
    assert sum(len(split) for split in source.splits().values()) == 40
    again = opened(tmp_path / "boxes.json", Detection(name="boxes"), arguments=argument)
    assert [len(s) for s in again.splits().values()] == [len(s) for s in source.splits().values()]


def test_a_coco_file_is_no_table_and_the_source_is_named(tmp_path):
    write(tmp_path, "images", "boxes.json", coco(6))
    with pytest.raises(ValueError, match="a COCO file is read by coco:PATH/boxes.json"):
        make_source(
            f"folder:'{tmp_path}',table=boxes.json", [LabelRequest(Detection(name="b"), "b")]
        )


def test_a_folder_without_a_table_is_that_of_its_coco_file(tmp_path):
    write(tmp_path, "images", "boxes.json", coco(40))
    write_images(tmp_path / "images", 40)
    ours = make_source(f"folder:'{tmp_path}'", [LabelRequest(Detection(name="b"), "boxes.json")])
    theirs = opened(tmp_path, Detection(name="b"))
    assert [s.examples.images for s in ours.splits().values()] == [
        s.examples.images for s in theirs.splits().values()
    ]


@pytest.mark.parametrize(
    "name", ["{:03}.png", "images/{:03}.png", "data\\images\\{:03}.png", "/home/me/{:03}.png"]
)
def test_images_are_found_by_path_or_unique_name(name, tmp_path):
    write(tmp_path, "images", "boxes.json", coco(40, name=name))
    write_images(tmp_path / "images", 40)
    assert first_box(opened(tmp_path, Detection(name="boxes")).train)[1] in (0, 1, 2)


def test_images_that_exist_nowhere_are_one_error(tmp_path):
    write(tmp_path, "images", "boxes.json", coco(6, name="x{}.png"))
    with pytest.raises(ValueError, match="none of its images exists, such as x0.png, in"):
        opened(tmp_path, Detection(name="boxes"))


def splits_of(root, annotate=None, categories=CATEGORIES, prefix="instances"):
    for name in ("train", "val", "test"):
        content = coco(6, annotate, categories)
        write(root, name, f"annotations/{prefix}_{name}.json", content)


def test_some_categories_are_requested_and_the_others_counted(tmp_path):
    splits_of(tmp_path)
    source = opened(tmp_path, Detection(name="boxes", class_names=("dog", "cat")))
    assert first_box(source.train, 0)[1] == 1
    assert first_box(source.train, 1)[1] == 0
    assert (source.train[2]["labels"]["boxes"]["classes"] == -1).all()
    assert source.train[2]["present"]["boxes"]
    assert texts(source)[0].startswith("dropped 6 boxes of category 'owl'")
    with pytest.raises(ValueError, match="no category 'dgo', which is in class_names.*'dog'"):
        opened(tmp_path, Detection(name="boxes", class_names=("dgo", "cat")))
    with pytest.raises(
        ValueError, match="num_classes=2, but the data has 3 classes: cat, owl, dog"
    ):
        opened(tmp_path, Detection(name="boxes", num_classes=2))


def test_each_kind_of_task_reads_its_label(tmp_path):
    square = [[3, 2, 8, 2, 8, 7, 3, 7]]
    splits_of(tmp_path, lambda i: [{"bbox": [3, 2, 5, 5], "segmentation": square}])
    points = [{"bbox": [3, 2, 5, 5], "keypoints": [4, 5, 2, 6, 3, 1, 0, 0, 0]}]
    kinds = [{**category, "keypoints": ["a", "b", "c"]} for category in CATEGORIES]
    splits_of(tmp_path, lambda i: points, kinds, "person_keypoints")
    tasks = (
        Detection(name="boxes"),
        Segmentation(name="m"),
        MultiLabel(name="c"),
        Keypoints(name="k", num_keypoints=3),
    )
    source = opened(tmp_path, *tasks)
    labels = source.train[1]["labels"]
    expected = np.zeros((H, W), int)
    expected[2:7, 3:8] = 3
    np.testing.assert_array_equal(labels["m"], expected)
    assert source.train.tasks[1].class_names == ("background", "cat", "owl", "dog")
    assert labels["c"].tolist() == [0, 0, 1]
    assert labels["k"].tolist() == [[5, 4, 1], [3, 6, 1], [0, 0, 0]]
    assert source.notes == ()
    with pytest.raises(ValueError, match="no label for task 'x', a Classification; it has boxes"):
        opened(tmp_path, Classification(name="x", num_classes=3))
    with pytest.raises(
        ValueError, match="3 keypoints per object, but task 'k' has num_keypoints=2"
    ):
        opened(tmp_path, Keypoints(name="k", num_keypoints=2))
    with pytest.raises(ValueError, match="no .json file that starts with 'person_boxes'"):
        opened(tmp_path, tasks[0], boxes="person_boxes")
    assert len(opened(tmp_path, tasks[0], boxes="person_keypoints").train) == 6


def labels_of(tmp_path, task, content):
    path, notes = tmp_path / "c.json", NoteCounter()
    path.write_text(json.dumps(content))
    file = read_coco(path, notes)
    labels = read_labels(file, with_categories(task, file.class_names, path)[0], notes)
    return labels, [str(note) for note in notes.notes()]


@pytest.mark.parametrize("order", ["yx", "xy"])
@pytest.mark.parametrize(
    ("annotations", "label"),
    [
        ([{"keypoints": [1, 2, 2]}], [[2, 1, 1]]),
        ([{"keypoints": [1, 2, 1]}], [[2, 1, 1]]),
        ([{"keypoints": [1, 2, 2]}, {"keypoints": [5, 6, 2]}], "several objects"),
        ([{"keypoints": [1, 2, 2]}, {"bbox": [1, 2, 3, 4]}], "several objects"),
        ([{"keypoints": [1, 2, 2], "iscrowd": 1}], "several objects"),
        ([{"keypoints": [0, 0, 0]}], "objects without a labeled point"),
        ([{"bbox": [1, 2, 3, 4]}], "no object"),
        ([], "no object"),
    ],
)
def test_points_are_those_of_a_single_object(annotations, label, order, tmp_path):
    content = coco(1, lambda i: annotations)
    task = Keypoints(name="k", num_keypoints=1, order=order)
    labels, notes = labels_of(tmp_path, task, content)
    value = labels.values["000.png"]
    if isinstance(label, str):
        assert value is None
        assert label in notes[0]
        assert notes[0].startswith("missing 1 labels: ")
    else:
        assert task.parse(value).tolist() == label


def mask_of(tmp_path, *annotations, task=None):
    task = task or Segmentation(name="m")
    labels, notes = labels_of(tmp_path, task, coco(1, lambda i: annotations))
    assert not labels.faults
    return labels.values["000.png"].read(), notes


def test_masks_of_polygons_and_run_lengths_are_those_of_pycocotools(tmp_path):
    from pycocotools import mask

    inside = np.random.default_rng(0).random((H, W)) < 0.4
    runs = mask.encode(np.asfortranarray(inside.astype(np.uint8)))
    flat, changes = inside.T.ravel(), [0]
    for i in range(flat.size):
        changes += [1] if i and flat[i] != flat[i - 1] else []
        changes[-1] += not (i and flat[i] != flat[i - 1])
    counts = [0, *changes] if flat[0] else changes
    for stored in (runs["counts"].decode(), counts):
        found, _ = mask_of(tmp_path, {"segmentation": {"size": [H, W], "counts": stored}})
        np.testing.assert_array_equal(found, inside)
    star = [[2, 1, 17.5, 3, 9, 9.2], [1, 8, 3, 8, 2, 9.5]]
    with warnings.catch_warnings(action="ignore"):  # of pycocotools with NumPy 2
        expected = mask.decode(mask.merge(mask.frPyObjects(star, H, W)))
    np.testing.assert_array_equal(mask_of(tmp_path, {"segmentation": star})[0], expected)


def square(x0, y0, x1, y1):
    return [[x0, y0, x1, y0, x1, y1, x0, y1]]


def test_pixels_of_a_crowd_and_of_two_classes_have_no_class(tmp_path):
    found, notes = mask_of(
        tmp_path,
        {"segmentation": square(0, 0, 6, 6)},
        {"segmentation": square(3, 3, 9, 9), "category_id": 3},
        {"segmentation": square(5, 0, 6, 1), "iscrowd": 1},
        {"segmentation": square(0, 0, 2, 2)},
    )
    expected = np.zeros((H, W), int)
    expected[:6, :6], expected[3:9, 3:9], expected[3:6, 3:6], expected[0, 5] = 1, 2, 255, 255
    np.testing.assert_array_equal(found, expected)
    assert notes[0].startswith("converted 1 crowd regions (iscrowd = 1) to pixels without a class")


def test_without_a_background_class_other_pixels_have_no_class(tmp_path):
    task = Segmentation(name="m", class_names=("dog", "cat"))
    found, notes = mask_of(tmp_path, {"segmentation": square(0, 0, 2, 2)}, task=task)
    assert np.unique(found).tolist() == [1, 255]
    assert "pixels of no object have no class" in notes[0]


def test_polygons_are_clipped_and_counted(tmp_path):
    found, notes = mask_of(tmp_path, {"segmentation": square(W - 2, -3, W + 5, 2)})
    expected = np.zeros((H, W), int)
    expected[:2, W - 2 :] = 1
    np.testing.assert_array_equal(found, expected)
    assert notes[0].startswith("clipped 1 polygons that exceed their image")


@pytest.mark.parametrize(
    ("other", "fault"),
    [
        ([{"bbox": [1, 1, 5, 5]}], None),
        ([{"bbox": [1, 1, 5, 6]}], "two entries, with the ids 3 and 99"),
        ([], "two entries, with the ids 3 and 99"),
        ([{"bbox": [1, 1, 5, 5]}] * 2, "two entries, with the ids 3 and 99"),
    ],
)
def test_an_image_listed_twice_is_one_if_its_annotations_are_equal(other, fault, tmp_path):
    content = coco(6, lambda i: [{"bbox": [1, 1, 5, 5], "category_id": 1}])
    content["images"].append({"id": 99, "file_name": ".\\003.png", "height": H, "width": W})
    content["annotations"] += [{"id": 1, "image_id": 99, "category_id": 1, **a} for a in other]
    labels, notes = labels_of(tmp_path, Detection(name="boxes"), content)
    if fault is None:
        assert not labels.faults
        assert "repeated entries of an image" in notes[0]
        assert labels.values["003.png"]["boxes"].tolist() == [[1, 1, 6, 6]]
    else:
        assert list(labels.faults) == ["003.png"]
        assert fault in labels.faults["003.png"]
        assert len(labels.values) == 5


@pytest.mark.parametrize(
    ("annotation", "fault"),
    [
        ({"bbox": [1, 2, float("nan"), 3]}, "bbox must have finite numbers only"),
        ({"bbox": [1, 2, float("inf"), 3]}, "bbox must have finite numbers only"),
        ({"bbox": [1, 2, 10**400, 3]}, "bbox must have finite numbers only"),
        ({"bbox": [1, 2, "x", 3]}, "bbox must have finite numbers only"),
        ({"bbox": [1, 2, True, 3]}, "bbox must have finite numbers only"),
        ({"bbox": [1, 2, -5, 3]}, "no negative size"),
        ({"bbox": [1, 2, 3]}, "must have bbox"),
        ({"bbox": {"x": 1}}, "must have bbox"),
        ({"bbox": None}, "must have bbox"),
        ({}, "must have bbox"),
        ({"bbox": [1, 2, 3, 4], "category_id": 5}, "unknown category 5"),
        ({"bbox": [1, 2, 3, 4], "category_id": [1]}, "unknown category"),
    ],
)
def test_a_bad_annotation_is_a_fault_of_its_image_alone(annotation, fault, tmp_path):
    good = {"bbox": [1, 2, 3, 4]}
    content = coco(3, lambda i: [good, annotation] if i == 1 else [good])
    labels, _ = labels_of(tmp_path, Detection(name="boxes"), content)
    assert set(labels.values) == {"000.png", "002.png"}
    assert fault in labels.faults["001.png"]
    assert "image 001.png: annotation 11" in labels.faults["001.png"]


@pytest.mark.parametrize(
    "segmentation",
    [
        None,
        [],
        [[1, 2, 3, 4]],
        [[1, 2, 3, 4, 5, float("nan")]],
        "x",
        {"counts": [5, 5]},
        {"counts": [-1, 201]},
        {"counts": "~~~"},
        {"counts": "P" * 500},
        {"counts": None},
    ],
)
def test_a_bad_mask_is_a_fault_of_its_image_alone(segmentation, tmp_path):
    content = coco(2, lambda i: [{"segmentation": segmentation if i else square(1, 1, 3, 3)}])
    labels, _ = labels_of(tmp_path, Segmentation(name="m"), content)
    assert list(labels.values) == ["000.png"]
    assert list(labels.faults) == ["001.png"]


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c["annotations"].extend([None, 7, [], {"image_id": 77}, {"image_id": []}]),
        lambda c: c["images"].extend([None, {"id": 77}, {"id": [], "file_name": "x"}]),
    ],
)
def test_entries_that_belong_to_no_image_are_counted(change, tmp_path):
    content = coco(3)
    change(content)
    labels, notes = labels_of(tmp_path, Detection(name="boxes"), content)
    assert len(labels.values) == 3
    assert len(notes) == 1
    assert notes[0].startswith(f"dropped {5 if len(content['images']) == 3 else 3} ")


@pytest.mark.parametrize("side", [None, 0, -3, "x", 2.5, float("nan"), 10**30])
def test_an_image_without_a_size_is_a_fault(side, tmp_path):
    content = coco(3)
    content["images"][1]["height"] = side
    labels, _ = labels_of(tmp_path, Detection(name="boxes"), content)
    assert "must have height and width" in labels.faults["001.png"]
    assert len(labels.values) == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is not a COCO file"),
        ("[]", "has no list 'images'"),
        ("[" * 100_000, "is not a COCO file"),
        ('{"images": {}, "annotations": [], "categories": []}', "has no list 'images'"),
        ('{"images": [], "annotations": [], "categories": [1]}', "category 0: must have an id"),
        (
            '{"images": [], "categories": [], "annotations": [{"image_id": 1}]}',
            "no annotation has the id of an image",
        ),
        (
            '{"images": [], "annotations": [], "categories": '
            '[{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]}',
            "two categories have the id 1",
        ),
    ],
)
def test_another_file_is_one_line(text, message, tmp_path):
    (tmp_path / "c.json").write_text(text)
    with pytest.raises(ValueError, match=message) as error:
        read_coco(tmp_path / "c.json", NoteCounter())
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 300


def test_boxes_in_fractions_of_the_image_are_an_error(tmp_path):
    with pytest.raises(ValueError, match="coordinates must be in pixels, not fractions"):
        labels_of(
            tmp_path, Detection(name="boxes"), coco(3, lambda i: [{"bbox": [0.2, 0.1, 0.5, 0.6]}])
        )
    labels_of(tmp_path, Detection(name="boxes"), coco(3, lambda i: [{"bbox": [0, 0, 1, 1]}]))


@pytest.mark.parametrize("is_used", [False, True])
def test_a_category_that_only_groups_others_is_no_class(is_used, tmp_path):
    categories = [
        {"id": 0, "name": "pets", "supercategory": "none"},
        *({**category, "supercategory": "pets"} for category in CATEGORIES),
        {"id": 9, "name": "person", "supercategory": "person"},
    ]
    annotate = lambda i: [{"bbox": [1, 1, 5, 5]}, {"bbox": [1, 1, 2, 2], "category_id": 0}]
    splits_of(tmp_path, annotate if is_used else None, categories)
    source = opened(tmp_path, Detection(name="boxes"))
    names = ("cat", "owl", "dog", "person")
    assert source.train.tasks[0].class_names == (("pets", *names) if is_used else names)
    expected = "dropped 3 categories without annotations that only group others: 'pets'"
    assert [text.split(", first")[0] for text in texts(source)] == [expected] * (not is_used)


def test_a_byte_order_mark_is_accepted(tmp_path):
    (tmp_path / "c.json").write_text(json.dumps(coco(3)), encoding="utf-8-sig")
    assert len(read_coco(tmp_path / "c.json", NoteCounter()).images) == 3


def test_categories_with_one_name_are_one_class(tmp_path):
    content = coco(3, categories=[{"id": i, "name": n} for i, n in ((1, "a"), (3, "a"), (7, "b"))])
    labels, notes = labels_of(tmp_path, Detection(name="boxes"), content)
    assert [labels.values[f"00{i}.png"]["classes"] for i in range(3)] == [["a"], ["b"], ["a"]]
    assert "2 categories have the name 'a' and are one class" in notes[0]


@pytest.mark.parametrize("annotations", [[], None])
def test_a_file_without_annotations_is_no_data_without_objects(annotations, tmp_path):
    splits_of(tmp_path)
    file = tmp_path / "annotations/instances_test.json"
    content = {**coco(6), "annotations": annotations}
    if annotations is None:
        del content["annotations"]  # as image_info_test2017.json
    file.write_text(json.dumps(content))
    source = opened(tmp_path, Detection(name="boxes"), arguments=",test=0.4")
    assert len(source.train) + len(source.test) == 6
    assert texts(source)[0].startswith("dropped 6 images of instances_test.json, which has no")
    for name in ("train", "val"):
        (tmp_path / f"annotations/instances_{name}.json").unlink()
    with pytest.raises(ValueError, match="no annotations in annotations/instances_test.json"):
        opened(tmp_path, Detection(name="boxes"))


def test_many_other_categories_are_one_note(tmp_path):
    categories = [{"id": i, "name": f"class{i}"} for i in range(80)]
    every = lambda i: [{"bbox": [1, 1, 2, 2], "category_id": c} for c in range(80)]
    splits_of(tmp_path, every, categories)
    source = opened(tmp_path, Detection(name="boxes", class_names=("class7", "class9")))
    (note,) = texts(source)
    assert note.startswith(
        f"dropped {3 * 6 * 78} boxes of 78 categories that are not in class_names"
    )


@pytest.mark.parametrize("name", ["x" * 300, "a\u0000.png", "a\n.png", "d/" * 3 + "\x1b.png"])
def test_names_that_no_file_can_have_are_counted(name, tmp_path):
    content = coco(6)
    content["images"].append({"id": 99, "file_name": name, "height": H, "width": W})
    write(tmp_path, "images", "boxes.json", content)
    write_images(tmp_path / "images", 6)
    source = opened(tmp_path, Detection(name="boxes"))
    assert "dropped 1 image entries whose file_name cannot be" in texts(source)[0]
    assert all(len(text) < 500 and text.isprintable() for text in texts(source))


def test_names_are_equal_up_to_spaces_and_normal_form(tmp_path):
    splits_of(
        tmp_path,
        categories=[
            {"id": 1, "name": "traffic  light "},
            {"id": 7, "name": "cafe\u0301"},
            {"id": 3, "name": "owl"},
        ],
    )
    names = ("caf\u00e9", "traffic light", "owl")
    source = opened(tmp_path, Detection(name="boxes", class_names=names))
    assert [first_box(source.train, i)[1] for i in range(3)] == [1, 0, 2]


def test_an_image_in_two_splits_is_an_error(tmp_path):
    for name in ("train", "val"):
        write(tmp_path, "images", f"annotations/{name}.json", coco(6))
    with pytest.raises(ValueError, match="images/000.png is in the train and the validation split"):
        opened(tmp_path, Detection(name="boxes"))


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["a.json", "b.json"], "several COCO files .a.json, b.json.; select"),
        (["instances.json", "instances_train.json"], "are both for task 'boxes'"),
        (["train.json", "training.json"], "are both for task 'boxes'"),
        ([], "has no COCO file"),
    ],
)
def test_ambiguous_files_are_an_error(files, message, tmp_path):
    write_images(tmp_path / "images")
    for file in files:
        write(tmp_path, "images", file, coco(6))
    with pytest.raises(ValueError, match=message):
        opened(tmp_path, Detection(name="boxes"))


def corners(shift):
    """Boxes as x0, y0, x1, y1, in the right and lower part of the image."""
    return lambda i: [{"bbox": [9 + i % 3, 4, 18, min(H, 9 + shift)]}]


@pytest.mark.parametrize("shift", [0, 1])
def test_boxes_that_can_only_be_corners_are_an_error(shift, tmp_path):
    write(tmp_path, "images", "a.json", coco(annotate=corners(shift)))
    with pytest.raises(ValueError, match="6 of 6 boxes exceed their image, but none does as x0"):
        opened(tmp_path, Detection(name="boxes"))


@pytest.mark.parametrize(
    "other",
    [
        lambda i: [{"bbox": [9, 4, 5, 5]}],  # x1 < x0
        lambda i: [{"bbox": [1, 1, 8, 8]}] * 7,  # in most images, both readings are possible
    ],
)
def test_boxes_of_which_some_are_sizes_are_only_clipped(other, tmp_path):
    annotate = lambda i: corners(0)(i) if i else other(i)
    write(tmp_path, "images", "a.json", coco(annotate=annotate))
    source = opened(tmp_path, Detection(name="boxes"))
    assert any(text.startswith("clipped 5 boxes that exceed") for text in texts(source))


def test_the_order_of_few_boxes_is_not_judged(tmp_path):
    write(tmp_path, "images", "a.json", coco(4, annotate=corners(0)))
    assert any("clipped 4 boxes" in text for text in texts(opened(tmp_path, Detection(name="b"))))


@pytest.mark.parametrize("start", ["/data/set", "C:\\set", "..", "../../x", "\\\\server\\set"])
def test_names_of_another_computer_are_matched_by_folders_too(start, tmp_path):
    content = coco(6, name=start + "/cam_a/{:03}.png")
    other = coco(6, lambda i: [{"bbox": [9, 1, 4, 4]}], name=start + "/cam_b/{:03}.png")
    for image in other["images"]:
        image["id"] += 100
    for annotation in other["annotations"]:
        annotation["image_id"] += 100
        annotation["id"] += 1000
    for part in ("images", "annotations"):
        content[part] += other[part]
    write(tmp_path, "images", "boxes.json", content)
    with pytest.raises(ValueError, match="none of its images exists"):
        opened(tmp_path, Detection(name="boxes"))
    for name in ("cam_a", "cam_b"):
        write_images(tmp_path / "images" / name)
    source = opened(tmp_path, Detection(name="boxes"))
    found = {
        split.place(i).rpartition("/images/")[2]: first_box(split, i)[0]
        for split in source.splits().values()
        for i in range(len(split))
    }
    assert len(found) == 12
    assert found["cam_a/002.png"] == [2, 2, 7, 7]
    assert found["cam_b/002.png"] == [1, 9, 5, 13]


def test_two_names_of_one_file_are_an_error(tmp_path):
    content = coco(2, name="/x{}/cam_a/000.png")
    write(tmp_path, "images/cam_a", "boxes.json", content)
    with pytest.raises(ValueError, match=r"/x0/cam_a/000.png and /x1/cam_a/000.png are the same"):
        opened(tmp_path, Detection(name="boxes"))
