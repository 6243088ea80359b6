"""Trunks: networks that compute features from an image. A trunk is a tuple of stages.

A stage is a Linen module `stage(x, train) -> x`, where x is an array, or a `Carry` of features and
further values for later stages. A fusion can run all stages once, once per task, or one at a time
with an exchange between the tasks after each. Fusions clone stages, so the fields of a stage are
plain data and its submodules are created in `__call__`.
"""

from collections.abc import Callable

from mtljax.models.trunks.base import Carry, Trunk
from mtljax.models.trunks.cnn import cnn
from mtljax.models.trunks.convnext import convnext_t
from mtljax.models.trunks.efficientnet import efficientnet_lite0
from mtljax.models.trunks.mlp import mlp
from mtljax.models.trunks.resnet import resnet18, resnet34, resnet50, resnet101
from mtljax.models.trunks.rnn import rnn
from mtljax.models.trunks.segnet import segnet
from mtljax.models.trunks.vit import vit_b, vit_s, vit_ti

TRUNKS: dict[str, Callable[..., Trunk]] = {
    make.__name__: make
    for make in (
        *(mlp, cnn, rnn, resnet18, resnet34, resnet50, resnet101, segnet, efficientnet_lite0),
        *(vit_ti, vit_s, vit_b, convnext_t),
    )
}
"""Name -> function that returns the stages."""

__all__ = ["TRUNKS", "Carry", "Trunk"]
