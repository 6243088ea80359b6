"""The contract of a task: its loss, metrics, head, label check and drawing, a file per kind."""

import abc
import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Num, PyTree, UInt8

from mtljax.tasks.metric_spec import MetricSpec
from mtljax.tasks.warps import Warp

TaskMetrics = dict[str, Any]
"""Metrics of one task: name -> number, or nested lists of numbers (a confusion matrix, a curve)."""
SplitMetrics = dict[str, TaskMetrics]
"""Metrics of every task over one split: {task: {metric: value}}."""


class Metrics(abc.ABC):
    """Streaming metrics of a data set, exact under any batching and any number of devices.

    A state is a pytree of sums and counts. `update` runs on the device, for one batch, in 32 bits;
    `merge` and `compute` run on the host, on NumPy arrays of 64 bits, so that counts are exact
    beyond 2^24 and sums do not drift.
    """

    @abc.abstractmethod
    def empty(self) -> PyTree:
        """The state of no examples at all."""

    @abc.abstractmethod
    def update(self, state: PyTree, output: Any, label: Any, present: Bool[Array, " B"]) -> PyTree:
        """The state after one more batch, of which only `present` examples count."""

    def merge(self, a: PyTree, b: PyTree) -> PyTree:
        """The state of both parts together: by default, their sum."""
        if isinstance(a, dict):
            return {name: self.merge(a[name], b[name]) for name in a}
        return a + b

    @abc.abstractmethod
    def compute(self, state: PyTree) -> dict[str, Any]:
        """Name -> number (or nested lists), NaN where no example carries the label."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task(abc.ABC):
    """One thing to learn from an image. Kinds of task are subclasses; see `TASKS`.

    Only `name` and `loss` are needed to train; what evaluation and pictures need has defaults that
    show nothing.
    """

    name: str
    """What the labels, the outputs and the metrics of this task are called."""

    main_metric: ClassVar[str] = "loss"
    """Metric that selects the checkpoint and that delta_m compares."""
    higher_is_better: ClassVar[bool] = False
    """Direction of the main metric; by default that of its spec."""
    metric_specs: ClassVar[Mapping[str, MetricSpec]] = {
        "loss": MetricSpec("loss", higher_is_better=False)
    }
    """Specs of the metrics by name; those of the base classes are inherited."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        bases = [getattr(base, "metric_specs", {}) for base in reversed(cls.__mro__)]
        cls.metric_specs = {name: spec for specs in bases for name, spec in specs.items()}
        spec = cls.metric_specs.get(cls.main_metric)
        if "main_metric" in vars(cls) and "higher_is_better" not in vars(cls) and spec is not None:
            cls.higher_is_better = bool(spec.higher_is_better)

    def metric_spec(self, name: str) -> MetricSpec:
        """Returns the spec of a metric, a plain default for one without a declared spec."""
        default = MetricSpec(name.replace("_", " "), higher_is_better=dict(self.compared).get(name))
        return self.metric_specs.get(name, default)

    @property
    def compared(self) -> tuple[tuple[str, bool], ...]:
        """The metrics by which methods are compared, and of each whether higher is better."""
        return ((self.main_metric, self.higher_is_better),)

    @property
    def taps(self) -> int:
        """How many of the trunk's last stages the head reads."""
        return 1

    @abc.abstractmethod
    def loss(
        self, output: Any, label: Any, present: Bool[Array, " B"]
    ) -> tuple[Float[Array, ""], Float[Array, ""]]:
        """(sum of the losses of the examples, or pixels, that carry the label; their number)."""

    def distance(self, output: Any, target: Any, temperature: float) -> Float[Array, " B"]:
        """How far each image's output is from a teacher's output for it: what distillation lessens.

        By default the task's own loss, with the teacher's output as the label.

        Args:
          output: Of the network that learns.
          target: Of the teacher, in the same form.
          temperature: Logits of both are divided by it, and the distance multiplied by its square.

        Raises:
          ValueError: This kind of task cannot imitate outputs.
        """
        del temperature

        def one(output: Any, target: Any) -> Float[Array, ""]:
            output, target = jax.tree.map(lambda x: x[None], (output, target))
            total, count = self.loss(output, target, jnp.ones(1, bool))
            return total / jnp.maximum(count, 1)

        return jax.vmap(one)(output, target)

    def head(self) -> nn.Module:
        """A module: (tuple of the last `taps` stage outputs, size=(H, W), train=...) -> output."""
        raise ValueError(f"task {self.name!r} ({type(self).__name__}) brings no head of its own")

    @property
    def metrics(self) -> Metrics:
        """Beside the mean loss, which every task has."""
        return NoMetrics()

    def check(self, labels: np.ndarray) -> None:
        """Raises ValueError, in one line, for labels that this task cannot learn."""
        del labels

    def constant(self, labels: Any, size: tuple[int, int]) -> Any | None:
        """The output, one for every image, that fits these labels best; None if there is none.

        Only a network that does better has learned to look at images.

        Args:
          labels: Of at least one training example, all of them present: NumPy arrays [N, ...].
          size: Height and width of the images.

        Returns:
          One image's output, in NumPy.
        """
        del labels, size
        return None

    def read(self, value: Any) -> Any:
        """A label of what a data source has: a cell of a table, or an array from a file.

        Positions and maps stay in the pixels of the image they were made for.

        Raises:
          ValueError: It is no label of this kind, in one line that does not name the task.
        """
        return np.asarray(value)

    def blank(self, size: tuple[int, int]) -> Any:
        """What stands in place of a missing label of an image of this height and width.

        Raises:
          ValueError: This kind of task does not say so.
        """
        del size
        raise ValueError(
            f"task {self.name!r} ({type(self).__name__}) does not say what stands for a missing "
            "label: give it a method `blank`"
        )

    def warp(self, label: Any, warp: Warp) -> Any:
        """The label of one image, without the batch axis, after a change of place.

        Raises:
          ValueError: The label has positions, and this kind of task does not say how they move.
        """
        del warp
        if any(np.ndim(leaf) >= 2 for leaf in jax.tree.leaves(label)):
            raise ValueError(
                f"the labels of task {self.name!r} ({type(self).__name__}) have positions, which "
                "it does not move with the image: give it a method `warp`"
            )
        return label

    def mix(self, label: Any, other: Any, share: Float[Array, ""]) -> Any:
        """The label of `share` of one image and 1 - `share` of another, if there is such a thing.

        Raises:
          ValueError: There is not.
        """
        del label, other, share
        raise ValueError(
            f"the labels of task {self.name!r} ({type(self).__name__}) cannot be mixed: leave out "
            "mixup and cutmix"
        )

    def paste(
        self, label: Any, other: Any, region: Bool[Array, "H W"], share: Float[Array, ""]
    ) -> Any:
        """The label of one image with a region of another pasted in, which leaves `share` of it.

        Raises:
          ValueError: There is no such thing.
        """
        del region
        return self.mix(label, other, share)

    def contents(self, label: Any) -> np.ndarray:
        """What statistics count in one label, [n]: numbers of classes (integers), or numbers."""
        return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(label)])

    def decode(self, output: Any) -> Any:
        """What a person calls the prediction: a class, a number in the label's unit, a mask."""
        return output

    def error(self, output: Any, label: Any) -> Float[Array, " B"]:
        """How wrong each example is, for showing the worst first."""
        del label
        return jnp.zeros(jnp.shape(output)[0])

    def text(self, value: Any) -> str:
        """One label or decoded prediction in a few characters."""
        return str(np.round(np.asarray(value), 2))

    def draw(self, axis: Any, outputs: np.ndarray, labels: np.ndarray) -> str | None:
        """Draws predictions against truth on a matplotlib axis; the title, or None if nothing."""
        del axis, outputs, labels
        return None

    @property
    def legend(self) -> tuple[tuple[str, UInt8[np.ndarray, "3"]], ...]:
        """What the colours of `picture` mean: (words, RGB)."""
        return ()

    def picture(
        self, value: Any, image: Num[np.ndarray, "H W C"]
    ) -> UInt8[np.ndarray, "H W 3"] | None:
        """One label, or one decoded prediction, as an image; None if it is not one.

        Args:
          value: A label without the batch axis, or the like from `decode`.
          image: What the network saw, in the data's own unit; some kinds draw on it.
        """
        del value, image
        return None


