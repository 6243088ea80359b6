"""Task kinds: what can be learned from an image. One file per kind."""

from mtljax.tasks.base import Metrics, Task
from mtljax.tasks.classification import Classification
from mtljax.tasks.regression import Regression

TASKS = {
    "classification": Classification,
    "regression": Regression,
}
"""Name -> kind of task, a frozen dataclass."""

__all__ = ["TASKS", "Classification", "Metrics", "Regression", "Task"]
