"""Multi-task learning for computer vision in JAX: one compiled step for any model and balancer.

Run an experiment with `train`, `evaluate`, `predict`, `compare`, `front`, `search`, `merge` and
`export`, or use single parts. A train step is a pure function of a state and a batch, built from a
model, tasks, a balancer and an optimizer; `present` marks the examples that carry a task's label.
Names are imported on first use.

Example:
  >>> import jax, jax.numpy as jnp, optax
  >>> from mtljax import balancing, compiler_options, create_state, make_train_step, models
  >>> from mtljax.tasks import Classification, Regression
  >>> tasks = Classification(name="kind", num_classes=3), Regression(name="size")
  >>> model = models.build(models.TRUNKS["mlp"](widths=(8,)), models.FUSIONS["none"], tasks)
  >>> parts = model, tasks, balancing.pcgrad(), optax.sgd(0.1)
  >>> batch = {
  ...     "image": jnp.ones((2, 4, 4, 1)),
  ...     "labels": {"kind": jnp.array([0, 2]), "size": jnp.array([1.5, 0.0])},
  ...     "present": {"kind": jnp.array([True, True]), "size": jnp.array([True, False])},
  ... }
  >>> state = create_state(jax.random.key(0), *parts, batch)
  >>> step = jax.jit(make_train_step(*parts), compiler_options=compiler_options())
  >>> state, logs = step(state, batch)
  >>> sorted(logs["loss"]), int(state.step)
  (['kind', 'size'], 1)
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mtljax import balancing, data, models, tasks
    from mtljax.comparison.compare import compare
    from mtljax.compilation import compiler_options, use_compile_cache
    from mtljax.config import Data, Experiment, find_experiment
    from mtljax.evaluation.evaluator import compute_metrics
    from mtljax.evaluation.predict import evaluate, predict
    from mtljax.exporters.export import export
    from mtljax.pareto.front import front
    from mtljax.runs.load import load_run
    from mtljax.runs.result import RunResult
    from mtljax.searching.search import search
    from mtljax.step.eval_step import make_eval_step
    from mtljax.step.state import TrainState, create_state
    from mtljax.step.train_step import make_train_step
    from mtljax.training.loop import train
    from mtljax.training.merged_run import merge

__version__ = "0.2.0"
__all__ = [
    "Data",
    "Experiment",
    "RunResult",
    "TrainState",
    "balancing",
    "compare",
    "compiler_options",
    "compute_metrics",
    "create_state",
    "data",
    "evaluate",
    "export",
    "find_experiment",
    "front",
    "load_run",
    "make_eval_step",
    "make_train_step",
    "merge",
    "models",
    "predict",
    "search",
    "tasks",
    "train",
    "use_compile_cache",
]

_MODULES = {
    "Data": "config",
    "Experiment": "config",
    "RunResult": "runs.result",
    "TrainState": "step.state",
    "compare": "comparison.compare",
    "compiler_options": "compilation",
    "compute_metrics": "evaluation.evaluator",
    "create_state": "step.state",
    "evaluate": "evaluation.predict",
    "export": "exporters.export",
    "find_experiment": "config",
    "front": "pareto.front",
    "load_run": "runs.load",
    "make_eval_step": "step.eval_step",
    "make_train_step": "step.train_step",
    "merge": "training.merged_run",
    "predict": "evaluation.predict",
    "search": "searching.search",
    "train": "training.loop",
    "use_compile_cache": "compilation",
}
"""Name -> module that defines it. The remaining names of `__all__` are subpackages."""


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name not in _MODULES:
        return importlib.import_module(f"{__name__}.{name}")
    value = getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