class NoMetrics(Metrics):
    """For a task that has its loss only."""

    def empty(self):
        return {}

    def update(self, state, output, label, present):
        del output, label, present
        return state

    def compute(self, state):
        del state
        return {}


def require_finite(name: str, labels: np.ndarray) -> None:
    """Raises ValueError where a label is NaN or infinite, naming the first."""
    require(
        name, np.isfinite(labels), labels, "labels must be finite (mark a missing one in `present`)"
    )


def require(name: str, good: np.ndarray, labels: np.ndarray, rule: str) -> None:
    """Raises ValueError, naming the first example and value that is not `good`."""
    if not good.all():
        where = np.argwhere(~good)[0]
        place = f" at {tuple(int(i) for i in where[1:])}" if len(where) > 1 else ""
        raise ValueError(
            f"task {name!r}: label of example {where[0]} is {labels[tuple(where)]}{place}; {rule}"
        )


def require_shape(name: str, labels: np.ndarray, shape: tuple[int | None, ...]) -> None:
    """Raises ValueError unless labels have this shape after the first axis; None is any size."""
    found = labels.shape[1:]
    if len(found) != len(shape) or any(
        wanted not in (None, size) for size, wanted in zip(found, shape, strict=True)
    ):
        wanted = ", ".join(["N", *("?" if size is None else str(size) for size in shape)])
        raise ValueError(f"task {name!r}: labels of shape {labels.shape}; must be [{wanted}]")
