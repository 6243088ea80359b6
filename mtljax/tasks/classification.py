"""Classification: one class per image."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Float, Int

from mtljax.models.heads import VectorHead
from mtljax.tasks.base import Metrics, Task, require_finite
from mtljax.tasks.metric_spec import MetricSpec
from mtljax.tasks.raw import class_of
from mtljax.tasks.settings import require_classes
from mtljax.tasks.soft import softmax_distance
from mtljax.tasks.streaming import fill_absent


@dataclasses.dataclass(frozen=True, kw_only=True)
class Classification(Task):
    """One of `num_classes` per image. Output: logits [B, C]. Labels: integers [B].

    `loss` also takes distributions over the classes, [B, C], which mixed images have.
    """

    num_classes: int
    label_smoothing: float = 0.0
    """Share of the target spread evenly over the classes, in [0, 1). Training loss only: the
    validation and test loss is the same function, so compare losses between equal settings."""
    class_names: tuple[str, ...] = ()
    """What to call the classes in pictures; their numbers if empty."""

    main_metric = "accuracy"
    metric_specs = {
        "accuracy": MetricSpec("accuracy", higher_is_better=True, percent=True),
        "macro_f1": MetricSpec("macro F1", higher_is_better=True),
        "confusion": MetricSpec("confusion matrix"),
    }

    def __post_init__(self):
        require_classes(self, 2)
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(
                f"task {self.name!r}: label_smoothing must be in [0, 1), not {self.label_smoothing}"
            )

    def head(self):
        return VectorHead(outputs=self.num_classes)

    def loss(self, output, label, present):
        target = fill_absent(label, present)
        if target.ndim == 1:
            target = jax.nn.one_hot(target, self.num_classes)
        if self.label_smoothing:
            target = optax.smooth_labels(target, self.label_smoothing)
        losses = optax.softmax_cross_entropy(output, target)
        return jnp.where(present, losses, 0.0).sum(), present.sum().astype(jnp.float32)

    def distance(self, output, target, temperature):
        return softmax_distance(output, target, temperature)

    @property
    def metrics(self):
        return _Confusion(self.num_classes)

    def check(self, labels):
        require_finite(self.name, labels)
        bad = (labels < 0) | (labels >= self.num_classes) | (labels != np.floor(labels))
        if bad.any():
            first = int(np.argmax(bad))
            raise ValueError(
                f"task {self.name!r}: label of example {first} is {labels[first]}; must be a whole "
                f"number in 0..{self.num_classes - 1}"
            )

    def constant(self, labels, size):
        """The classes' frequencies: least loss, and the most frequent class."""
        del size
        return log_frequencies(labels, self.num_classes)

    def read(self, value):
        return np.int32(class_of(value, self.class_names))

    def blank(self, size):
        del size
        return np.int32(0)

    def mix(self, label, other, share):
        """[C]: a distribution over the classes, which `loss` takes as well."""
        soft = lambda x: x if jnp.ndim(x) else jax.nn.one_hot(x, self.num_classes)
        return share * soft(label) + (1 - share) * soft(other)

    def decode(self, output):
        """[B]: the class with the largest logit; the softmax of the logits are probabilities."""
        return output.argmax(-1)

    def error(self, output, label):
        # In the arrays' own library: compiling for NumPy arrays would take longer than the rest.
        xp = output.__array_namespace__()
        highest = output.max(-1)
        total = xp.log(xp.exp(output - highest[:, None]).sum(-1)) + highest
        return total - xp.take_along_axis(output, label[:, None], axis=-1)[:, 0]

    def text(self, value):
        return self.class_names[int(value)] if self.class_names else str(int(value))

    def draw(self, axis, outputs, labels):
        confusion = np.zeros((self.num_classes, self.num_classes), int)
        np.add.at(confusion, (labels, self.decode(outputs)), 1)
        share = confusion / np.maximum(confusion.sum(1, keepdims=True), 1)
        shades = axis.imshow(share, cmap="Blues", vmin=0, vmax=1)
        axis.grid(False)
        if self.num_classes <= 20:
            size = 9.5 if self.num_classes <= 12 else 6.5
            for row, column in np.argwhere(confusion):
                color = "white" if share[row, column] > 0.5 else "black"
                axis.text(
                    column,
                    row,
                    confusion[row, column],
                    ha="center",
                    va="center",
                    color=color,
                    fontsize=size,
                )
            ticks = range(self.num_classes)
            names = [_short(self.text(i)) for i in ticks]
            axis.set_xticks(ticks, names, rotation=90 if self.class_names else 0)
            axis.set_yticks(ticks, names)
        else:
            axis.figure.colorbar(shades, ax=axis, label="share of the true class", shrink=0.8)
        axis.set_xlabel("predicted class")
        axis.set_ylabel("true class")
        wrong = confusion - np.diag(np.diagonal(confusion))
        title = f"{self.name}: {wrong.sum()} of {confusion.sum()} test images in a wrong class"
        if wrong.max() > 1:
            true, predicted = np.unravel_index(wrong.argmax(), wrong.shape)
            title += (
                f"; most often {self.text(true)} taken for {self.text(predicted)} "
                f"({wrong.max()} times)"
            )
        return title


def log_frequencies(labels: Int[np.ndarray, "..."], count: int) -> Float[np.ndarray, " C"]:
    """Of `count` classes, each seen once more than it was, so that none is impossible."""
    seen = np.asarray([np.count_nonzero(labels == c) for c in range(count)]) + 1
    return np.log(seen / seen.sum()).astype(np.float32)


def _short(name: str) -> str:
    return name if len(name) <= 16 else name[:15] + "…"


class _Confusion(Metrics):
    """Counts [C, C]: row the true class, column the predicted one."""

    def __init__(self, num_classes: int):
        self.num_classes = num_classes

    def empty(self):
        return {"confusion": np.zeros((self.num_classes, self.num_classes), np.int32)}

    def update(self, state, output, label, present):
        label = fill_absent(label, present)
        cell = label * self.num_classes + output.argmax(-1).astype(label.dtype)
        counts = jnp.zeros(self.num_classes**2, jnp.int32).at[cell].add(present.astype(jnp.int32))
        return {"confusion": state["confusion"] + counts.reshape(self.num_classes, -1)}

    def compute(self, state):
        confusion = np.asarray(state["confusion"])
        hits, true, predicted = np.diagonal(confusion), confusion.sum(1), confusion.sum(0)
        seen = true + predicted > 0
        f1 = 2 * hits[seen] / (true + predicted)[seen]
        return {
            "accuracy": float(hits.sum() / true.sum()) if true.sum() else float("nan"),
            "macro_f1": float(f1.mean()) if seen.any() else float("nan"),
            "confusion": confusion.tolist(),
        }
