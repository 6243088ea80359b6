"""Interface of a task: loss, metrics, head, label handling and drawing."""

import abc
import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Literal, Self

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Num

from mtljax.tasks import parsing
from mtljax.tasks.drawing import RGB, Color
from mtljax.tasks.metric import Metrics, MetricSpec, NoMetrics, Present, TaskMetrics
from mtljax.tasks.warps import Pixels, Warp
from mtljax.utils.tree import as_tuples

ChangeKind = Literal["dropped", "clipped", "converted", "missing", "warning"]
"""What was done with values of a label."""
Changes = Mapping[tuple[ChangeKind, str], int]
"""Numbers of changed values of a label, by kind and description in the plural."""
SumAndCount = tuple[Float[Array, ""], Float[Array, ""]]
"""Sum of a batch's losses and the number of its terms."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task(abc.ABC):
    """Base class of the tasks in `TASKS` and of user-defined tasks.

    Training needs `name` and `loss`; other methods have defaults that neither report nor draw.
    """

    name: str
    """Name of the task in labels, outputs and metrics."""

    main_metric: ClassVar[str] = "loss"
    """Metric that delta_m compares, and that may select the checkpoint."""
    higher_is_better: ClassVar[bool] = False
    """Direction of the main metric; taken from its spec if the class does not set it."""
    one_file_type: ClassVar[bool] = True
    """True if all label files must have one number format, on which the unit depends."""
    accepts_lossy_files: ClassVar[bool] = False
    """True if labels may be JPEG files, whose compression changes values."""
    accepts_empty_columns: ClassVar[bool] = False
    """True if some of the columns of one label may be empty."""
    cleans_by_size: ClassVar[bool] = True
    """True if `clean` depends on the size of the image, if the class defines it."""
    former: ClassVar[Mapping[str, Any]] = {}
    """Values of fields in configurations that were written before these fields existed, if they are
    not the defaults."""
    metric_specs: ClassVar[Mapping[str, MetricSpec]] = {
        "loss": MetricSpec("loss", higher_is_better=False)
    }
    """Specs of the metrics by name, in addition to those of the base classes."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        inherited = [vars(base).get("metric_specs", {}) for base in reversed(cls.__mro__)]
        cls.metric_specs = {name: spec for specs in inherited for name, spec in specs.items()}
        spec = cls.metric_specs.get(cls.main_metric)
        if "main_metric" in vars(cls) and "higher_is_better" not in vars(cls) and spec:
            cls.higher_is_better = bool(spec.higher_is_better)

    def metric_spec(self, name: str) -> MetricSpec:
        """Returns the spec of a metric; a plain default for a metric without a declared one."""
        default = MetricSpec(name.replace("_", " "), higher_is_better=dict(self.compared).get(name))
        return self.metric_specs.get(name, default)

    def __post_init__(self) -> None:
        """Replaces lists by tuples, as models are hashed; raises ValueError for invalid fields."""
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if type(value) in (list, tuple):
                object.__setattr__(self, field.name, as_tuples(value))

    @property
    def derived(self) -> tuple[str, ...]:
        """Fields that are to be derived from the training labels; see `resolve`."""
        return ()

    @property
    def is_resolved(self) -> bool:
        """True if the task can be trained: it lacks no field that only the data has."""
        return not self.derived

    def classes_in(self, value: Any) -> Iterable[str]:
        """Returns the classes that a raw label mentions, as text, for tasks with classes."""
        return ()

    def with_classes(self, names: Sequence[str]) -> Self:
        """Returns the task with the classes of the data, by index, unless it has its own.

        Raises:
          ValueError: The number of classes is another one.
        """
        return self

    def resolve(self, labels: Any) -> Self:
        """Returns the task with the fields in `derived` computed from training labels.

        Args:
          labels: NumPy arrays [N, ...], N >= 1, without missing labels.
        """
        return self

    @property
    def compared(self) -> tuple[tuple[str, bool], ...]:
        """Metrics by which methods are compared: (name, True if higher is better)."""
        return ((self.main_metric, self.higher_is_better),)

    @property
    def taps(self) -> int:
        """Number of final trunk stages that the head reads."""
        return 1

    @abc.abstractmethod
    def loss(self, output: Any, label: Any, present: Present) -> SumAndCount:
        """Returns the sum of the losses of the labeled examples, or pixels, and their number."""

    def distance(self, output: Any, target: Any, temperature: float) -> Float[Array, " B"]:
        """Returns the distillation loss of each image; by default the loss with target as label.

        Args:
          output: Output of the student.
          target: Output of the teacher.
          temperature: Divisor of both logits; the distance is multiplied by its square.

        Raises:
          ValueError: The task does not support output distillation.
        """

        def one_image(output: Any, target: Any) -> Float[Array, ""]:
            output, target = jax.tree.map(lambda x: x[None], (output, target))
            total, count = self.loss(output, target, jnp.ones(1, bool))
            return total / jnp.maximum(count, 1)

        return jax.vmap(one_image)(output, target)

    def head(self) -> nn.Module:
        """Returns a module: (last `taps` stage outputs, size=(H, W), train=...) -> output."""
        raise ValueError(f"task {self.name!r} has no head: define {type(self).__name__}.head")

    @property
    def metrics(self) -> Metrics:
        """Metrics in addition to the mean loss, which every task has."""
        return NoMetrics()

    def check(self, labels: Any) -> None:
        """Raises ValueError, in one line, if the labels are invalid for this task."""
        del labels

    def constant_output(self, labels: Any, size: Pixels) -> Any | None:
        """Returns the output of the constant-predictor baseline for an image, None without one.

        Args:
          labels: NumPy arrays [N, ...], N >= 1, without missing labels, which it fits best.
          size: Height and width of the images.
        """
        return None

    def parse(self, value: Any) -> Any:
        """Returns the label for a table cell or an array from a file, in its pixel coordinates.

        By default, a cell has a number, or several, as floating-point numbers.

        Raises:
          ValueError: The value is invalid; one line, without the name of the task.
        """
        is_cell = isinstance(value, str | int | float)
        if is_cell or (isinstance(value, list | tuple) and not any(map(np.ndim, value))):
            values = parsing.numbers(value).astype(np.float32)
            return values[0] if is_cell and len(values) == 1 else values
        return np.asarray(value)

    def check_columns(self, columns: Sequence[str]) -> None:  # noqa: B027  # not abstract
        """Raises ValueError if names of a label's columns contradict the order that is parsed."""

    def check_mirror(self, *, vertical: bool) -> None:  # noqa: B027  # not abstract
        """Raises ValueError if it is not known how a mirror image changes the labels.

        Args:
          vertical: True if top and bottom are exchanged, not left and right.
        """

    def clean(self, label: Any, size: Pixels) -> tuple[Any, Changes]:
        """Returns a parsed label without what an image of this size cannot have, and counts.

        Args:
          label: Result of `parse`, in the pixels of the image file.

        Returns:
          The label, None if no part of it is left and it is missing, and what was changed.
        """
        return label, {}

    def placeholder(self, size: Pixels) -> Any:
        """Returns the label array for a missing label of an image of this height and width."""
        raise ValueError(
            f"task {self.name!r} has missing labels: define {type(self).__name__}.placeholder"
        )

    def warp(self, label: Any, warp: Warp) -> Any:
        """Returns the label of one image, without the batch axis, after a geometric change.

        Raises:
          ValueError: The label has spatial axes and the class does not define this method.
        """
        if any(np.ndim(leaf) >= 2 for leaf in jax.tree.leaves(label)):
            raise ValueError(
                f"the labels of task {self.name!r} have spatial axes and must move with the image: "
                f"define {type(self).__name__}.warp"
            )
        return label

    def mix(self, label: Any, other: Any, weight: Float[Array, ""]) -> Any:
        """Returns the label of `weight` * one image + (1 - `weight`) * another, for mixup.

        Raises:
          ValueError: The labels of this task cannot be mixed.
        """
        raise ValueError(
            f"the labels of task {self.name!r} ({type(self).__name__}) cannot be mixed: leave out "
            "mixup and cutmix"
        )

    def paste(
        self, label: Any, other: Any, region: Bool[Array, "H W"], weight: Float[Array, ""]
    ) -> Any:
        """Returns the label of an image with the region of another pasted in, for cutmix.

        By default a mixture; `weight` is the fraction of the image that is not replaced.
        """
        return self.mix(label, other, weight)

    def label_values(self, label: Any) -> np.ndarray:
        """Returns the values of one label for label statistics: class indices [n], or numbers [n].

        Numbers [n, components] have statistics of each component.
        """
        return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(label)])

    def num_unknown(self, label: Any) -> int:
        """Returns the number of parts of one label that are not known, for label statistics."""
        return 0

    def decode(self, output: Any) -> Any:
        """Returns the prediction in the form of a label: classes, numbers in its unit, boxes."""
        return output

    def probabilities(self, output: Any, temperature: float = 1.0) -> Float[Array, "B C"] | None:
        """Returns the probability of each class, of logits over a temperature; None without."""
        return None

    def restore(self, prediction: Any, warp: Warp) -> Any:
        """Returns one example of `decode` in the pixels of the image file, by a change of size.

        Raises:
          ValueError: The class cannot move the labels with the image; see `warp`.
        """
        return self.warp(prediction, warp)

    def error(self, output: Any, label: Any) -> Float[Array, " B"]:
        """Returns the error of each example, by which reports sort examples."""
        return jnp.zeros(jnp.shape(output)[0])

    def text(self, value: Any) -> str:
        """Returns a short text for one label or decoded prediction."""
        return str(np.round(np.asarray(value), 2))

    def draw(self, axis: Any, outputs: np.ndarray, labels: np.ndarray) -> str | None:
        """Draws predictions against labels on matplotlib axes; returns the title, None if empty."""
        return None

    def draw_metrics(self, axis: Any, metrics: TaskMetrics) -> str | None:
        """Draws metrics of an entire split, instead of `draw`; returns the title, None if empty.

        The figure may be enlarged by `axis.figure.set_size_inches`.
        """
        return None

    @property
    def legend(self) -> tuple[tuple[str, Color], ...]:
        """Legend of `picture`: (text, RGB)."""
        return ()

    def picture(self, value: Any, image: Num[np.ndarray, "H W C"]) -> RGB | None:
        """Renders a label, or one example of `decode`, in some tasks on top of the input image."""
        return None
