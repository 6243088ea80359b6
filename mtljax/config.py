"""What an experiment is, and how one is found by name or path.

An `Experiment` is plain data: everything in it can be written to `config.json` and read back, and
that alone runs it again.
"""

import dataclasses
import json
import re
import traceback
import types
import typing
from pathlib import Path
from typing import Any, Literal

from mtljax.tasks import TASKS, Task
from mtljax.utils.bounded_reading import read_text
from mtljax.utils.registry import convert, nearest


@dataclasses.dataclass(frozen=True, kw_only=True)
class Data:
    """Where the examples come from and how they reach the step."""

    source: str
    """A data source and its arguments, as `list sources` shows."""
    labels: dict[str, str] = dataclasses.field(default_factory=dict)
    """Task -> where the source has its labels, if they are called otherwise than the task: the name
    of a label, a column, a feature, a folder."""
    drop: str | None = None
    """File with examples to leave out, as `screen --drop FILE` writes it."""
    batch_size: int = 64
    """Examples per step, over all devices and processes."""
    augment: tuple[str, ...] = ()
    """What is done to training examples inside the step, one after the other, as `list
    augmentations` shows."""
    keep_on_device: Literal["auto", "yes", "no"] = "auto"
    """Keep the whole data on the device and index it there; auto: if it takes less than 1 GiB."""
    workers: int = 0
    """Processes that read data that is not kept on the device; 0: threads of this one."""

    def __post_init__(self):
        if isinstance(self.augment, str):  # a single one, written without a comma behind it
            object.__setattr__(self, "augment", (self.augment,))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Experiment:
    """One training run, completely described.

    Example:
      >>> from mtljax.tasks import Classification, Regression
      >>> experiment = Experiment(
      ...     name="mine",
      ...     tasks=(Classification(name="digit", num_classes=10), Regression(name="value")),
      ...     data=Data(source="digits"),
      ...     balancer="cagrad:c=0.4",
      ... )
      >>> from_json(to_json(experiment)) == experiment
      True
    """

    name: str
    """What the run folder is called after."""
    tasks: tuple[Task, ...]
    """What to learn; each by the name of its labels in the data source."""
    data: Data

    trunk: str = "cnn"
    """The shared network and its arguments, as `list trunks` shows."""
    fusion: str = "none"
    """How tasks share the trunk and exchange features, as `list fusions` shows."""
    init: str | None = None
    """What to start from instead of random weights: a run folder, a .safetensors file, a PyTorch
    state dict (.pth), or package:NAME/FILE, a file in a Python package."""
    init_part: Literal["trunk", "fusion", "all"] = "trunk"
    """How much of it: the trunk, which serves any tasks; also the rest of the fusion; or all, the
    heads too, which must then be of the same tasks."""
    remat: bool = False
    """Compute activations again in the backward pass: less memory, about a third more time."""

    balancer: str = "ew"
    """How the tasks' losses or gradients become one update, as `list balancers` shows."""
    level: Literal["parameters", "features"] = "parameters"
    """What task gradients are taken with respect to: exact, or nearly free."""
    jacobian: Literal["rows", "gramian"] = "rows"
    """What is kept of the tasks' gradients: each of them, or only their inner products, which takes
    less memory and one more pass backwards."""
    pullback: Literal["auto", "vmap", "loop"] | int = "auto"
    """How the tasks' gradients are taken: all at once, one after the other, or so many at a time;
    auto: as was measured to be fastest."""
    heads: Literal["auto", "own", "weighted"] = "auto"
    """What heads receive: their own loss or the weighted one; auto: as in the balancer's paper."""

    steps: int = 1000
    """Updates."""
    optimizer: str = "adamw"
    """An optax optimizer and its arguments, as `list optimizers` shows."""
    learning_rate: float = 1e-3
    """The highest."""
    schedule: str = "cosine"
    """How the learning rate changes: constant, cosine, linear or step, each with warmup=N."""
    clip_norm: float | None = None
    """Longest gradient that is let through as it is."""
    decay_biases: bool = False
    """Also apply weight decay to biases and normalisation parameters."""
    microbatches: int = 1
    """Parts that a batch is worked through in, to save memory; the result is the same."""
    ema: float | None = None
    """Decay of the average of parameters that is evaluated; none: evaluate the parameters."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """What the model computes in; parameters and losses are float32."""
    max_skipped: int = 10
    """Stop after so many updates in a row that were not finite."""

    freeze: tuple[str, ...] = ()
    """Modules whose parameters do not change: trunk (all of it), trunk_0, trunk_1, ... (a stage),
    task_NAME (a head), fusion/..., with * for anything. What is below all that learns costs no
    backward pass. Batch statistics are no parameters: see `freeze_statistics`."""
    freeze_statistics: bool = False
    """Use batch normalisation as in evaluation, and leave its statistics as they are."""
    layer_decay: float = 1.0
    """Layer-wise decay of the learning rate: that of each block of the trunk is so many times that
    of the block above it, the heads' is the full one. 1: all alike; 0.65 to 0.9 is usual."""
    unfreeze_every: int | None = None
    """Gradual unfreezing: heads and fusion learn at once, the trunk's last stage after so many
    updates, the one below it after as many more; none: all at once."""
    l2_sp: float = 0.0
    """Pull the parameters that `init` gave a start back to it, so strongly (L2-SP); those do not
    decay besides."""

    teachers: dict[str, str] = dataclasses.field(default_factory=dict)
    """Task -> folder of a run that has learned it, from which this one learns it, too."""
    distill: str = "outputs"
    """What is learned from teachers and how strongly, as `list distillations` shows:
    outputs:weight=0.5,temperature=4 or features:weight=1."""

    adversarial: str | None = None
    """Learn from attacked images: an attack and its arguments, as `list attacks` shows, with the
    largest change as a share of black to white: pgd:eps=0.03,steps=7."""

    encrypt: bool = False
    """Encrypt checkpoints and exports, in the age format; the key comes from MTLJAX_KEY_FILE,
    MTLJAX_KEY or MTLJAX_PASSPHRASE."""

    seed: int = 0
    """Of everything random: parameters, order of the data, augmentation, balancer."""
    log_every: int = 10
    """Steps that a line of metrics.jsonl is the mean of."""
    eval_every: int = 100
    """Steps between evaluations on the validation split, each with a checkpoint."""
    telemetry_every: int | None = None
    """Steps between measurements of how the tasks' gradients agree; none: as many as keep their
    cost below 5 % (50 for each task, and no more than every tenth log line); 0: no measurements."""
    select: str = "loss"
    """What the best checkpoint is chosen by, on validation: `loss` (least geometric mean of the
    tasks' losses) or a metric of one task, `digit/accuracy`."""

    def __post_init__(self):
        for field in ("steps", "microbatches", "max_skipped", "log_every", "eval_every"):
            if getattr(self, field) < 1:
                raise ValueError(f"{field} must be >= 1, not {getattr(self, field)}")
        if isinstance(self.freeze, str):  # a single one, written without a comma behind it
            object.__setattr__(self, "freeze", (self.freeze,))
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
            raise ValueError("no task: an experiment needs at least one")
        names = [task.name for task in self.tasks]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"two tasks are called {name!r}; each needs a name of its own")
            if not name or {"/", ":"} & set(name):
                raise ValueError(f"a task cannot be called {name!r}: no name has / or : in it")
        if not self.name or {"/", "\\", "\0"} & set(self.name):
            raise ValueError(f"an experiment cannot be called {self.name!r}: it names a folder")


