"""Which of our modules is which of those in `torch_models`."""

from models.torch_models import LITE0, LITE0_STAGES


def resnet_names(depths, bottleneck):
    names = {
        "fusion/trunk_0/stem": "conv1",
        "fusion/trunk_0/stem_norm/BatchNorm_0": "bn1",
        "task_class/Dense_0": "fc",
    }
    for i, depth in enumerate(depths):
        for j in range(depth):
            ours, theirs = f"fusion/trunk_{i}/block_{j}", f"layer{i + 1}.{j}"
            for k in range(3 if bottleneck else 2):
                names[f"{ours}/conv_{k}"] = f"{theirs}.conv{k + 1}"
                names[f"{ours}/norm_{k}/BatchNorm_0"] = f"{theirs}.bn{k + 1}"
            if j == 0 and (i > 0 or bottleneck):
                names[f"{ours}/skip"] = f"{theirs}.downsample.0"
                names[f"{ours}/skip_norm/BatchNorm_0"] = f"{theirs}.downsample.1"
    return names


def lite_names():
    norm = "Norm_0/BatchNorm_0"
    names = {
        "fusion/trunk_0/stem/Conv_0": "conv_stem",
        f"fusion/trunk_0/stem/{norm}": "bn1",
        "fusion/trunk_4/head/Conv_0": "conv_head",
        f"fusion/trunk_4/head/{norm}": "bn2",
        "task_class/Dense_0": "classifier",
    }
    for stage, groups in enumerate(LITE0_STAGES):
        for g, group in enumerate(groups):
            count, _, _, expansion, _ = LITE0[group]
            parts = {"expand": "conv_pw", "filter": "conv_dw", "project": "conv_pwl"}
            if expansion == 1:
                parts = {"filter": "conv_dw", "project": "conv_pw"}
            for j in range(count):
                for i, (part, their) in enumerate(parts.items(), 1):
                    ours = f"fusion/trunk_{stage}/block_{g}_{j}/{part}"
                    names[f"{ours}/Conv_0"] = f"blocks.{group}.{j}.{their}"
                    names[f"{ours}/{norm}"] = f"blocks.{group}.{j}.bn{i}"
    return names


def vit_names(depth=12):
    names = {
        "fusion/trunk_0/class_token": "cls_token",
        "fusion/trunk_0/position": "pos_embed",
        "fusion/trunk_0/patches": "patch_embed.proj",
        "fusion/trunk_3/norm": "norm",
        "task_class/Dense_0": "head",
    }
    parts = {
        "LayerNorm_0": "norm1",
        "attention/qkv": "attn.qkv",
        "attention/out": "attn.proj",
        "LayerNorm_1": "norm2",
        "Dense_0": "mlp.fc1",
        "Dense_1": "mlp.fc2",
    }
    each = depth // 4
    for i in range(depth):
        for ours, theirs in parts.items():
            names[f"fusion/trunk_{i // each}/block_{i % each}/{ours}"] = f"blocks.{i}.{theirs}"
    return names


def convnext_names(depths=(3, 3, 9, 3)):
    norm = "LayerNorm_0"
    last = f"fusion/trunk_{len(depths) - 1}"
    names = {f"{last}/norm/{norm}": "classifier.0", "task_class/Dense_0": "classifier.2"}
    for i, depth in enumerate(depths):
        ours = f"fusion/trunk_{i}"
        names[f"{ours}/patches"] = f"features.{2 * i}.{0 if i == 0 else 1}"
        names[f"{ours}/patches_norm/{norm}"] = f"features.{2 * i}.{1 if i == 0 else 0}"
        for j in range(depth):
            block, theirs = f"{ours}/block_{j}", f"features.{2 * i + 1}.{j}"
            parts = {"filter": 0, f"norm/{norm}": 2, "widen": 3, "narrow": 5}
            names |= {f"{block}/{own}": f"{theirs}.block.{n}" for own, n in parts.items()}
            names[f"{block}/scale"] = f"{theirs}.layer_scale"
    return names


NAMES = {
    "resnet18": resnet_names((2, 2, 2, 2), False),
    "resnet50": resnet_names((3, 4, 6, 3), True),
    "efficientnet_lite0": lite_names(),
    "vit_s": vit_names(),
    "convnext_t": convnext_names(),
}
"""Our module, or parameter, by path -> theirs."""
