"""Object detection: boxes and their classes."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Shaped

from mtljax.tasks import box_lists, checks, drawing, parsing
from mtljax.tasks.base import Changes, SumAndCount
from mtljax.tasks.centers import detections, focal_loss, targets
from mtljax.tasks.classes import ClassTask
from mtljax.tasks.coco import THRESHOLDS, average_precision
from mtljax.tasks.dense import DenseTask
from mtljax.tasks.metric import Metrics, MetricSpec, Present, TaskMetrics
from mtljax.tasks.streaming import PerExample, fill_absent, masked_sum
from mtljax.tasks.warps import Pixels, Warp
from mtljax.utils.optional import require_installed

MIN_VISIBLE = 0.25
"""Fraction of a box that must remain in the image, else a warp removes the box."""
MIN_SCORE = 0.3
"""Lowest score of the detections in reports."""
Boxes = Mapping[str, Shaped[Array, "..."]]
"""{"boxes": [..., N, 4], "classes": [..., N]}: see `Detection`."""
Maps = Float[Array, "B h w c"]
"""Logits of the classes and shapes at each position."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Detection(ClassTask, DenseTask):
    """Boxes and their classes, without anchors: every object is the point at its center.

    Labels: `{"boxes": [B, N, 4], "classes": [B, N]}`, boxes as (y0, x0, y1, x1) in pixels (row
    i covers i..i + 1), classes 0..C - 1, or -1 for padding. Output: [B, h, w, C + 4], h and w the
    image's height and width over `stride`, rounded up: logits of a class's center being at a
    position, then ln height and ln width in positions, then y and x of the center from the
    position's upper left corner.

    Loss of an image, divided by its number of boxes (at least 1): penalty-reduced focal loss of the
    heat map, plus at the centers |e| of ln height and width and |e| of the offsets. Two boxes
    with their center at the same position both contribute, with conflicting targets.
    `decode` returns the `most` largest logits that are local maxima.

    Metrics, by pycocotools: `map`, the mean of average precision over classes and IoU thresholds
    0.50, 0.55, ... 0.95, of objects of all sizes, and `map_50`, `map_75`, at one threshold.

    References:
      Zhou et al., 2019, arXiv:1904.07850. There the sizes are regressed without a logarithm and
      with weight 0.1; here their logarithms with weight 1, so that small objects count as much as
      large ones. Law & Deng, 2018, arXiv:1808.01244, for the focal loss and the Gaussian's radius.
    """

    stride: int = 4
    """Pixels per position of the heat map, along each side."""
    most: int = 100
    """Maximum number of detections per image, and of boxes in a label that is read from files."""
    order: box_lists.Order = "yxyx"
    """Numbers of a box in tables: `yxyx` (y0, x0, y1, x1), `xyxy`, or `xywh` (x0, y0, width,
    height) as in COCO. Annotation files do not need it; arrays and predictions are `yxyx`."""

    main_metric = "map"
    metric_specs = {
        "map": MetricSpec("mean average precision", higher_is_better=True),
        "map_50": MetricSpec("mean average precision at IoU 0.5", higher_is_better=True),
        "map_75": MetricSpec("mean average precision at IoU 0.75", higher_is_better=True),
        "average_precision": MetricSpec("average precision of each class"),
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.require_least(self, 1, "stride", "most")
        checks.require_choice(self, "order", box_lists.Order)

    def head(self) -> nn.Module:
        # The initial probability of a center is 10 % everywhere, as in the paper: with more, the
        # many positions without one dominate the loss. Initial sizes are four positions.
        rare, size, middle = float(np.log(0.1 / 0.9)), float(np.log(4.0)), 0.5
        center = (*[rare] * self.num_classes, size, size, middle, middle)
        return self.dense_head(outputs=self.num_classes + 4, center=center, stride=self.stride)

    def loss(self, output: Maps, label: Boxes, present: Present) -> SumAndCount:
        return masked_sum(self.error(output, fill_absent(label, present)), present)

    def error(self, output: Maps, label: Boxes) -> Float[Array, " B"]:
        size, classes = (output.shape[1], output.shape[2]), self.num_classes
        target = targets(
            label["boxes"], label["classes"], size=size, num_classes=classes, stride=self.stride
        )
        focal = focal_loss(output[..., : self.num_classes], target)
        rows = jnp.arange(output.shape[0])[:, None]
        shape = output[rows, target.y, target.x, self.num_classes :]
        known = target.known[..., None]
        error = jnp.where(known, jnp.abs(shape - target.shape), 0.0)
        count = jnp.maximum(target.known.sum(-1), 1).astype(focal.dtype)
        return (focal + error.sum((1, 2))) / count

    def distance(self, output: Maps, target: Maps, temperature: float) -> Float[Array, " B"]:
        raise ValueError(
            f"task {self.name!r}: detection does not support output distillation; distill "
            "features, or use no teacher for this task"
        )

    @property
    def metrics(self) -> Metrics:
        require_installed("pycocotools", "detection", f"task {self.name!r}")
        return _Detections(self)

    def check(self, labels: Boxes) -> None:
        if set(labels) != {"boxes", "classes"}:
            raise ValueError(
                f"task {self.name!r}: labels must be {{'boxes', 'classes'}}, not {set(labels)}"
            )
        boxes, classes = np.asarray(labels["boxes"]), np.asarray(labels["classes"])
        checks.require_shape(self.name, boxes, (None, 4))
        checks.require_shape(self.name, classes, boxes.shape[1:2])
        checks.require_class_indices(self.name, classes, self.num_classes, -1, "padding")
        known = classes >= 0
        finite = np.isfinite(boxes) | ~known[..., None]
        checks.require(self.name, finite, boxes, "a box must be finite")
        valid = ~known | (boxes[..., 2:] > boxes[..., :2]).all(-1)
        if not valid.all():
            i, j = np.argwhere(~valid)[0]
            raise ValueError(
                f"task {self.name!r}: label of example {i} has box {boxes[i, j].tolist()}; must be "
                "(y0, x0, y1, x1) with y0 < y1 and x0 < x1"
            )

    def constant_output(self, labels: Boxes, size: Pixels) -> Float[np.ndarray, "h w c"]:
        """No detections: logits so low that no score is above 0."""
        grid = [-(-side // self.stride) for side in size]
        output = np.zeros((*grid, self.num_classes + 4), np.float32)
        output[..., : self.num_classes] = -200.0
        return output

    def check_columns(self, columns: Sequence[str]) -> None:
        box_lists.check_columns(columns, self.order)

    def classes_in(self, value: Any) -> Iterable[str]:
        return () if self.class_names else box_lists.names_in(value)

    def parse(self, value: Any) -> dict[str, np.ndarray]:
        """Parses {"boxes": [n, 4], "classes": [n]} or [{"box": ..., "class": ...}, ...].

        Or only boxes, if there is one class.
        """
        boxes, classes = box_lists.parse(value, self.order)
        if classes is None:
            if self.num_classes > 1 and len(boxes):
                raise ValueError("boxes need a class if there are several")
            classes = [0] * len(boxes)
        if len(boxes) > self.most:
            raise ValueError(f"{len(boxes)} boxes; set `most` to the largest number in an image")
        label = self.placeholder((0, 0))
        label["boxes"][: len(boxes)] = parsing.in_float32(boxes)
        label["classes"][: len(boxes)] = [parsing.class_index(c, self.class_names) for c in classes]
        return label

    def clean(self, label: Any, size: Pixels) -> tuple[Any, Changes]:
        """Clips boxes to the image, and drops those without area in it."""
        boxes, classes = np.asarray(label["boxes"]), np.asarray(label["classes"])
        boxes, kept, changes = box_lists.inside(boxes, classes >= 0, size, self.order)
        rows = np.flatnonzero(kept)
        cleaned = {"boxes": np.zeros_like(boxes), "classes": np.full_like(classes, -1)}
        cleaned["boxes"][: len(rows)], cleaned["classes"][: len(rows)] = boxes[rows], classes[rows]
        return cleaned, changes

    def placeholder(self, size: Pixels) -> dict[str, np.ndarray]:
        return {
            "boxes": np.zeros((self.most, 4), np.float32),
            "classes": np.full(self.most, -1, np.int32),
        }

    def warp(self, label: Boxes, warp: Warp) -> Boxes:
        """Bounding boxes of the moved corners, clipped to the image, if enough remains visible."""
        xp, boxes = warp.xp, label["boxes"]
        corners = boxes[:, np.asarray([[0, 1], [0, 3], [2, 1], [2, 3]])]
        moved = warp.points(corners)
        bounds = xp.concatenate([moved.min(1), moved.max(1)], -1)
        clipped = xp.clip(bounds, 0, np.asarray([*warp.size, *warp.size], np.float32))
        area = lambda box: (box[:, 2:] - box[:, :2]).prod(-1)
        visible = (label["classes"] >= 0) & (area(clipped) > MIN_VISIBLE * area(bounds))
        return {
            "boxes": xp.where(visible[:, None], clipped, 0.0).astype(boxes.dtype),
            "classes": self.in_mirror(xp.where(visible, label["classes"], -1), warp),
        }

    def label_values(self, label: Boxes) -> Int[np.ndarray, " n"]:
        classes = np.asarray(label["classes"])
        return classes[classes >= 0]

    def decode(self, output: Maps) -> Boxes:
        """Returns {"boxes": [B, M, 4], "classes": [B, M], "scores": [B, M]}, best first."""
        return detections(output, num_classes=self.num_classes, stride=self.stride, most=self.most)

    def restore(self, prediction: Boxes, warp: Warp) -> Boxes:
        """All boxes with their scores, clipped to the image."""
        corners = warp.points(prediction["boxes"].reshape(-1, 2, 2))
        corners = warp.xp.clip(corners, 0, np.asarray(warp.size, np.float32))
        return {**prediction, "boxes": corners.reshape(-1, 4)}

    def text(self, value: Boxes) -> str:
        classes = np.asarray(value["classes"])[_is_shown(value)]
        names = [self.class_names[c] if self.class_names else f"class {c}" for c in classes]
        return ", ".join(names) or "nothing"

    @property
    def legend(self) -> tuple[tuple[str, drawing.Color], ...]:
        return drawing.class_legend(self.class_names)

    def picture(self, value: Boxes, image: np.ndarray) -> drawing.RGB:
        rgb, colors = drawing.as_rgb(image), drawing.class_colors(self.num_classes)
        shown = _is_shown(value)
        boxes, classes = np.asarray(value["boxes"])[shown], np.asarray(value["classes"])[shown]
        for box, c in zip(boxes[::-1], classes[::-1], strict=True):
            drawing.draw_box(rgb, box, colors[c])
        return rgb


def _is_shown(value: Boxes) -> Bool[np.ndarray, " n"]:
    """Returns the mask of boxes to draw: no padding, no low score."""
    scores = np.asarray(value.get("scores", 1.0))
    return (np.asarray(value["classes"]) >= 0) & (scores >= MIN_SCORE)


class _Detections(PerExample):
    """Detections and true boxes of all images: a ranking needs all of them."""

    names = ("map", "map_50", "map_75", "average_precision")

    def __init__(self, task: Detection):
        self.task = task

    def describe(self, output: Maps, label: Boxes) -> dict[str, Array]:
        predicted = {f"predicted_{name}": x for name, x in self.task.decode(output).items()}
        return {**predicted, **{f"true_{name}": label[name] for name in ("boxes", "classes")}}

    def compute_from_rows(self, rows: dict[str, np.ndarray]) -> TaskMetrics:
        precision = average_precision(
            {name: rows[f"true_{name}"] for name in ("boxes", "classes")},
            {name: rows[f"predicted_{name}"] for name in ("boxes", "classes", "scores")},
            self.task.num_classes,
            self.task.most,
        )
        known = np.isfinite(precision[0])
        if not known.any():
            return dict.fromkeys(self.names, float("nan"))
        at = lambda threshold: precision[np.isclose(THRESHOLDS, threshold)][0]
        return {
            "map": float(precision[:, known].mean()),
            "map_50": float(at(0.5)[known].mean()),
            "map_75": float(at(0.75)[known].mean()),
            "average_precision": precision.mean(0).tolist(),
        }
