"""Heads: Linen modules that map the features of the trunk or fusion to the output of a task.

A head is called as `head(features, size=(H, W), train=...) -> output`, where `features` are the
outputs of the last stages, coarsest last, and `size` is the size of the input image in pixels. A
head that starts with global average pooling sets `pools = True` and accepts pooled features.
"""

from mtljax.models.heads.aspp import ASPPHead
from mtljax.models.heads.dense import DenseHead, FPNHead, LinearHead
from mtljax.models.heads.vector import VectorHead

DENSE_HEADS: dict[str, type[DenseHead]] = {"linear": LinearHead, "fpn": FPNHead, "aspp": ASPPHead}
"""Name -> Linen module for tasks with an output per pixel."""

__all__ = ["DENSE_HEADS", "ASPPHead", "DenseHead", "FPNHead", "LinearHead", "VectorHead"]
