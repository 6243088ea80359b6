"""Heads: from what the trunk (or the fusion) hands over to a task's output.

A head is a Linen module `head(features, size=(H, W), train=...) -> output`: `features` are the
outputs of the last stages, coarsest last, and `size` is that of the input image in pixels. A head
that begins by averaging the last one over space says so with `pools = True`, and may then be given
that average.
"""

from mtljax.models.heads.aspp import ASPPHead
from mtljax.models.heads.dense import DenseHead, LinearHead, resize
from mtljax.models.heads.fpn import FPNHead
from mtljax.models.heads.vector import VectorHead

DENSE_HEADS = {
    "linear": LinearHead,
    "fpn": FPNHead,
    "aspp": ASPPHead,
}
"""Name -> Linen module for tasks that have an output per pixel."""

__all__ = [
    "DENSE_HEADS",
    "ASPPHead",
    "DenseHead",
    "FPNHead",
    "LinearHead",
    "VectorHead",
    "resize",
]
