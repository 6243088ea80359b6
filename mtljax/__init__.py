"""Multi-task learning for computer vision in JAX: one compiled step, any sharing, any balancer.

A step is made of a model, tasks, a balancer and an optimizer. It is a pure function of a state and
a batch; an example without a task's label is marked in `present`.

Example:
  >>> import jax, jax.numpy as jnp, optax
  >>> from mtljax.balancing import BALANCERS
  >>> from mtljax.models import FUSIONS, TRUNKS, build
  >>> from mtljax.tasks import Classification, Regression
  >>> tasks = Classification(name="kind", num_classes=3), Regression(name="size")
  >>> model = build(TRUNKS["mlp"](widths=(8,)), FUSIONS["none"], tasks)
  >>> parts = model, tasks, BALANCERS["pcgrad"](), optax.sgd(0.1)
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

from mtljax import balancing, data, models, tasks
from mtljax.compilation import compiler_options
from mtljax.step.eval_step import make_eval_step
from mtljax.step.state import TrainState, create_state
from mtljax.step.train_step import make_train_step

__version__ = "0.1.0"
__all__ = [
    "TrainState",
    "balancing",
    "compiler_options",
    "create_state",
    "data",
    "make_eval_step",
    "make_train_step",
    "models",
    "tasks",
]