def to_json(experiment: Experiment) -> dict[str, Any]:
    """The experiment as plain dicts, lists, numbers and strings."""
    kinds = {cls: kind for kind, cls in TASKS.items()}
    config = dataclasses.asdict(experiment)
    config["tasks"] = [
        {"task": kinds.get(type(task), type(task).__qualname__), **fields}
        for task, fields in zip(experiment.tasks, config["tasks"], strict=True)
    ]
    return json.loads(json.dumps(config))


def from_json(config: dict[str, Any]) -> Experiment:
    """The inverse of `to_json`.

    Raises:
      ValueError: A field, kind of task or type that this version does not know.
    """
    config = dict(config)
    tasks = []
    for fields in config.pop("tasks", ()):
        if not isinstance(fields, dict):
            raise ValueError(f"a task must be a JSON object, not {fields!r}")
        fields = dict(fields)
        kind = fields.pop("task", None)
        if kind not in TASKS:
            raise ValueError(f"unknown kind of task {kind!r}{nearest(str(kind), TASKS)}")
        tasks.append(_fill(TASKS[kind], fields, f"task {kind}"))
    data = _fill(Data, config.pop("data", {}), "data")
    return _fill(Experiment, {**config, "tasks": tuple(tasks), "data": data}, "experiment")


def _fill(cls: type, fields: dict[str, Any], what: str) -> Any:
    if not isinstance(fields, dict):
        raise ValueError(f"{what} must be a JSON object, not {fields!r}")
    known = {field.name: field for field in dataclasses.fields(cls)}
    hints = typing.get_type_hints(cls)
    values = {}
    for name, value in fields.items():
        if name not in known:
            raise ValueError(f"{what} has no field {name!r}{nearest(name, known)}")
        try:
            values[name] = convert(_tuples(value), hints[name])
        except TypeError as error:
            raise ValueError(f"{what}: {name} must be {error}, not {value!r}") from None
    for name, field in known.items():
        if name not in fields and field.default is field.default_factory is dataclasses.MISSING:
            raise ValueError(f"{what} lacks the field {name!r}")
    return cls(**values)


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def experiment_folder() -> Path:
    """Where the experiments are: inside the installed package, or beside it in the repository."""
    package = Path(__file__).parent
    installed = package / "experiments"
    return installed if installed.is_dir() else package.parent / "experiments"


