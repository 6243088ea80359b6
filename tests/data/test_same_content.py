"""The same images and labels in every format give the same training arrays."""

import json

import jax
import numpy as np
import pytest
from PIL import Image

from mtljax.data import make_source
from mtljax.data.base import LabelRequest
from mtljax.tasks import Classification, Detection, Keypoints, MultiLabel, Segmentation

H, W = 16, 32  # powers of 2: fractions of them are exact
NAMES = ("cat", "dog", "owl")
SPLITS = ("train", "val", "test")
TASKS = {
    "boxes": Detection(name="boxes", class_names=NAMES, most=4),
    "masks": Segmentation(name="masks", class_names=("background", *NAMES)),
    "classes": MultiLabel(name="classes", class_names=NAMES),
    "keypoints": Keypoints(name="keypoints", num_keypoints=2, order="xy"),
    "kind": Classification(name="kind", class_names=NAMES),
}


def contents():
    """Yields (split, name, pixels, objects): up to two objects (class, x0, y0, x1, y1) apart."""
    rng = np.random.default_rng(0)
    for split in SPLITS:
        for i in range(6):
            objects = []
            for left in (0, W // 2)[: i % 3]:
                x0, y0 = left + int(rng.integers(0, 8)), int(rng.integers(0, 8))
                x1, y1 = x0 + int(rng.integers(2, 8)), y0 + int(rng.integers(2, 8))
                objects.append((int(rng.integers(3)), x0, y0, x1, y1))
            pixels = rng.integers(0, 256, (H, W, 3), dtype=np.uint8)
            yield split, f"{split}_{i}", pixels, objects


def points_of(x0, y0, x1, y1):
    """Two points of an object, the second one not labelled if it is low."""
    return [x0 + 0.5, y0 + 0.25, 2, *((x1 - 0.5, y1 - 0.75, 1) if y0 < 6 else (0, 0, 0))]


def mask_of(objects):
    mask = np.zeros((H, W), np.uint8)
    for kind, x0, y0, x1, y1 in objects:
        mask[y0:y1, x0:x1] = kind + 1
    return mask


def save(pixels, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def as_table(root):
    """A table with all labels but boxes, which are in a COCO file beside it."""
    lines = ["image,masks,cat,dog,owl,keypoints,kind,split"]
    for split, name, pixels, objects in contents():
        save(pixels, root / "images" / f"{name}.png")
        save(mask_of(objects), root / "masks" / f"{name}.png")
        present = ",".join(str(int(any(i == kind for kind, *_ in objects))) for i in range(3))
        points = points_of(*objects[0][1:]) if len(objects) == 1 else []
        points = " ".join(str(min(p, 1) if i % 3 == 2 else p) for i, p in enumerate(points))
        kind = NAMES[objects[0][0]] if objects else ""
        lines.append(f"{name}.png,masks/{name}.png,{present},{points},{kind},{split}")
    (root / "labels.csv").write_text("\n".join(lines))
    (root / "boxes.json").write_text(json.dumps(coco_of(SPLITS)))
    return f"folder:'{root}'", {"boxes": "boxes.json", "classes": "cat,dog,owl"}


def coco_of(splits, *, with_points=False):
    images, annotations = [], []
    for split, name, _, objects in contents():
        if split not in splits:
            continue
        images.append({"id": len(images), "file_name": f"{name}.png", "height": H, "width": W})
        for kind, x0, y0, x1, y1 in objects:
            annotations.append(
                {
                    "id": len(annotations),
                    "image_id": images[-1]["id"],
                    "category_id": 10 * kind,
                    "bbox": [x0, y0, x1 - x0, y1 - y0],
                    "segmentation": [[x0, y0, x1, y0, x1, y1, x0, y1]],
                }
                | ({"keypoints": points_of(x0, y0, x1, y1)} if with_points else {})
            )
    categories = [{"id": 10 * i, "name": name} for i, name in enumerate(NAMES)]
    return {"images": images, "annotations": annotations, "categories": categories}


def as_coco(root):
    for split, name, pixels, _ in contents():
        save(pixels, root / split / f"{name}.png")
    for split in SPLITS:
        file = root / "annotations" / f"instances_{split}.json"
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(coco_of([split], with_points=True)))
    return f"coco:'{root}'", {}


def as_voc(root):
    for split, name, pixels, objects in contents():
        save(pixels, root / "JPEGImages" / f"{name}.png")
        save(mask_of(objects), root / "SegmentationClass" / f"{name}.png")
        text = f"<annotation><size><width>{W}</width><height>{H}</height></size>"
        for kind, x0, y0, x1, y1 in objects:
            box = f"<xmin>{x0 + 1}</xmin><ymin>{y0 + 1}</ymin><xmax>{x1}</xmax><ymax>{y1}</ymax>"
            text += f"<object><name>{NAMES[kind]}</name><bndbox>{box}</bndbox></object>"
        (root / "Annotations").mkdir(exist_ok=True)
        (root / "Annotations" / f"{name}.xml").write_text(text + "</annotation>")
        (root / "ImageSets/Main").mkdir(parents=True, exist_ok=True)
        with (root / f"ImageSets/Main/{split}.txt").open("a") as file:
            file.write(f"{name}\n")
    return f"voc:'{root}'", {}


def as_yolo(root, form="box"):
    for split, name, pixels, objects in contents():
        save(pixels, root / "images" / split / f"{name}.png")
        lines = []
        for kind, x0, y0, x1, y1 in objects:
            box = [(x0 + x1) / 2 / W, (y0 + y1) / 2 / H, (x1 - x0) / W, (y1 - y0) / H]
            points = points_of(x0, y0, x1, y1)
            values = {
                "box": box,
                "polygon": [x0 / W, y0 / H, x1 / W, y0 / H, x1 / W, y1 / H, x0 / W, y1 / H],
                "pose": box + [p / (W, H, 1)[i % 3] for i, p in enumerate(points)],
            }[form]
            lines.append(" ".join(map(str, [kind, *values])))
        labels = root / "labels" / split / f"{name}.txt"
        labels.parent.mkdir(parents=True, exist_ok=True)
        labels.write_text("\n".join(lines))
    shape = "kpt_shape: [2, 3]\n" if form == "pose" else ""
    (root / "data.yaml").write_text(
        f"train: images/train\nval: images/val\ntest: images/test\n{shape}names: [cat, dog, owl]\n"
    )
    return f"yolo:'{root}'", {}


def as_class_folders(root):
    for split, name, pixels, objects in contents():
        if objects:
            save(pixels, root / split / NAMES[objects[0][0]] / f"{name}.png")
    for split in SPLITS:
        for name in NAMES:
            (root / split / name).mkdir(exist_ok=True)
    return f"class_folders:'{root}'", {"kind": "class"}


def as_boxes(root):
    return as_yolo(root)


def as_polygons(root):
    return as_yolo(root, "polygon")


def as_poses(root):
    return as_yolo(root, "pose")


FORMATS = {
    as_coco: ("boxes", "masks", "classes", "keypoints"),
    as_voc: ("boxes", "masks", "classes"),
    as_boxes: ("boxes", "classes"),
    as_polygons: ("boxes", "masks", "classes"),
    as_poses: ("boxes", "classes", "keypoints"),
    as_class_folders: ("kind",),
}


def read(make, root, names):
    """Returns {split: {image name: example}}."""
    text, keys = make(root)
    source = make_source(text, [LabelRequest(TASKS[n], keys.get(n, n)) for n in names])
    return {
        name: {split.examples.images[i].stem: split[i] for i in range(len(split))}
        for name, split in source.splits().items()
    }


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    return read(as_table, tmp_path_factory.mktemp("table"), TASKS)


@pytest.mark.parametrize("make", FORMATS)
def test_every_format_gives_the_arrays_of_the_table(make, expected, tmp_path):
    names = FORMATS[make]
    found = read(make, tmp_path, names)
    for split, examples in found.items():
        if make is not as_class_folders:
            assert set(examples) == set(expected[split])
        assert len(examples) >= 4
        for name, example in examples.items():
            table = expected[split][name]
            np.testing.assert_array_equal(example["image"], table["image"])
            for task in names:
                assert example["present"][task] == table["present"][task], (name, task)
                jax.tree.map(
                    np.testing.assert_array_equal, example["labels"][task], table["labels"][task]
                )


def test_the_table_has_every_kind_of_content(expected):
    examples = [example for split in expected.values() for example in split.values()]
    count = lambda task: sum(bool(example["present"][task]) for example in examples)
    assert {task: count(task) for task in TASKS} == {
        "boxes": 18,
        "masks": 18,
        "classes": 18,
        "keypoints": 6,
        "kind": 12,
    }
    assert sum(int((e["labels"]["boxes"]["classes"] >= 0).sum()) for e in examples) == 18
