"""Experiment: complete description of one training run as plain data."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, TypeAlias, TypeVar, cast

from mtljax.balancing import BALANCERS, COMBINATORS, Balancer
from mtljax.models import FUSIONS, TRUNKS, Fusion, Trunk
from mtljax.tasks import Task
from mtljax.utils.spec import Spec, to_text
from mtljax.utils.text import quoted

T = TypeVar("T")
FusionFactory: TypeAlias = Callable[..., Fusion]
"""A class of `mtljax.models.FUSIONS`, or a partial of one with its arguments."""

if TYPE_CHECKING:

    class AsText(Generic[T]):
        """Field that accepts text or an object with a spec, and reads as text."""

        def __get__(self, instance: object, owner: type) -> str: ...

        def __set__(self, instance: object, value: str | T) -> None: ...

else:

    class AsText:
        """`str`, the type of the field's value."""

        def __class_getitem__(cls, accepted):
            return str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Data:
    """Data source and input pipeline."""

    source: str
    """Data source with its arguments; see `list sources`."""
    labels: dict[str, str] = dataclasses.field(default_factory=dict)
    """Task -> name of its labels in the source (a label, column, feature or folder), if that
    differs from the task's name."""
    drop: str | None = None
    """File that lists examples and labels to leave out, written by `screen --drop FILE`."""
    fold: str | None = None
    """Fold of a cross-validation, such as 2/5: one fifth of the examples of all splits is the test
    split, the others are for training and validation. `compare --folds 5` trains all folds."""
    on_error: Literal["fail", "skip"] = "fail"
    """Examples that cannot be used, such as missing or damaged files: report them as an error, or
    leave them out and count them, which reads all files once before training."""
    batch_size: int = 64
    """Examples per step, over all devices and processes."""
    augment: tuple[str, ...] = ()
    """Augmentations of training examples, applied in order inside the step; see `list
    augmentations`."""
    decoder: Literal["turbo", "turbo_scaled", "pillow"] = "turbo"
    """Decoder of JPEG files, in training and wherever the trained model reads files. turbo:
    libjpeg-turbo, with the pixels of Pillow. turbo_scaled: also reduces images by 2, 4 or 8 while
    decoding them, down to the size to resize to; faster, with slightly different pixels. pillow."""
    keep_on_device: Literal["auto", "yes", "no"] = "auto"
    """Keep the full data set in device memory and index it there. auto: if it is below 1 GiB."""
    cache: float | None = None
    """Maximum size in GB of the cache of decoded, resized examples, which later epochs and runs
    read: ~/.cache/mtljax/examples, the same for all runs. none: no cache."""
    workers: int = 0
    """Processes that read data outside device memory. 0: threads of the main process."""
    former: ClassVar[Mapping[str, str]] = {"decoder": "pillow"}
    """Values of fields for a configuration that was written before they existed."""

    def __post_init__(self) -> None:
        if isinstance(self.augment, str):  # a single one, given without a comma
            object.__setattr__(self, "augment", (self.augment,))
        if self.cache is not None and not self.cache > 0:
            raise ValueError(f"data.cache must be > 0 GB, or none, not {self.cache}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Experiment:
    """Complete description of one training run.

    `trunk`, `fusion` and `balancer` accept the text of the command line or an object: a trunk of
    `mtljax.models`, a fusion class or a `functools.partial` of one, a balancer of
    `mtljax.balancing`. Objects are stored as text.

    Example:
      >>> from mtljax.balancing import cagrad
      >>> from mtljax.config import from_json, to_json
      >>> from mtljax.tasks import Classification, Regression
      >>> experiment = Experiment(
      ...     name="mine",
      ...     tasks=(Classification(name="digit", num_classes=10), Regression(name="value")),
      ...     data=Data(source="digits"),
      ...     balancer=cagrad(c=0.4),
      ... )
      >>> experiment.balancer
      'cagrad:c=0.4'
      >>> from_json(to_json(experiment)) == experiment
      True
    """

    name: str
    """Name of the experiment, used in the name of the run folder."""
    tasks: tuple[Task, ...]
    """Tasks to learn, each named like its labels in the data source."""
    data: Data
    """Data, with batches and augmentations."""

    trunk: AsText[Trunk] = cast(Any, "cnn")
    """Shared network with its arguments; see `list trunks`."""
    fusion: AsText[FusionFactory] = cast(Any, "none")
    """Architecture by which tasks share the trunk and exchange features; see `list fusions`."""
    condition: str = "none"
    """Conditioning on the preference over tasks, so that one network covers the Pareto front:
    cosmos, hypernetwork or palora, with their arguments; see `list conditionings`. The preference
    is drawn for each batch and equal in evaluation; `predict --preference` sets it."""
    init: str | None = None
    """Pretrained weights: a run folder, a .safetensors file, a PyTorch state dict (.pth), or
    package:NAME/FILE for a file in a Python package. none: random weights."""
    init_part: Literal["trunk", "fusion", "all"] = "trunk"
    """Part to initialize from `init`. trunk: for any tasks. fusion: also the fusion's remaining
    parameters. all: also the heads, which requires the same tasks."""
    remat: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""

    balancer: AsText[Balancer] = cast(Any, "ew")
    """Rule that turns the tasks' losses or gradients into one update; see `list balancers`."""
    level: Literal["parameters", "features"] = "parameters"
    """Gradients that the balancer reads. parameters: exact, with respect to the shared parameters.
    features: with respect to the shared representation, at about the cost of a plain step."""
    jacobian: Literal["rows", "gramian"] = "rows"
    """Storage of the task gradients. rows: each of them. gramian: only their inner products, with
    less memory and one more backward pass."""
    pullback: Literal["auto", "vmap", "loop"] | int = "auto"
    """Computation of the task gradients: all at once (vmap), one at a time (loop), or N at a time.
    auto: the fastest in benchmarks on the backend; one at a time on several devices."""
    heads: Literal["auto", "own", "weighted"] = "auto"
    """Gradient for the heads: that of the task's loss (own) or of the weighted loss (weighted).
    auto: as in the balancer's paper."""

    steps: int = 1000
    """Number of updates."""
    optimizer: str = "adamw"
    """optax optimizer with its arguments; see `list optimizers`."""
    learning_rate: float = 1e-3
    """Peak learning rate."""
    schedule: str = "cosine"
    """Learning rate schedule: constant, cosine, linear, poly, step or plateau, each with warmup=N;
    see `list schedules`."""
    learning_rate_scales: dict[str, float] = dataclasses.field(default_factory=dict)
    """Module -> factor of its learning rate, such as trunk 0.1 task_digit 10; modules are named as
    for `freeze`. If several names match, the last one counts."""
    clip_norm: float | None = None
    """Maximum norm of the gradient; longer ones are scaled down to it. none: no clipping."""
    decay_biases: bool = False
    """Also apply weight decay to biases and normalization parameters."""
    microbatches: int = 1
    """Number of parts that a batch is processed in to save memory. The result is the same, except
    with batch normalization, whose statistics are then those of each part, and with dropout."""
    ema: float | None = None
    """Decay of the parameters' moving average, which is then evaluated. none: no average."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Computation type of the model; parameters and losses stay float32."""
    sharding: str = "replicated"
    """Placement of parameters, optimizer state and task gradients on several devices: replicated,
    or fsdp, which shards them; see `list shardings`."""
    max_skipped: int = 10
    """Consecutive updates with non-finite values after which training stops."""

    freeze: tuple[str, ...] = ()
    """Modules whose parameters are frozen: trunk (all of it), trunk_0, trunk_1, ... (a stage),
    task_NAME (a head), fusion/..., with * as wildcard. Modules below all trainable ones need no
    backward pass. Batch statistics are not parameters: see `freeze_statistics`."""
    freeze_statistics: bool = False
    """Use batch normalization in evaluation mode, with its statistics unchanged."""
    layer_decay: float = 1.0
    """Layer-wise learning rate decay: factor of each trunk block's learning rate relative to the
    block above it; heads use the full rate. 1: no decay; 0.65 to 0.9 is usual."""
    unfreeze_every: int | None = None
    """Gradual unfreezing: train heads and fusion from the start, the trunk's last stage after N
    updates, the stage below it after N more, and so on. none: train all from the start."""
    l2_sp: float = 0.0
    """Strength of the L2 pull towards the weights of `init` (L2-SP). It replaces weight decay for
    the parameters that `init` sets."""

    teachers: dict[str, str] = dataclasses.field(default_factory=dict)
    """Task -> run folder of a teacher for knowledge distillation."""
    distill: str = "outputs"
    """Kind of distillation with its arguments, such as outputs:weight=0.5,temperature=4 or
    features:weight=1; see `list distillations`."""

    adversarial: str | None = None
    """Adversarial training with an attack and its arguments, such as pgd:eps=0.03,steps=7, where
    eps is a fraction of the range from black to white; see `list attacks`."""

    encrypt: bool = False
    """Encrypt checkpoints and exports in the age format with the key in MTLJAX_KEY_FILE, MTLJAX_KEY
    or MTLJAX_PASSPHRASE."""

    seed: int = 0
    """Random seed of parameters, data order, augmentation and balancer."""
    log_every: int = 10
    """Steps per line of metrics.jsonl, which contains their mean."""
    eval_every: int = 100
    """Steps between evaluations on the validation split; each writes a checkpoint."""
    telemetry_every: int | None = None
    """Steps between measurements of the agreement of task gradients. none: often enough for a cost
    below 5 % (50 per task, at least ten log lines). 0: no measurements."""
    select: str = "loss"
    """Validation criterion of the best checkpoint: loss (lowest geometric mean of the tasks'
    losses), a metric of a task such as digit/accuracy, or a weighted sum of them such as
    digit/macro_f1+0.5:value/mae, in which errors count as negative."""
    patience: int | None = None
    """Early stopping: number of evaluations without a better `select` after which training stops.
    none: take all steps."""

    def __post_init__(self) -> None:
        for field in ("trunk", "fusion", "balancer", "optimizer"):
            object.__setattr__(self, field, as_text(field, getattr(self, field)))
        for field in ("steps", "microbatches", "max_skipped", "log_every", "eval_every"):
            if getattr(self, field) < 1:
                raise ValueError(f"{field} must be >= 1, not {getattr(self, field)}")
        if isinstance(self.freeze, str):  # a single one, given without a comma
            object.__setattr__(self, "freeze", (self.freeze,))
        if self.patience is not None and self.patience < 1:
            raise ValueError(f"patience must be >= 1 evaluation or none, not {self.patience}")
        if isinstance(self.pullback, int) and self.pullback < 1:
            raise ValueError(f"pullback must be auto, vmap, loop or >= 1, not {self.pullback}")
        if self.telemetry_every is not None and self.telemetry_every < 0:
            raise ValueError(f"telemetry_every must be >= 0, not {self.telemetry_every}")
        if self.data.batch_size < 1:
            raise ValueError(f"data.batch_size must be >= 1, not {self.data.batch_size}")
        if self.ema is not None and not 0 <= self.ema < 1:
            raise ValueError(f"ema must be in [0, 1), not {self.ema}")
        if self.seed < 0:
            raise ValueError(f"seed must be >= 0, not {self.seed}")
        if not self.tasks:
            raise ValueError("tasks is empty: an experiment needs at least one task")
        object.__setattr__(self, "tasks", tuple(self.tasks))
        for task in self.tasks:
            require_hashable(task)
        names = [task.name for task in self.tasks]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"two tasks are named {quoted(name)}: task names must be unique")
            if not name or {"/", ":"} & set(name):
                rule = "it must not be empty or contain / or :"
                raise ValueError(f"invalid task name {name!r}: {rule}")
        if not self.name or {"/", "\\", "\0"} & set(self.name):
            raise ValueError(f"invalid experiment name {self.name!r}: it must be a folder name")


