"""Semantic segmentation: one class per pixel."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from mtljax.tasks.base import Metrics, require, require_shape
from mtljax.tasks.classification import log_frequencies
from mtljax.tasks.dense import PixelTask
from mtljax.tasks.drawing import class_colors, paint_classes
from mtljax.tasks.metric_spec import MetricSpec
from mtljax.tasks.raw import plane
from mtljax.tasks.settings import require_classes
from mtljax.tasks.soft import softmax_distance
from mtljax.tasks.streaming import of_rank


@dataclasses.dataclass(frozen=True, kw_only=True)
class Segmentation(PixelTask):
    """One of `num_classes` per pixel. Output: logits [B, H, W, C]. Labels: integers [B, H, W].

    Loss: cross entropy, its mean over all labelled pixels. Metrics, from one confusion matrix over
    all pixels of the data set: IoU of a class = true and found / (true or found), `miou` its
    mean over the classes that are true or predicted anywhere (a class that is neither has no IoU,
    NaN in `iou`), and `pixel_accuracy`, the share of labelled pixels in the right class.
    """

    num_classes: int
    ignore: int | None = 255
    """The label of pixels that do not count."""
    first: int = 0
    """The first class in masks that are read from files: 1 where they count from 1."""
    class_names: tuple[str, ...] = ()
    """What to call the classes; their numbers if empty."""

    main_metric = "miou"
    metric_specs = {
        "miou": MetricSpec("mean IoU", higher_is_better=True),
        "pixel_accuracy": MetricSpec("pixel accuracy", higher_is_better=True, percent=True),
        "iou": MetricSpec("iou"),
    }

    def __post_init__(self):
        super().__post_init__()
        require_classes(self, 2)

    def head(self):
        return self.dense_head(outputs=self.num_classes)

    def labelled(self, label):
        """Which pixels carry a class."""
        return (label >= 0) & (label < self.num_classes) & (label != self._ignored)

    @property
    def _ignored(self) -> int:
        return -1 if self.ignore is None else self.ignore

    def pixel_losses(self, output, label):
        valid = self.labelled(label)
        # By comparison, not by index: the gradient of an index is a scatter, slow on CPUs.
        own = jnp.where(valid, label, 0)[..., None] == jnp.arange(self.num_classes).reshape(
            1, 1, 1, -1
        )
        return jax.nn.logsumexp(output, -1) - jnp.where(own, output, 0.0).sum(-1), valid

    def distance(self, output, target, temperature):
        return softmax_distance(output, target, temperature)

    @property
    def metrics(self):
        return _Confusion(self)

    def check(self, labels):
        require_shape(self.name, labels, (None, None))
        good = (labels >= 0) & (labels < self.num_classes) & (labels == np.floor(labels))
        rule = f"must be a whole number in 0..{self.num_classes - 1}"
        if self.ignore is not None:
            good |= labels == self.ignore
            rule += f", or {self.ignore} where there is none"
        require(self.name, good, labels, rule)

    def constant(self, labels, size):
        """The classes' shares of the labelled pixels: least loss, and the most frequent class."""
        shares = log_frequencies(labels[self.labelled(labels)], self.num_classes)
        return np.broadcast_to(shares, (*size, self.num_classes))

    def read(self, value):
        found = plane(value)
        ignored = found == self._ignored
        return np.where(ignored, self._ignored, found - float(self.first)).astype(np.int32)

    def blank(self, size):
        return np.full(size, self._ignored, np.int32)

    def warp(self, label, warp):
        return warp.plane(label, fill=self._ignored)

    def contents(self, label):
        return label[np.asarray(self.labelled(label))]

    def decode(self, output):
        """[B, H, W]: the class with the largest logit."""
        return output.argmax(-1)

    def text(self, value):
        value = np.asarray(value)
        seen, counts = np.unique(value[np.asarray(self.labelled(value))], return_counts=True)
        if not len(seen):
            return "nothing"
        most = int(seen[counts.argmax()])
        name = self.class_names[most] if self.class_names else f"class {most}"
        return f"{len(seen)} classes, most {name}"

    @property
    def legend(self):
        return tuple(zip(self.class_names, class_colors(self.num_classes), strict=False))

    def picture(self, value, image):
        del image
        return paint_classes(
            np.where(self.labelled(np.asarray(value)), value, -1), self.num_classes
        )


class _Confusion(Metrics):
    """Counts of pixels [C, C]: row the true class, column the predicted one."""

    def __init__(self, task: Segmentation):
        self.task = task

    def empty(self):
        size = self.task.num_classes
        return {"confusion": np.zeros((size, size), np.int32)}

    def update(self, state, output, label, present):
        size = self.task.num_classes
        valid = self.task.labelled(label) & of_rank(present, label.ndim)
        label = jnp.where(valid, label, 0).astype(jnp.int32)
        cell = label * size + output.argmax(-1).astype(jnp.int32)
        counts = jnp.zeros(size**2, jnp.int32).at[cell].add(valid.astype(jnp.int32))
        return {"confusion": state["confusion"] + counts.reshape(size, size)}

    def compute(self, state):
        confusion = np.asarray(state["confusion"], np.int64)
        hits, true, predicted = np.diagonal(confusion), confusion.sum(1), confusion.sum(0)
        either, total = true + predicted - hits, confusion.sum()
        seen = either > 0
        iou = np.where(seen, hits / np.maximum(either, 1), np.nan)
        return {
            "miou": float(iou[seen].mean()) if total else float("nan"),
            "pixel_accuracy": float(hits.sum() / total) if total else float("nan"),
            "iou": iou.tolist(),
        }
