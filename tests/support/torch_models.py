"""Trunks in PyTorch, written from their papers to compare with, and the names of their parts.

Modules are called as in the libraries whose weights people have: torchvision (ResNet, ConvNeXt) and
timm (EfficientNet-Lite, ViT). Each gives the features of our stages, and logits of the last ones'
mean over space.
"""

import functools

import torch
import torch.nn.functional as F
from torch import nn

LITE0 = ((1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80))
LITE0 += ((3, 5, 1, 6, 112), (4, 5, 2, 6, 192), (1, 3, 1, 6, 320))
"""Blocks, kernel size, stride, expansion, channels."""
LITE0_STAGES = ((0,), (1,), (2,), (3, 4), (5, 6))
"""Which of these groups are our stages."""


class ResNetBlock(nn.Module):
    """torchvision's BasicBlock or Bottleneck."""

    def __init__(self, inputs, width, bottleneck, stride, dilation):
        super().__init__()
        spread = {"stride": stride, "padding": dilation, "dilation": dilation}
        convs = [(inputs, width, 3, spread), (width, width, 3, {"padding": 1})]
        if bottleneck:
            convs = [(inputs, width, 1, {}), (width, width, 3, spread), (width, 4 * width, 1, {})]
        self.count = len(convs)
        for i, (a, b, size, options) in enumerate(convs, 1):
            self.add_module(f"conv{i}", nn.Conv2d(a, b, size, bias=False, **options))
            self.add_module(f"bn{i}", nn.BatchNorm2d(b))
        outputs = convs[-1][1]
        self.downsample = None
        if stride > 1 or inputs != outputs:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x):
        y = x
        for i in range(1, self.count + 1):
            y = getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(y))
            y = y.relu() if i < self.count else y
        return (y + (x if self.downsample is None else self.downsample(x))).relu()


class ResNet(nn.Module):
    def __init__(self, depths, bottleneck, dilated=0):
        """Args: depths; bottleneck; dilated, how many of the last stages dilate, not stride."""
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        inputs, dilation = 64, 1
        for i, depth in enumerate(depths):
            width, stride, blocks = 64 * 2**i, 1 if i == 0 else 2, []
            before = dilation
            if i >= len(depths) - dilated:
                stride, dilation = 1, dilation * 2
            for j in range(depth):
                first = j == 0
                blocks.append(
                    ResNetBlock(
                        inputs,
                        width,
                        bottleneck,
                        stride if first else 1,
                        before if first else dilation,
                    )
                )
                inputs = width * (4 if bottleneck else 1)
            self.add_module(f"layer{i + 1}", nn.Sequential(*blocks))
        self.fc = nn.Linear(inputs, 10)

    def forward(self, x):
        x = F.max_pool2d(self.bn1(self.conv1(x)).relu(), 3, 2, 1)
        stages = []
        for i in range(1, 5):
            x = getattr(self, f"layer{i}")(x)
            stages.append(x)
        return stages, self.fc(x.mean((2, 3)))


