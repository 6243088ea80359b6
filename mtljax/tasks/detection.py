"""Object detection: boxes around things, and what the things are."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from mtljax.tasks.base import require, require_shape
from mtljax.tasks.centers import detections, focal_loss, targets
from mtljax.tasks.coco import THRESHOLDS, average_precision, require_evaluator
from mtljax.tasks.dense import DenseTask
from mtljax.tasks.drawing import as_rgb, class_colors, draw_box
from mtljax.tasks.metric_spec import MetricSpec
from mtljax.tasks.raw import class_of, numbers
from mtljax.tasks.settings import require_classes, require_least
from mtljax.tasks.streaming import PerExample, fill_absent

LEAST_SEEN = 0.25
"""Share of a box that must be left within the image for it to be looked for."""
Boxes = dict[str, Any]
"""{"boxes": [..., N, 4], "classes": [..., N]}: see `Detection`."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Detection(DenseTask):
    """Boxes and their classes, without anchors: every object is the point at its middle.

    Labels: `{"boxes": [B, N, 4], "classes": [B, N]}`, boxes as (y0, x0, y1, x1) in pixels (row
    i covers i..i + 1), classes 0..C - 1, or -1 for a box that is only padding. Output:
    [B, h, w, C + 4], h and w the image's height and width over `stride`, rounded up: logits
    of a class's middle being at a position, then ln height and ln width in positions, then y and x
    of the middle from the position's upper left corner.

    Loss of an image, divided by its number of boxes (at least 1): penalty-reduced focal loss of the
    heat map, plus at the middles |e| of ln height and width and |e| of the offsets. Of two boxes
    with their middle at the same position, both are asked for and their targets compete.
    `decode` takes the `most` largest logits that are local maxima.

    Metrics, by pycocotools: `map`, the mean of average precision over classes and IoU thresholds
    0.50, 0.55, ... 0.95, of objects of all sizes, and `map_50`, `map_75`, at one threshold.

    References:
      Zhou et al., 2019, arXiv:1904.07850. There the sizes are regressed as they are, with weight
      0.1; here their logarithms with weight 1, so that small objects count as much as large ones.
      Law & Deng, 2018, arXiv:1808.01244, for the focal loss and the Gaussian's radius.
    """

    num_classes: int
    stride: int = 4
    """Pixels per position of the heat map, along each side."""
    most: int = 100
    """Detections per image, and most boxes in a label that is read from files."""
    class_names: tuple[str, ...] = ()
    """What to call the classes; their numbers if empty."""

    main_metric = "map"
    metric_specs = {
        "map": MetricSpec("mean average precision", higher_is_better=True),
        "map_50": MetricSpec("mean average precision at IoU 0.5", higher_is_better=True),
        "map_75": MetricSpec("mean average precision at IoU 0.75", higher_is_better=True),
        "average_precision": MetricSpec("average precision"),
    }

    def __post_init__(self):
        super().__post_init__()
        require_classes(self, 1)
        require_least(self, 1, "stride", "most")

    def head(self):
        # At first every position is 10 % likely to be a middle, as in the paper: otherwise the
        # many positions that are none drown the rest. Sizes begin at four positions.
        rare, size, middle = float(np.log(0.1 / 0.9)), float(np.log(4.0)), 0.5
        center = (*[rare] * self.num_classes, size, size, middle, middle)
        return self.dense_head(outputs=self.num_classes + 4, center=center, stride=self.stride)

    def loss(self, output, label, present):
        losses = self.error(output, fill_absent(label, present))
        return jnp.where(present, losses, 0.0).sum(), present.sum().astype(jnp.float32)

    def error(self, output, label):
        target = targets(
            label["boxes"],
            label["classes"],
            size=output.shape[1:3],
            num_classes=self.num_classes,
            stride=self.stride,
        )
        focal = focal_loss(output[..., : self.num_classes], target)
        rows = jnp.arange(output.shape[0])[:, None]
        at = output[rows, target.y, target.x, self.num_classes :]
        known = target.known[..., None]
        shape = jnp.where(known, jnp.abs(at - target.shape), 0.0)
        count = jnp.maximum(target.known.sum(-1), 1).astype(focal.dtype)
        return (focal + shape.sum((1, 2))) / count

    def distance(self, output, target, temperature):
        raise ValueError(
            f"task {self.name!r}: the outputs of a detector are not imitated; take distillation "
            "features, or no teacher for this task"
        )

    @property
    def metrics(self):
        require_evaluator(self.name)
        return _Found(self)

    def check(self, labels):
        if set(labels) != {"boxes", "classes"}:
            raise ValueError(
                f"task {self.name!r}: labels must be {{'boxes', 'classes'}}, not {set(labels)}"
            )
        boxes, classes = np.asarray(labels["boxes"]), np.asarray(labels["classes"])
        require_shape(self.name, boxes, (None, 4))
        require_shape(self.name, classes, boxes.shape[1:2])
        good = (classes >= -1) & (classes < self.num_classes) & (classes == np.floor(classes))
        rule = f"a class must be a whole number in 0..{self.num_classes - 1}, or -1 for padding"
        require(self.name, good, classes, rule)
        known = classes >= 0
        finite = np.isfinite(boxes) | ~known[..., None]
        require(self.name, finite, boxes, "a box must be finite")
        good = ~known | (boxes[..., 2:] > boxes[..., :2]).all(-1)
        if not good.all():
            i, j = np.argwhere(~good)[0]
            raise ValueError(
                f"task {self.name!r}: label of example {i} has box {boxes[i, j].tolist()}; must be "
                "(y0, x0, y1, x1) with y0 < y1 and x0 < x1"
            )

    def constant(self, labels, size):
        """That there is nothing, so surely that no score is above 0 and nothing counts as found."""
        del labels
        grid = [-(-side // self.stride) for side in size]
        output = np.zeros((*grid, self.num_classes + 4), np.float32)
        output[..., : self.num_classes] = -200.0
        return output

    def read(self, value):
        """{"boxes": [n, 4], "classes": [n]}, or boxes alone, all of the only class."""
        if isinstance(value, Mapping):
            boxes, classes = value["boxes"], value["classes"]
        else:
            boxes = numbers(value).reshape(-1, 4) if np.size(numbers(value)) % 4 == 0 else None
            if boxes is None or self.num_classes > 1:
                raise ValueError("boxes need four numbers each, and a class of several")
            classes = [0] * len(boxes)
        if len(boxes) > self.most:
            raise ValueError(f"{len(boxes)} boxes; set `most` to the largest number in an image")
        label = self.blank((0, 0))
        label["boxes"][: len(boxes)] = np.asarray(boxes, np.float32).reshape(-1, 4)
        label["classes"][: len(boxes)] = [class_of(c, self.class_names) for c in classes]
        return label

    def blank(self, size):
        del size
        return {
            "boxes": np.zeros((self.most, 4), np.float32),
            "classes": np.full(self.most, -1, np.int32),
        }

    def warp(self, label, warp):
        """Boxes around where their corners go, cut at the image's edge; those hardly seen go."""
        xp, boxes = warp.xp, label["boxes"]
        corners = boxes[:, np.asarray([[0, 1], [0, 3], [2, 1], [2, 3]])]
        moved = warp.points(corners)
        whole = xp.concatenate([moved.min(1), moved.max(1)], -1)
        cut = xp.clip(whole, 0, np.asarray([*warp.size, *warp.size], np.float32))
        area = lambda box: (box[:, 2:] - box[:, :2]).prod(-1)
        seen = (label["classes"] >= 0) & (area(cut) > LEAST_SEEN * area(whole))
        return {
            "boxes": xp.where(seen[:, None], cut, 0.0).astype(boxes.dtype),
            "classes": xp.where(seen, label["classes"], -1),
        }

    def contents(self, label):
        return label["classes"][label["classes"] >= 0]

    def decode(self, output):
        """{"boxes": [B, M, 4], "classes": [B, M], "scores": [B, M]}, best first."""
        return detections(output, num_classes=self.num_classes, stride=self.stride, most=self.most)

    def text(self, value):
        classes = np.asarray(value["classes"])
        classes = classes[_shown(value)]
        names = [self.class_names[c] if self.class_names else f"class {c}" for c in classes]
        return ", ".join(names) or "nothing"

    @property
    def legend(self):
        return tuple(zip(self.class_names, class_colors(self.num_classes), strict=False))

    def picture(self, value, image):
        rgb, colors = as_rgb(image), class_colors(self.num_classes)
        shown = _shown(value)
        boxes, classes = np.asarray(value["boxes"])[shown], np.asarray(value["classes"])[shown]
        for box, kind in zip(boxes[::-1], classes[::-1], strict=True):
            draw_box(rgb, box, colors[kind])
        return rgb


def _shown(value: Boxes) -> np.ndarray:
    """Which boxes a person would want to see: no padding, no score below 0.3."""
    scores = np.asarray(value.get("scores", 1.0))
    return (np.asarray(value["classes"]) >= 0) & (scores >= 0.3)


class _Found(PerExample):
    """Detections and truth of all images: a ranking needs all of them."""

    names = ("map", "map_50", "map_75", "average_precision")

    def __init__(self, task: Detection):
        self.task = task

    def describe(self, output, label):
        found = {f"found_{name}": x for name, x in self.task.decode(output).items()}
        return {**found, **{f"true_{name}": label[name] for name in ("boxes", "classes")}}

    def summarise(self, rows):
        precision = average_precision(
            {name: rows[f"true_{name}"] for name in ("boxes", "classes")},
            {name: rows[f"found_{name}"] for name in ("boxes", "classes", "scores")},
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
