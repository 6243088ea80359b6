"""One table of what the suites need of each kind of task: outputs, labels, bad labels."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
from support import task_references as references

from mtljax.tasks import TASKS, Task

SIZE = 16, 20
"""Height and width of the images, in pixels."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sample:
    task: Task
    outputs: np.ndarray
    labels: Any
    perfect: np.ndarray
    """Outputs that say exactly what the labels say."""
    scores: dict[str, float]
    """What metrics give for `perfect`."""
    bad: list[tuple[Any, str]]
    """Labels that `check` refuses, and a pattern of what it says."""

    @property
    def reference(self) -> Callable[..., dict[str, Any]]:
        return getattr(references, self.task.name)


def sample(kind: str, count: int, seed: int = 0) -> Sample:
    """`count` examples of a task that is called like its kind."""
    rng = np.random.default_rng(seed)
    settings, *rest = _MAKERS[kind](rng, count)
    names = ("outputs", "labels", "perfect", "scores", "bad")
    return Sample(task=TASKS[kind](name=kind, **settings), **dict(zip(names, rest, strict=True)))


def changed(labels: np.ndarray, value: Any, example: int = 3) -> np.ndarray:
    """The labels, with the first number of one example replaced."""
    labels = labels.copy()
    labels[(example, *[0] * (labels.ndim - 1))] = value
    return labels


def _normal(rng, *shape):
    return rng.normal(size=shape).astype(np.float32)


def _classification(rng, n):
    labels = rng.integers(0, 4, n).astype(np.int32)  # class 4 of 5 is nowhere
    outputs = _normal(rng, n, 5) - 9 * (np.arange(5) == 4).astype(np.float32)
    perfect = 50 * np.eye(5, dtype=np.float32)[labels]
    scores = {"loss": 0, "accuracy": 1, "macro_f1": 1}
    bad = [(changed(labels, 5), "example 3 is 5; .* 0..4"), (changed(labels, -1), "example 3")]
    return {"num_classes": 5}, outputs, labels, perfect, scores, bad


def _regression(rng, n):
    labels = 3 + 2 * _normal(rng, n, 2)
    outputs = labels + 0.5 * _normal(rng, n, 2)
    bad = [(changed(labels, np.nan), "example 3 is .*nan"), (labels[:, 0], "shape")]
    scores = {"loss": 0, "mae": 0, "rmse": 0, "r2": 1, "accuracy": 1}
    settings = {"size": 2, "center": 3.0, "scale": 2.0, "threshold": 3.5}
    return settings, outputs, labels, labels, scores, bad


def _multilabel(rng, n):
    labels = (rng.random((n, 4)) < (0.5, 0.2, 0.05, 0)).astype(np.int32)
    labels[0, :3] = 1
    labels[1:][rng.random((n - 1, 4)) < 0.1] = -1  # not known
    outputs = np.round(_normal(rng, n, 4) + labels, 1).astype(np.float32)  # some are equal
    perfect = np.where(labels == 1, 20, -20).astype(np.float32)
    scores = {"loss": 0, "map": 1, "f1": 1}
    bad = [
        (changed(labels, 2), r"example 3 is 2 at \(0,\); must be 0 or 1"),
        (np.where(labels == 0, -1, labels), "-1 and 1, but no 0"),
    ]
    return {"num_classes": 4}, outputs, labels, perfect, scores, bad


def _segmentation(rng, n):
    labels = rng.integers(0, 3, (n, *SIZE)).astype(np.int32)  # class 3 of 5 is only predicted
    outputs = _normal(rng, n, *SIZE, 5) + np.eye(5, dtype=np.float32)[labels]
    outputs[..., 4] = -9
    labels[rng.random(labels.shape) < 0.1] = 255
    perfect = 50 * np.eye(5, dtype=np.float32)[np.where(labels == 255, 0, labels)]
    scores = {"loss": 0, "miou": 1, "pixel_accuracy": 1}
    bad = [
        (changed(labels, 5), r"example 3 is 5 at \(0, 0\); .* 0..4, or 255"),
        (labels[..., 0], r"must be \[N, \?, \?\]"),
    ]
    return {"num_classes": 5}, outputs, labels, perfect, scores, bad


def _depth(rng, n):
    labels = rng.uniform(0.5, 8, (n, *SIZE)).astype(np.float32)
    outputs = labels * np.exp(0.3 * _normal(rng, n, *SIZE))
    outputs[rng.random(outputs.shape) < 0.01] = -1.0
    labels[rng.random(labels.shape) < 0.1] = 0
    labels[rng.random(labels.shape) < 0.05] = np.inf
    perfect = np.where(np.isfinite(labels) & (labels > 0), labels, 1)
    empty = np.zeros_like(labels)
    zeros = dict.fromkeys(("loss", "rmse", "abs_err", "abs_rel", "log_rmse"), 0)
    scores = {**zeros, **dict.fromkeys(("delta_1", "delta_2", "delta_3"), 1)}
    return (
        {"center": 4.0, "scale": 2.0},
        outputs,
        labels,
        perfect,
        scores,
        [
            (empty, "no label has a pixel"),
            (labels[..., None], "shape"),
        ],
    )