class SameConv(nn.Conv2d):
    """TensorFlow's padding: as little as the output size needs, the odd pixel right and below."""

    def forward(self, x):
        (size, _), (stride, _) = self.kernel_size, self.stride
        pads = []
        for side in (x.shape[3], x.shape[2]):
            total = max((-(-side // stride) - 1) * stride + size - side, 0)
            pads += [total // 2, total - total // 2]
        return super().forward(F.pad(x, pads))


class LiteBlock(nn.Module):
    """timm's DepthwiseSeparableConv (expansion 1) or InvertedResidual."""

    def __init__(self, inputs, size, stride, expansion, width):
        super().__init__()
        wide = inputs * expansion
        parts = [("conv_dw", wide, wide, size, stride, wide)]
        if expansion == 1:
            parts += [("conv_pw", wide, width, 1, 1, 1)]
        else:
            parts.insert(0, ("conv_pw", inputs, wide, 1, 1, 1))
            parts += [("conv_pwl", wide, width, 1, 1, 1)]
        self.parts = [part[0] for part in parts]
        for i, (name, a, b, kernel, step, groups) in enumerate(parts, 1):
            self.add_module(name, SameConv(a, b, kernel, step, groups=groups, bias=False))
            self.add_module(f"bn{i}", nn.BatchNorm2d(b, eps=1e-3))
        self.adds = stride == 1 and inputs == width

    def forward(self, x):
        y = x
        for i, name in enumerate(self.parts, 1):
            y = getattr(self, f"bn{i}")(getattr(self, name)(y))
            y = F.relu6(y) if i < len(self.parts) else y
        return x + y if self.adds else y


class EfficientNetLite0(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv_stem = SameConv(3, 32, 3, 2, bias=False)
        self.bn1 = nn.BatchNorm2d(32, eps=1e-3)
        inputs, groups = 32, []
        for count, size, stride, expansion, width in LITE0:
            blocks = []
            for i in range(count):
                blocks.append(LiteBlock(inputs, size, stride if i == 0 else 1, expansion, width))
                inputs = width
            groups.append(nn.Sequential(*blocks))
        self.blocks = nn.Sequential(*groups)
        self.conv_head = SameConv(inputs, 1280, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(1280, eps=1e-3)
        self.classifier = nn.Linear(1280, 10)

    def forward(self, x):
        x = F.relu6(self.bn1(self.conv_stem(x)))
        stages = []
        for groups in LITE0_STAGES:
            for g in groups:
                x = self.blocks[g](x)
            stages.append(x)
        stages[-1] = F.relu6(self.bn2(self.conv_head(x)))
        return stages, self.classifier(stages[-1].mean((2, 3)))


class ViTBlock(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = nn.ModuleDict({"qkv": nn.Linear(width, 3 * width)})
        self.attn["proj"] = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(width, 4 * width)})
        self.mlp["fc2"] = nn.Linear(4 * width, width)

    def forward(self, x):
        batch, count, width = x.shape
        qkv = self.attn["qkv"](self.norm1(x)).view(batch, count, 3, self.heads, -1)
        y = self.attend(*qkv.permute(2, 0, 3, 1, 4)).transpose(1, 2).reshape(x.shape)
        x = x + self.attn["proj"](y)
        return x + self.mlp["fc2"](F.gelu(self.mlp["fc1"](self.norm2(x))))

    def attend(self, query, key, value):
        """[B, heads, N, F] each."""
        scores = query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5
        return scores.softmax(-1) @ value


class ViT(nn.Module):
    def __init__(self, image_size, width=384, heads=6, depth=12, patch=16, block=ViTBlock):
        super().__init__()
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, width, patch, patch)})
        self.cls_token = nn.Parameter(torch.randn(1, 1, width))
        self.pos_embed = nn.Parameter(torch.randn(1, 1 + (image_size // patch) ** 2, width))
        self.blocks = nn.ModuleList(block(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.head = nn.Linear(width, 10)

    def forward(self, x):
        x = self.patch_embed["proj"](x)
        size = x.shape[2:]
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x.flatten(2).transpose(1, 2)], 1)
        x, stages = x + self.pos_embed, []
        as_map = lambda tokens: tokens[:, 1:].transpose(1, 2).unflatten(2, size)
        for i, block in enumerate(self.blocks, 1):
            x = block(x)
            if i % (len(self.blocks) // 4) == 0:
                stages.append(as_map(x))
        stages[-1] = as_map(self.norm(x))
        return stages, self.head(stages[-1].mean((2, 3)))


class LayerNorm2d(nn.LayerNorm):
    """Over the channels of a map."""

    def __init__(self, width):
        super().__init__(width, eps=1e-6)

    def forward(self, x):
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


class ConvNeXtBlock(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.block = nn.Sequential(
            nn.Conv2d(width, width, 7, padding=3, groups=width),
            nn.Identity(),  # torchvision moves the axes here and back at the end
            nn.LayerNorm(width, eps=1e-6),
            nn.Linear(width, 4 * width),
            nn.GELU(),
            nn.Linear(4 * width, width),
        )
        self.layer_scale = nn.Parameter(torch.randn(width, 1, 1) / 2)

    def forward(self, x):
        y = self.block[1:](self.block[0](x).movedim(1, -1)).movedim(-1, 1)
        return x + self.layer_scale * y


class ConvNeXt(nn.Module):
    def __init__(self, depths=(3, 3, 9, 3), widths=(96, 192, 384, 768)):
        super().__init__()
        parts = [nn.Sequential(nn.Conv2d(3, widths[0], 4, 4), LayerNorm2d(widths[0]))]
        for i, (depth, width) in enumerate(zip(depths, widths, strict=True)):
            if i:
                before = widths[i - 1]
                parts.append(nn.Sequential(LayerNorm2d(before), nn.Conv2d(before, width, 2, 2)))
            parts.append(nn.Sequential(*(ConvNeXtBlock(width) for _ in range(depth))))
        self.features = nn.Sequential(*parts)
        self.classifier = nn.ModuleDict({"0": LayerNorm2d(widths[-1])})
        self.classifier["2"] = nn.Linear(widths[-1], 10)

    def forward(self, x):
        stages = []
        for i, part in enumerate(self.features):
            x = part(x)
            if i % 2:
                stages.append(x)
        # Ours normalizes each position, then averages; the paper's the other way round.
        stages[-1] = self.classifier["0"](x)
        return stages, self.classifier["2"](stages[-1].mean((2, 3)))


MODELS = {
    "resnet18": functools.partial(ResNet, (2, 2, 2, 2), False),
    "resnet50": functools.partial(ResNet, (3, 4, 6, 3), True),
    "efficientnet_lite0": EfficientNetLite0,
    "vit_s": ViT,
    "convnext_t": ConvNeXt,
}


def scrambled(model, images):
    """Scales and shifts by chance, and statistics of these images [B, 3, H, W], not 0 and 1."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d | nn.LayerNorm):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.3)
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0  # the statistics of the last batch
    with torch.no_grad():
        model.train()(images)
    return model.eval()