def require_hashable(task: Task) -> None:
    """Raises ValueError, naming the field, for a task that a model cannot contain."""
    try:
        hash(task)
    except TypeError:
        kinds = {f.name: type(getattr(task, f.name)) for f in dataclasses.fields(task)}
        name = next((name for name, kind in kinds.items() if kind.__hash__ is None), "a field")
        raise ValueError(
            f"task {task.name!r}: {name} of {type(task).__name__} must be hashable, such as a "
            f"tuple, not a {kinds[name].__name__ if name in kinds else 'tuple of dicts'}"
        ) from None


def as_text(field: str, value: Any) -> str:
    """Text form of a trunk, fusion, balancer or optimizer, given as text or as an object.

    Raises:
      ValueError: The object has no spec, so that it could not be created again from config.json.
    """
    if isinstance(value, str):
        return value
    spec = _fusion_spec(value) if field == "fusion" else getattr(value, "spec", None)
    registry, advice = RECORDABLE[field]
    if spec is None or spec.name not in registry:
        name = getattr(value, "__name__", type(value).__name__)
        raise ValueError(
            f"{field}: {name} cannot be recorded in config.json; {advice}, or add your own "
            "function to the dict of its kind and write its name, or use mtljax.make_train_step"
        )
    return to_text(spec)


RECORDABLE: dict[str, tuple[Mapping[str, Any], str]] = {
    "trunk": (TRUNKS, "call a function of mtljax.models, as resnet18(norm='group')"),
    "fusion": (FUSIONS, "use a class of mtljax.models.FUSIONS, or functools.partial of one"),
    "balancer": (BALANCERS | COMBINATORS, "call a function of mtljax.balancing, as cagrad(c=0.4)"),
    "optimizer": ({}, "name an optimizer, as 'adamw:weight_decay=1e-2'"),
}
"""Field -> registry whose objects it accepts, and advice for other objects."""


def _fusion_spec(value: Any) -> Spec | None:
    make, arguments = value, {}
    if isinstance(value, functools.partial) and not value.args:
        make, arguments = value.func, value.keywords
    return next((Spec(n, arguments) for n, fusion in FUSIONS.items() if fusion is make), None)
