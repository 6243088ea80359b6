"""A small folder of images with labels of every kind, for tests."""

import csv
import json

import numpy as np
from PIL import Image

from mtljax.tasks import (
    Classification,
    Depth,
    Detection,
    Keypoints,
    MultiLabel,
    Normals,
    Regression,
    Segmentation,
)

H, W, N = 12, 16, 24
KINDS = ("cat", "dog", "owl")
TASKS = (
    Classification(name="kind", num_classes=3, class_names=KINDS),
    Regression(name="weight"),
    MultiLabel(name="traits", num_classes=2, class_names=("wild", "old")),
    Segmentation(name="mask", num_classes=3, decoder="linear"),
    Depth(name="depth"),
    Normals(name="normals"),
    Keypoints(name="eyes", num_keypoints=2),
    Detection(name="boxes", num_classes=2, most=3),
)
LABELS = {"traits": "wild,old", "boxes": "boxes.json", "eyes": "y0,x0,y1,x1"}
FOR = {task.name: task for task in TASKS}


def rows_of(count=N):
    rng = np.random.default_rng(0)
    for i in range(count):
        yield {
            "image": f"{i:03}.png",
            "kind": KINDS[i % 3],
            "weight": f"{rng.normal():.4f}",
            "wild": str(i % 2),
            "old": str(i // 2 % 2),
            "mask": f"mask/{i:03}.png",
            "depth": f"depth/{i:03}.png",
            "normals": f"normals/{i:03}.npy",
            "y0": "2",
            "x0": "3.5",
            "y1": "7",
            "x1": "9",
            "split": ("train", "train", "validation", "test")[i % 4],
        }


def write_table(folder, rows, name="labels.csv"):
    with (folder / name).open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def coco(count=N, size=(H, W)):
    return {
        "images": [
            {"id": i, "file_name": f"{i:03}.png", "height": size[0], "width": size[1]}
            for i in range(count)
        ],
        "annotations": [
            {"id": 10 * i + j, "image_id": i, "category_id": 7 - j, "bbox": [j, 2, 6, 5]}
            for i in range(count)
            for j in range(i % 3)
        ],
        "categories": [{"id": 7, "name": "head"}, {"id": 6, "name": "tail"}],
    }


def make_folder(folder, count=N):
    rng = np.random.default_rng(0)
    for name in ("images", "mask", "depth", "normals"):
        (folder / name).mkdir(parents=True)
    rows = list(rows_of(count))
    for i, row in enumerate(rows):
        mask = rng.integers(0, 3, (H, W), dtype=np.uint8)
        pixels = np.stack([mask * 80, mask * 40 + i, mask * 0 + 5], -1)
        Image.fromarray(pixels).save(folder / "images" / row["image"])
        Image.fromarray(mask).save(folder / row["mask"])
        depth = rng.integers(500, 9000, (H, W)).astype(np.uint16)
        Image.fromarray(depth).save(folder / row["depth"])
        np.save(folder / row["normals"], rng.normal(size=(H, W, 3)).astype(np.float32))
    write_table(folder, rows)
    (folder / "boxes.json").write_text(json.dumps(coco(count)))
    return rows


def gaps(folder, share=0.3):
    """Empties that share of each label's cells; names -> rows that are left."""
    rng = np.random.default_rng(1)
    rows = list(rows_of())
    left = {}
    for name in ("kind", "weight", "mask"):
        missing = set(rng.choice(N, round(share * N), replace=False).tolist())
        left[name] = [i for i in range(N) if i not in missing]
        for i in missing:
            rows[i][name] = ""
    write_table(folder, rows)
    return left


def write_experiment(path, folder, names=("kind", "weight", "mask"), labels=None, source=None):
    """An experiment file for the command line."""
    tasks = "".join(f"{FOR[name]!r}, " for name in names)
    path.write_text(
        "from mtljax.config import Data, Experiment\n"
        "from mtljax.tasks import *\n"
        "experiment = Experiment(\n"
        f"    name='pets', tasks=({tasks}),\n"
        f"    data=Data(source={source or f'folder:{str(folder)!r}'!r},\n"
        f"              labels={labels or LABELS!r}, batch_size=8),\n"
        "    trunk='cnn:widths=(8,)', steps=4, eval_every=4,\n"
        ")\n"
    )
    return str(path)


def picture(name, value):
    """A damage of a folder: another picture in place of one."""
    return lambda folder: Image.fromarray(value).save(folder / name)


def wrong_mask(value):
    mask = np.zeros((H, W), np.uint8)
    mask[0, 0] = value
    return mask
