"""Models: trunks, fusions, heads and conditionings, and `build`, which combines them."""

from mtljax.models.conditioning import (
    CONDITIONINGS,
    Conditioning,
    Cosmos,
    Hypernetwork,
    PaLoRA,
)
from mtljax.models.fusion import (
    CGC,
    FUSIONS,
    MTAN,
    NDDR,
    PLE,
    CrossStitch,
    CrossTaskAttention,
    DSelectK,
    Fusion,
    HardSharing,
    Independent,
    InvPT,
    LearningToBranch,
    MMoE,
    MTINet,
    PADNet,
    TaskPrompt,
)
from mtljax.models.multitask import HeadSpec, MultiTask, build
from mtljax.models.partition import mark_representation, partition, task_of
from mtljax.models.trunks import (
    TRUNKS,
    Trunk,
    cnn,
    convnext_t,
    efficientnet_lite0,
    mlp,
    resnet18,
    resnet34,
    resnet50,
    resnet101,
    rnn,
    segnet,
    vit_b,
    vit_s,
    vit_ti,
)

__all__ = [
    "CGC", "CONDITIONINGS", "FUSIONS", "MTAN", "NDDR", "PLE", "TRUNKS", "Conditioning", "Cosmos",
    "CrossStitch", "CrossTaskAttention", "DSelectK", "Fusion", "HardSharing", "HeadSpec",
    "Hypernetwork", "Independent", "InvPT", "LearningToBranch", "MMoE", "MTINet", "MultiTask",
    "PADNet", "PaLoRA", "TaskPrompt", "Trunk", "build", "cnn", "convnext_t", "efficientnet_lite0",
    "mark_representation", "mlp", "partition", "resnet18", "resnet34", "resnet50", "resnet101",
    "rnn", "segnet", "task_of", "vit_b", "vit_s", "vit_ti",
]  # fmt: skip