def experiment_names() -> list[str]:
    """Names of the experiments that come with the package; other files beside them are scripts."""
    files = experiment_folder().glob("[!_]*.py")
    return sorted(f.stem for f in files if re.search(r"^experiment\b", f.read_text(), re.M))


def find_experiment(name: str) -> Experiment:
    """An experiment by its name, by the path of its file, or by a run's `config.json`.

    Raises:
      ValueError: There is none, or its file does not define `experiment = Experiment(...)`.
    """
    if name.endswith(".json"):
        return read_config(Path(name))
    if name.endswith(".py"):
        path = Path(name)
        if not path.is_file():
            raise ValueError(f"no experiment file {name}")
    else:
        path = experiment_folder() / f"{name}.py"
        if name not in experiment_names():
            raise ValueError(f"unknown experiment {name!r}{nearest(name, experiment_names())}")
    module = types.ModuleType(f"mtljax_experiment_{path.stem}")
    module.__file__ = str(path)
    try:
        # Compiled here, not by the loader, which would leave a __pycache__ beside the file.
        exec(compile(path.read_text(), str(path), "exec"), module.__dict__)
    except SyntaxError as error:
        raise ValueError(f"{path}: line {error.lineno}: {error.msg}") from None
    except Exception as error:
        calls = traceback.extract_tb(error.__traceback__)
        here = [at.lineno for at in calls if Path(at.filename).resolve() == path.resolve()]
        where = f"line {here[-1]}: " if here else ""
        raise ValueError(f"{path}: {where}{type(error).__name__}: {error}") from error
    experiment = getattr(module, "experiment", None)
    if not isinstance(experiment, Experiment):
        raise ValueError(f"{path} does not define `experiment = mtljax.config.Experiment(...)`")
    return experiment


def read_config(path: Path) -> Experiment:
    """The experiment of a `config.json`.

    Raises:
      ValueError: The file is not there, is not JSON, or is not an experiment of this version.
    """
    try:
        config = json.loads(read_text(path))
    except FileNotFoundError:
        raise ValueError(f"no file {path}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged or no JSON: {error}") from None
    if not isinstance(config, dict) or "name" not in config:
        raise ValueError(f"{path} is not an experiment's configuration")
    try:
        return from_json(config)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
