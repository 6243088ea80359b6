"""Multi-task learning for computer vision in JAX: one compiled step, any sharing, any balancer."""

from mtljax import balancing, data, models, tasks
from mtljax.state import TrainState, create_state
from mtljax.step import make_eval_step, make_train_step

__version__ = "0.1.0"
__all__ = [
    "TrainState",
    "balancing",
    "create_state",
    "data",
    "make_eval_step",
    "make_train_step",
    "models",
    "tasks",
]
