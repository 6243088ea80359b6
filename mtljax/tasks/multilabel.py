"""Multi-label classification: any number of classes per image."""

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mtljax.models.heads import VectorHead
from mtljax.tasks.base import Task, require, require_shape
from mtljax.tasks.metric_spec import MetricSpec
from mtljax.tasks.raw import class_of, number, numbers
from mtljax.tasks.settings import require_classes
from mtljax.tasks.soft import sigmoid_distance
from mtljax.tasks.streaming import PerExample, fill_absent


@dataclasses.dataclass(frozen=True, kw_only=True)
class MultiLabel(Task):
    """Each of `num_classes` in the image or not. Output: logits [B, C]. Labels: 0 or 1, [B, C].

    Loss: cross entropy, its mean over classes. Metrics: `f1`, the mean over classes of
    2 TP / (2 TP + FP + FN) at probability 1/2, of classes that are true or predicted anywhere; and
    `map`, the mean over classes that are true anywhere of average precision: the sum over
    examples, ranked by score, of precision times gain in recall, equal scores counted at once.
    """

    num_classes: int
    class_names: tuple[str, ...] = ()
    """What to call the classes; their numbers if empty."""

    main_metric = "map"
    metric_specs = {
        "map": MetricSpec("mean average precision", higher_is_better=True),
        "f1": MetricSpec("mean F1", higher_is_better=True),
        "average_precision": MetricSpec("average precision"),
    }

    def __post_init__(self):
        require_classes(self, 1)

    def head(self):
        return VectorHead(outputs=self.num_classes)

    def loss(self, output, label, present):
        losses = self.error(output, fill_absent(label, present))
        return jnp.where(present, losses, 0.0).sum(), present.sum().astype(jnp.float32)

    def distance(self, output, target, temperature):
        return sigmoid_distance(output, target, temperature)

    @property
    def metrics(self):
        return _Rankings()

    def check(self, labels):
        require_shape(self.name, labels, (self.num_classes,))
        require(self.name, (labels == 0) | (labels == 1), labels, "must be 0 or 1")

    def constant(self, labels, size):
        """Each class's frequency, as if it had been there and not there once more."""
        del size
        there = (labels != 0).sum(0)
        return np.log((there + 1) / (len(labels) - there + 1)).astype(np.float32)

    def read(self, value):
        """0 and 1 (or -1 and 1) for each class, {class name: there or not}, or "cat;dog"."""
        if isinstance(value, str) and self.class_names and not _is_numbers(value):
            there = {class_of(name, self.class_names) for name in value.split(";") if name.strip()}
            value = [i in there for i in range(self.num_classes)]
        if isinstance(value, Mapping):
            missing = [name for name in self.class_names if name not in value]
            if missing or not self.class_names:
                raise ValueError(f"nothing is said of {', '.join(missing) or 'class_names'}")
            value = [value[name] for name in self.class_names]
        found = np.asarray(
            [number(x) for x in value] if isinstance(value, (list, tuple)) else numbers(value)
        )
        if found.size != self.num_classes:
            raise ValueError(f"{found.size} numbers for {self.num_classes} classes")
        good = (found == 0) | (abs(found) == 1)
        if not good.all():
            raise ValueError(f"{found[~good][0]:g} is neither 0 nor 1 (nor -1)")
        return (found > 0).astype(np.int32)

    def blank(self, size):
        del size
        return np.zeros(self.num_classes, np.int32)

    def mix(self, label, other, share):
        return share * label.astype(share.dtype) + (1 - share) * other.astype(share.dtype)

    def contents(self, label):
        return np.flatnonzero(label)

    def decode(self, output):
        """[B, C]: 1 where the logit is above 0, a probability above 1/2; else 0."""
        return (output > 0).astype(jnp.int32)

    def error(self, output, label):
        return optax.sigmoid_binary_cross_entropy(output, label.astype(output.dtype)).mean(-1)

    def text(self, value):
        names = self.class_names or range(self.num_classes)
        return ", ".join(str(name) for name, on in zip(names, value, strict=True) if on) or "none"

    def draw(self, axis, outputs, labels):
        precision = average_precision(np.asarray(jax.device_get(outputs)), np.asarray(labels) != 0)
        names = self.class_names or [str(i) for i in range(self.num_classes)]
        axis.barh(names, np.nan_to_num(precision))
        axis.set_xlim(0, 1)
        axis.invert_yaxis()
        axis.set_xlabel("average precision")
        axis.set_ylabel("class")
        known = precision[np.isfinite(precision)]
        return f"{self.name}: mean average precision {known.mean():.2f}" if known.size else None


class _Rankings(PerExample):
    """Scores and labels of all examples: a ranking needs all of them."""

    names = ("map", "f1", "average_precision")

    def describe(self, output, label):
        return {"score": output, "truth": label != 0}

    def summarise(self, rows):
        score, truth = rows["score"], rows["truth"]
        predicted = score > 0
        hits, either = (truth & predicted).sum(0), truth.sum(0) + predicted.sum(0)
        f1 = 2 * hits[either > 0] / either[either > 0]
        precision = average_precision(score, truth)
        known = precision[np.isfinite(precision)]
        return {
            "map": float(known.mean()) if known.size else float("nan"),
            "f1": float(f1.mean()) if f1.size else float("nan"),
            "average_precision": precision.tolist(),
        }


def average_precision(score: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """[N, C], [N, C] -> [C]; NaN for classes that are nowhere true."""
    result = np.full(score.shape[1], np.nan)
    for i, (s, t) in enumerate(zip(score.T, truth.T, strict=True)):
        order = np.argsort(-s, kind="stable")
        s, hits = s[order], np.cumsum(t[order])
        last = np.flatnonzero(np.append(s[1:] != s[:-1], True))  # of each group of equal scores
        if hits[-1]:
            gain = np.diff(hits[last], prepend=0) / hits[-1]
            result[i] = (hits[last] / (last + 1) * gain).sum()
    return result


def _is_numbers(text: str) -> bool:
    return not text.strip("01-. ")
