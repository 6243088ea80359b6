"""Trunks: what turns an image into features. A trunk is a tuple of stages.

A stage is a Linen module, `stage(x, train) -> x`. Because a trunk is only its stages, a fusion can run
them once, once per task, or one at a time with an exchange between the tasks after each. Fusions copy
stages, so a stage's fields are plain data; what it is made of, it makes in `__call__`.
"""

from mtljax.models.trunks.cnn import cnn
from mtljax.models.trunks.mlp import mlp
from mtljax.models.trunks.rnn import rnn

TRUNKS = {
    "mlp": mlp,
    "cnn": cnn,
    "rnn": rnn,
}
"""Name -> function that makes the stages."""

__all__ = ["TRUNKS"]
