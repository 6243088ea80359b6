"""Examples on the pages of methods: code that the build runs, with its result."""

import contextlib
import functools
import hashlib
import io
import json
import os
import unittest.mock
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from mtljax.balancing import BALANCERS
from mtljax.cli.catalog import DICTS
from mtljax.config.balancers import balancer_from_text
from mtljax.tasks import TASKS
from mtljax.utils.registry import choose

ROOT = Path(__file__).parents[2]
CACHE = ROOT / "build" / "examples.json"
"""Outputs of the code; a change of the package invalidates all of them."""

COMMANDS = {
    "balancers": "--experiment digits --balancer",
    "trunks": "--experiment digits --trunk",
    "fusions": "--experiment digits --fusion",
    "conditionings": "--experiment digits --condition",
    "augmentations": "--experiment digits --data.augment",
    "optimizers": "--experiment digits --optimizer",
    "schedules": "--experiment digits --schedule",
    "merges": "merge --runs runs/digit runs/value --method",
    "shardings": "--experiment digits --sharding",
    "engines": "compare --experiment digits --balancers ew uw --engine",
}
"""Kind -> arguments of the command before the method."""
REQUIRED: dict[str, dict[str, Any]] = {
    "fixed": {"weights": (2.0, 1.0)},
    "pivrg": {"stl_losses": (1.0, 1.0)},
    "classification": {"num_classes": 5},
    "multilabel": {"num_classes": 5},
    "segmentation": {"num_classes": 5},
    "detection": {"num_classes": 5},
    "keypoints": {"num_keypoints": 5},
    "fsdp_tensor": {"model": 2},
}
"""Name -> arguments without which the example cannot run."""
SMALL_TRUNK = '"cnn"](widths=(16, 32, 64), stride=2)'
VIT = '"vit_ti"](image_size=64, patch=8)'


class Example(NamedTuple):
    """Code of an example and what it prints."""

    code: str
    output: str


def command(kind: str, name: str, arguments: str = "") -> str:
    """Command that uses a method, after reading it as the program does; empty if none does."""
    if kind not in COMMANDS:
        return ""
    needed = ",".join(f"{key}={value}" for key, value in REQUIRED.get(name, {}).items())
    text = ":".join(filter(None, [name, ",".join(filter(None, [needed, arguments]))]))
    if kind == "balancers":
        balancer_from_text(text)
    else:
        choose(kind, text, *DICTS[kind])
    shown = f'"{text}"' if "(" in text else text
    return f"python -m mtljax.main {COMMANDS[kind]} {shown}"


def example(kind: str, name: str) -> Example | None:
    """Runs the example of a method; None for kinds without one and methods that need more."""
    write = {"balancers": _balancer, "trunks": _trunk, "fusions": _fusion, "tasks": _task}.get(kind)
    code = write(name) if write else ""
    return Example(code, _output(code)) if code else None


def _call(name: str, first: str = "") -> str:
    arguments = [f"{key}={value}" for key, value in REQUIRED.get(name, {}).items()]
    return ", ".join(filter(None, [first, *arguments]))


def _balancer(name: str) -> str:
    if BALANCERS[name](**REQUIRED.get(name, {})).lookahead:
        return ""
    return f"""\
import jax.numpy as jnp
import numpy as np
from mtljax.balancing import aggregate, {name}

jacobian = jnp.array([[2.0, 0.0], [-1.0, 1.0]])  # gradients of two tasks
losses = jnp.array([2.0, 0.5])
direction = aggregate({name}({_call(name)}), jacobian, losses)
print(np.asarray(direction).round(3))"""


def _trunk(name: str) -> str:
    return f"""\
import jax
import jax.numpy as jnp
from mtljax.models import TRUNKS
from mtljax.models.trunks.base import features_of

x = jnp.zeros((1, 224, 224, 3))
for stage in TRUNKS["{name}"]():
    start = lambda x: stage.init_with_output(jax.random.key(0), x, train=False)
    x, variables = jax.eval_shape(start, x)
    parameters = sum(array.size for array in jax.tree.leaves(variables.get("params", {{}})))
    print(f"{{features_of(x).shape[1:]}}: {{parameters:,}} parameters")"""


def _model(fusion: str, tasks: str, trunk: str) -> str:
    return f"""\
import jax
import jax.numpy as jnp
from mtljax import models, tasks

tasks = {tasks}
trunk = models.TRUNKS[{trunk}
model = models.build(trunk, models.FUSIONS["{fusion}"], tasks)
start = lambda image: model.init_with_output(jax.random.key(0), image, train=False)
outputs, variables = jax.eval_shape(start, jnp.zeros((1, 64, 64, 3)))
"""


def _fusion(name: str) -> str:
    tasks = 'tasks.Classification(name="kind", num_classes=5), tasks.Depth(name="depth")'
    return (
        _model(name, tasks, VIT if name == "task_prompt" else SMALL_TRUNK)
        + """\
shared, specific = models.partition(variables["params"])
for name, part in {"shared": shared, "task-specific": specific}.items():
    print(f"{name}: {sum(array.size for array in part.values()):,} parameters")"""
    )


def _task(name: str) -> str:
    arguments = _call(name, f'name="{name}"')
    task = f"(tasks.{TASKS[name].__name__}({arguments}),)"
    return _model("none", task, SMALL_TRUNK) + f'print("output:", outputs["{name}"].shape)'


def _output(code: str) -> str:
    outputs = _cached()
    key = hashlib.sha256(f"{_package()}\n{code}".encode()).hexdigest()
    if key not in outputs:
        with contextlib.redirect_stdout(io.StringIO()) as printed, _quick_compilation():
            exec(code, {})
        outputs[key] = printed.getvalue().rstrip()
        CACHE.parent.mkdir(parents=True, exist_ok=True)
        CACHE.write_text(json.dumps(outputs))
    return outputs[key]


@contextlib.contextmanager
def _quick_compilation() -> Iterator[None]:
    """Context in which a backend that starts spends less time on optimization."""
    with unittest.mock.patch.dict(os.environ, XLA_FLAGS="--xla_backend_optimization_level=0"):
        yield


@functools.cache
def _cached() -> dict[str, str]:
    return json.loads(CACHE.read_text()) if CACHE.is_file() else {}


@functools.cache
def _package() -> str:
    """Hash of the modules that examples use."""
    result = hashlib.sha256()
    for folder in ("balancing", "models", "tasks"):
        for path in sorted((ROOT / "mtljax" / folder).rglob("*.py")):
            result.update(path.read_bytes())
    return result.hexdigest()
