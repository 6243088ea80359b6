"""PyTorch and TorchJD counterparts of the train steps in benchmarks/steps.py."""

import torch
from torch import nn

TORCHJD = {"pcgrad": "PCGrad", "mgda": "MGDA", "upgrad": "UPGrad", "imtl_g": "IMTLG"}
TORCHJD["config"] = "ConFIG"
"""Balancer -> TorchJD aggregator."""


def convolution_passes(image, kernel, out):
    """Returns {pass: function} of a convolution, for shapes in NHWC and HWIO."""
    x, g = (torch.ones(shape[0], shape[3], *shape[1:3]) for shape in (image, out))
    k = torch.ones(kernel[3], kernel[2], *kernel[:2])
    ones, zeros = [1, 1], [0, 0]
    backward = lambda mask: torch.ops.aten.convolution_backward(
        g, x, k, None, ones, ones, ones, False, zeros, 1, mask
    )
    return {
        "forward": lambda: torch.nn.functional.conv2d(x, k, padding=1),
        "input gradient": lambda: backward([True, False, False]),
        "kernel gradient": lambda: backward([False, True, False]),
    }


def norm_layer(kind, width):
    """Returns the normalization of `mtljax.models.layers.Norm`, as a list of layers."""
    if kind == "batch":
        return [nn.BatchNorm2d(width)]
    return [nn.GroupNorm(max(1, min(32, width // 8)), width)] if kind == "group" else []


def cnn(widths, norm="none"):
    """Returns (the `cnn` trunk with pooling over positions, its number of features)."""
    layers, last = [], 3
    for i, width in enumerate(widths):
        layers += [nn.MaxPool2d(2)] if i else []
        for _ in range(2):
            layers.append(nn.Conv2d(last, width, 3, padding=1, bias=norm == "none"))
            layers += [*norm_layer(norm, width), nn.ReLU()]
            last = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten()), last


class Block(nn.Module):
    """Plain block of a ResNet."""

    def __init__(self, inputs, width, stride):
        super().__init__()
        conv = lambda i, size, stride: nn.Conv2d(i, width, size, stride, size // 2, bias=False)
        self.path = nn.Sequential(
            *(conv(inputs, 3, stride), nn.BatchNorm2d(width), nn.ReLU()),
            *(conv(width, 3, 1), nn.BatchNorm2d(width)),
        )
        same = stride == 1 and inputs == width
        self.skip = nn.Sequential(
            *([] if same else [conv(inputs, 1, stride), nn.BatchNorm2d(width)])
        )

    def forward(self, x):
        return nn.functional.relu(self.path(x) + self.skip(x))


def resnet18():
    """Returns (ResNet-18 with the ImageNet stem, its number of features)."""
    layers = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU()]
    layers.append(nn.MaxPool2d(3, 2, 1))
    last = 64
    for width in (64, 128, 256, 512):
        for i in range(2):
            layers.append(Block(last, width, 2 if i == 0 and width > 64 else 1))
            last = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten()), last


def plain_step(trunk, image, labels):
    """Returns a function of a memory format that returns one step of SGD on the summed loss."""
    name, options = trunk
    net, last = {"cnn": cnn, "resnet18": resnet18}[name](**options)

    def make(memory_format):
        torch.manual_seed(0)
        heads = nn.ModuleList(nn.Linear(last, 10) for _ in labels)
        x = torch.tensor(image).permute(0, 3, 1, 2).contiguous(memory_format=memory_format)
        targets = [torch.tensor(label, dtype=torch.long) for label in labels]
        net.to(memory_format=memory_format)
        optimizer = torch.optim.SGD([*net.parameters(), *heads.parameters()], lr=0.01)

        def call():
            optimizer.zero_grad()
            features = net(x)
            losses = [
                nn.functional.cross_entropy(head(features), target)
                for head, target in zip(heads, targets, strict=True)
            ]
            (sum(losses) / len(losses)).backward()
            optimizer.step()

        return call

    return make


def network(widths, image, labels):
    """Returns (trunk, heads, optimizer, forward); image [B, H, W, C], labels [T, B]."""
    torch.manual_seed(0)
    trunk, last = cnn(widths)
    heads = nn.ModuleList(nn.Linear(last, 10) for _ in labels)
    image = torch.tensor(image).permute(0, 3, 1, 2).contiguous()
    optimizer = torch.optim.SGD([*trunk.parameters(), *heads.parameters()], lr=0.01)

    def forward():
        features = trunk(image)
        losses = [
            nn.functional.cross_entropy(head(features), torch.tensor(label))
            for head, label in zip(heads, labels, strict=True)
        ]
        return features, losses

    return trunk, heads, optimizer, forward


def loop_step(widths, image, labels):
    """Returns a function that runs one step, with one `autograd.grad` per task."""
    trunk, heads, optimizer, forward = network(widths, image, labels)
    params = list(trunk.parameters())

    def call():
        optimizer.zero_grad()
        _, losses = forward()
        rows = []
        for loss, head in zip(losses, heads, strict=True):
            head_params = list(head.parameters())
            grads = torch.autograd.grad(loss, params + head_params, retain_graph=True)
            rows.append(torch.cat([g.flatten() for g in grads[: len(params)]]))
            for p, g in zip(head_params, grads[len(params) :], strict=True):
                p.grad = g
        total = torch.stack(rows).sum(0)
        for p, g in zip(params, total.split([p.numel() for p in params]), strict=True):
            p.grad = g.view_as(p)
        optimizer.step()

    call()
    return call


def torchjd_step(name, widths, image, labels):
    """Returns a function that runs one step with TorchJD."""
    from torchjd import aggregation, autojac

    trunk, _, optimizer, forward = network(widths, image, labels)
    aggregator = getattr(aggregation, TORCHJD[name])()
    params = list(trunk.parameters())

    def call():
        optimizer.zero_grad()
        features, losses = forward()
        autojac.mtl_backward(losses, features=features)
        autojac.jac_to_grad(params, aggregator)
        optimizer.step()

    call()
    return call
