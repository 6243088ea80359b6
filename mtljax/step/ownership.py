"""Check that parameters in modules `task_<name>` belong to that task only.

Balancers act on shared parameters; a task-specific one follows the loss of its task. Parameters
that are task-specific by name only would get a wrong gradient, or none.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.interpreters import partial_eval
from jaxtyping import Array, PyTree

from mtljax.models.partition import TASK_PREFIX, join, partition, task_of
from mtljax.tasks.base import Task
from mtljax.utils.registry import did_you_mean
from mtljax.utils.tree import flatten


def check_ownership(
    model: nn.Module, tasks: Sequence[Task], variables: Mapping[str, PyTree], image: PyTree
) -> None:
    """Checks the outputs and task-specific parameters of a model, by tracing it once.

    Args:
      variables: Variables of the model; only shapes are used.

    Raises:
      ValueError: The model lacks the output of a task, a module `task_<name>` that outputs depend
        on is of no task, or the output of a task depends on the module of another one.
    """
    names = [task.name for task in tasks]
    variables = jax.tree.map(lambda x: jax.ShapeDtypeStruct(jnp.shape(x), x.dtype), variables)
    image = jax.tree.map(lambda x: jax.ShapeDtypeStruct(jnp.shape(x), x.dtype), image)
    for module, users in _users(model, names, variables, image).items():
        owner = str(task_of(module))
        kind = "parameter" if module in flatten(variables["params"]) else "module"
        if owner not in names and users:
            for name in names:
                if name.startswith(TASK_PREFIX) and name in module:
                    raise ValueError(
                        f"task {name!r}: with this fusion, a task name must not start with "
                        f"{TASK_PREFIX!r}, which marks task-specific modules; rename the task, for "
                        f"example {name.removeprefix(TASK_PREFIX)!r} (data.labels maps it to its "
                        "labels)"
                    )
            hint = did_you_mean(owner, names)
            raise ValueError(
                f"{kind} {module!r} belongs to no task ({', '.join(names)}), but names that start "
                f"with {TASK_PREFIX!r} are those of task-specific modules{hint}; "
                f"if tasks share it, rename it, for example {owner!r}"
            )
        for user in users:
            if user != owner:
                raise ValueError(
                    f"the output of task {user!r} depends on {kind} {module!r}, which follows the "
                    f"loss of task {owner!r} only; rename what both read, without {TASK_PREFIX!r}, "
                    f"or apply jax.lax.stop_gradient to what task {user!r} reads"
                )


def _users(
    model: nn.Module, names: Sequence[str], variables: Mapping[str, PyTree], image: PyTree
) -> dict[str, list[str]]:
    """Returns {path of a task-specific module: tasks whose outputs have a gradient for it}.

    Each path from a module to an output counts first, which needs no trace of gradients, and is
    sufficient for most models. Only if a module then has another user than its owner, the paths
    without a gradient are left out.
    """
    shared, specific = partition(variables["params"])
    modules = [_module(path) for path in sorted(specific)]  # the order of the leaves of a dict
    collections = {name: x for name, x in variables.items() if name != "params"}

    def totals(specific: PyTree, shared: PyTree, collections: PyTree, x: PyTree) -> list[Array]:
        # In evaluation mode, which needs neither keys nor a mapped axis.
        applied = {"params": join(shared, specific), **collections}
        outputs: Any = model.apply(applied, x, train=False)
        missing = [name for name in names if name not in outputs]
        if missing:
            has = ", ".join(outputs) or "none"
            raise ValueError(f"the model has no output named {', '.join(missing)}; it has {has}")
        return [_total(outputs[name]) for name in names]

    def gradients(factors: Sequence[Array], specific: PyTree, *constants: PyTree) -> list[Array]:
        _, pullback = jax.vjp(lambda specific: totals(specific, *constants), specific)
        return jax.tree.leaves(pullback(list(factors)))

    inputs = specific, shared, collections, image
    traced = jax.make_jaxpr(totals)(*inputs).jaxpr
    users: dict[str, list[str]] = {module: [] for module in modules}
    for name in names:
        _, used = partial_eval.dce_jaxpr(traced, [other == name for other in names])
        for module in dict.fromkeys(itertools.compress(modules, used)):
            users[module].append(name)
    if all(user == task_of(module) for module, found in users.items() for user in found):
        return users
    # The gradients as a function of one factor per task depend on the factors of their tasks.
    factors = [jax.ShapeDtypeStruct((), jnp.float32) for _ in names]
    traced = jax.make_jaxpr(gradients)(factors, *inputs).jaxpr
    for module in users:
        _, used = partial_eval.dce_jaxpr(traced, [other == module for other in modules])
        users[module] = [name for name, is_used in zip(names, used, strict=False) if is_used]
    return users


def _module(path: str) -> str:
    """Returns the path of the task-specific module that a parameter is in."""
    parts = path.split("/")
    count = next(i for i, part in enumerate(parts, 1) if part.startswith(TASK_PREFIX))
    return "/".join(parts[:count])


def _total(output: PyTree) -> Array:
    """Sums the floating-point leaves of an output, so that each has a gradient."""
    leaves = [x for x in jax.tree.leaves(output) if jnp.issubdtype(x.dtype, jnp.floating)]
    return sum((leaf.astype(jnp.float32).sum() for leaf in leaves), jnp.zeros(()))