def _normals(rng, n):
    labels = _normal(rng, n, *SIZE, 3)
    labels /= np.linalg.norm(labels, axis=-1, keepdims=True)
    outputs = 3 * (labels + 0.3 * _normal(rng, n, *SIZE, 3))
    labels[rng.random(labels.shape[:-1]) < 0.1] = 0
    empty = np.zeros_like(labels)
    within = dict.fromkeys(("within_11.25", "within_22.5", "within_30"), 1)
    scores = {**dict.fromkeys(("loss", "mean", "rmse"), 0), **within}
    bad = [(empty, "no label has a pixel"), (changed(labels, np.nan), "example 3 is nan")]
    return {}, outputs, labels, np.where(labels == 0, 1, labels), scores, bad


def _edges(rng, n):
    labels = (rng.random((n, *SIZE)) < 0.08).astype(np.int32)
    moved = np.roll(labels, 1, 1 + int(rng.integers(2)))
    outputs = 2 * _normal(rng, n, *SIZE) - 1 + 2 * (labels + moved).astype(np.float32)
    perfect = np.where(labels, 20, -20).astype(np.float32)
    bad = [(changed(labels, 2), "example 3 is 2"), (labels[0], "shape")]
    return {"thresholds": 9}, outputs, labels, perfect, {"loss": 0, "ods": 1, "ois": 1}, bad


def _saliency(rng, n):
    labels = (rng.random((n, *SIZE)) < 0.3).astype(np.int32)
    labels[1] = 0
    outputs = 2 * _normal(rng, n, *SIZE) + 2 * labels.astype(np.float32) - 1
    perfect = np.where(labels, 20, -20).astype(np.float32)
    bad = [(changed(labels, 2), "example 3 is 2"), (labels[0], "shape")]
    return {}, outputs, labels, perfect, {"loss": 0, "max_f": 1, "miou": 1}, bad


def _keypoints(rng, n):
    where = rng.uniform(2, 14, (n, 3, 2))
    labels = np.concatenate([where, rng.random((n, 3, 1)) < 0.7], -1).astype(np.float32)
    labels[3, 0, 2] = 1
    grid = np.stack(np.mgrid[: SIZE[0] // 2, : SIZE[1] // 2], -1) * 2 + 1
    square = ((grid[:, :, None] - where[:, None, None]) ** 2).sum(-1)
    perfect = (-square / (2 * (2 * 1.5) ** 2)).astype(np.float32)
    outputs = 3 * perfect + _normal(rng, *perfect.shape)
    half = labels.copy()
    half[3, 0, 2] = 0.5
    bad = [
        (changed(labels, np.nan), r"example 3 is nan at \(0, 0\)"),
        (half, "0 .not visible. or 1"),
        (labels[:, :2], "shape"),
    ]
    scores = {"loss": 0, "nme": 0, "pck": 1, "auc": 1}
    return {"num_keypoints": 3, "stride": 2}, outputs, labels, perfect, scores, bad


def _detection(rng, n):
    stride, grid, classes = 4, (4, 5), 3
    # Each object has a position of its own, so that all can be found; class 2 is nowhere.
    cells = np.stack([rng.permutation(20)[:4] for _ in range(n)])
    cells = np.stack([cells // 5, cells % 5], -1)
    offset, extent = rng.uniform(0.1, 0.9, (n, 4, 2)), rng.uniform(4, 12, (n, 4, 2))
    middle = (cells + offset) * stride
    labels = {
        "boxes": np.concatenate([middle - extent / 2, middle + extent / 2], -1).astype(np.float32),
        "classes": rng.integers(0, 2, (n, 4)).astype(np.int32),
    }
    labels["classes"][:, 2:][rng.random((n, 2)) < 0.4] = -1

    perfect = np.full((n, *grid, classes + 4), -20, np.float32)
    perfect[..., classes:] = 0
    for i, j in np.argwhere(labels["classes"] >= 0):
        y, x = cells[i, j]
        perfect[i, y, x, labels["classes"][i, j]] = 20
        perfect[i, y, x, classes:] = *np.log(extent[i, j] / stride), *offset[i, j]
    outputs = perfect + 0.15 * _normal(rng, *perfect.shape)
    outputs[..., :classes] = outputs[..., :classes] / 8 + _normal(rng, n, *grid, classes)

    kind, flat, short = (dict(labels) for _ in range(3))
    kind["classes"] = changed(labels["classes"], 3)
    flat["boxes"] = changed(labels["boxes"], 99)
    del short["boxes"]
    bad = [(kind, "class must be .* 0..2"), (flat, "example 3 has box"), (short, "must be")]
    scores = {"map": 1, "map_50": 1, "map_75": 1}
    settings = {"num_classes": classes, "stride": stride, "most": 10}
    return settings, outputs, labels, perfect, scores, bad


def _reconstruction(rng, n):
    labels = rng.random((n, *SIZE, 2)).astype(np.float32)
    labels[0] = 0.5  # no variance at all
    outputs = labels + 0.1 * _normal(rng, *labels.shape)
    bad = [(changed(labels, 2), "example 3 is 2"), (labels[:, :10], "both sides")]
    scores = {"loss": 0, "psnr": 100, "ssim": 1}
    return {"channels": 2}, outputs, labels, labels, scores, bad


_MAKERS = {
    "classification": _classification,
    "regression": _regression,
    "multilabel": _multilabel,
    "segmentation": _segmentation,
    "depth": _depth,
    "normals": _normals,
    "edges": _edges,
    "saliency": _saliency,
    "keypoints": _keypoints,
    "detection": _detection,
    "reconstruction": _reconstruction,
}
