"""A small data set with labels of every task kind, as arrays."""

import numpy as np

from mtljax.data import from_arrays
from mtljax.tasks import (
    Classification,
    Depth,
    Detection,
    Edges,
    Keypoints,
    MultiLabel,
    Normals,
    Reconstruction,
    Regression,
    Saliency,
    Segmentation,
)

H, W = 16, 32  # powers of 2: fractions of them are exact
NAMES = ("cat", "dog", "owl")
SPLITS = {"train": "train", "val": "validation", "test": "test"}
DENSE = {"decoder": "linear"}
TASKS = {
    task.name: task
    for task in (
        Classification(name="kind", class_names=NAMES),
        Regression(name="weight", center=0.0, scale=1.0),
        Regression(name="angles", size=2, center=(0.0, 0.0), scale=(1.0, 1.0)),
        MultiLabel(name="classes", class_names=NAMES),
        Segmentation(name="masks", class_names=("background", *NAMES), **DENSE),
        Depth(name="depth", unit=0.001, **DENSE),
        Normals(name="normals", **DENSE),
        Edges(name="edges", **DENSE),
        Saliency(name="saliency", **DENSE),
        Reconstruction(name="picture", **DENSE),
        Keypoints(name="keypoints", num_keypoints=2, order="xy", **DENSE),
        Detection(name="boxes", class_names=NAMES, most=4, **DENSE),
    )
}
MAPS = ("masks", "depth", "normals", "edges", "saliency", "picture")


def make_contents():
    """Returns one dict per image: up to two objects (class, x0, y0, x1, y1), and maps."""
    rng, contents = np.random.default_rng(0), []
    for split in SPLITS:
        for i in range(6):
            objects = []
            for left in (0, W // 2)[: i % 3]:
                x0, y0 = left + int(rng.integers(0, 8)), int(rng.integers(0, 8))
                x1, y1 = x0 + int(rng.integers(2, 8)), y0 + int(rng.integers(2, 8))
                objects.append((int(rng.integers(3)), x0, y0, x1, y1))
            mask = np.zeros((H, W), np.uint8)
            for kind, x0, y0, x1, y1 in objects:
                mask[y0:y1, x0:x1] = kind + 1
            normals = rng.normal(size=(H, W, 3))
            normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
            normals[:3] = 0  # unknown
            depth = rng.integers(300, 60000, (H, W)).astype(np.uint16)
            depth[-2:] = 0  # unknown
            contents.append(
                {
                    "split": split,
                    "name": f"{split}_{i}",
                    "pixels": rng.integers(0, 256, (H, W, 3), np.uint8),
                    "objects": objects,
                    "weight": float(np.float32(rng.normal())),
                    "angles": [float(x) for x in rng.integers(-180, 180, 2)],
                    "masks": mask,
                    "depth": depth,
                    "normals": normals.astype(np.float32),
                    "edges": rng.integers(0, 2, (H, W), np.uint8),
                    "saliency": rng.integers(0, 2, (H, W), np.uint8),
                    "picture": rng.integers(0, 256, (H, W, 3), np.uint8),
                }
            )
    return contents


CONTENTS = make_contents()


def points_of(x0, y0, x1, y1):
    """Two points (x, y, visibility as in COCO) of an object, the second one not always labeled."""
    return [x0 + 0.5, y0 + 0.25, 2, *((x1 - 0.5, y1 - 0.75, 1) if y0 < 6 else (0, 0, 0))]


def label_of(content, task):
    """Returns the label in the form that training reads, written down without any reader."""
    objects = content["objects"]
    if task == "kind":
        return np.int32(objects[0][0]) if objects else None
    if task in ("weight", "angles", "normals"):
        return np.asarray(content[task], np.float32)
    if task == "classes":
        return np.asarray([any(o[0] == kind for o in objects) for kind in range(3)], np.int32)
    if task in ("masks", "edges", "saliency"):
        return content[task].astype(np.int32)
    if task == "depth":
        return (content[task] / 1000).astype(np.float32)
    if task == "picture":
        return content[task].astype(np.float32) * np.float32(1 / 255)
    if task == "keypoints":
        if len(objects) != 1:
            return None
        x0, y0, seen0, x1, y1, seen1 = points_of(*objects[0][1:])
        return np.asarray([[y0, x0, seen0 > 0], [y1, x1, seen1 > 0]], np.float32)
    boxes, classes = np.zeros((4, 4), np.float32), np.full(4, -1, np.int32)
    for i, (kind, x0, y0, x1, y1) in enumerate(objects):
        boxes[i], classes[i] = (y0, x0, y1, x1), kind
    return {"boxes": boxes, "classes": classes}


def arrays_in_memory():
    """The source of all labels as arrays."""
    labels, present = {}, {}
    for name, task in TASKS.items():
        found = [label_of(content, name) for content in CONTENTS]
        present[name] = np.asarray([label is not None for label in found])
        filled = [task.placeholder((H, W)) if label is None else label for label in found]
        is_tree = isinstance(filled[0], dict)
        stack = lambda values: np.stack(values)
        labels[name] = (
            {key: stack([label[key] for label in filled]) for key in filled[0]}
            if is_tree
            else stack(filled)
        )
    return from_arrays(np.stack([c["pixels"] for c in CONTENTS]), labels, present)
