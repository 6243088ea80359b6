"""PyTorch and TorchJD counterparts of the train steps in benchmarks/steps.py."""

import torch
from torch import nn
from torchjd import aggregation, autojac

AGGREGATORS = {
    "pcgrad": aggregation.PCGrad,
    "mgda": aggregation.MGDA,
    "upgrad": aggregation.UPGrad,
    "imtl_g": aggregation.IMTLG,
    "config": aggregation.ConFIG,
}
"""Balancer -> TorchJD aggregator; see `TORCHJD` in steps.py."""


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


def network(widths, image, labels):
    """Returns (trunk, heads, optimizer, forward); image [B, H, W, C], labels [T, B]."""
    torch.manual_seed(0)
    layers, last = [], 3
    for i, width in enumerate(widths):
        layers += [nn.MaxPool2d(2)] if i else []
        for _ in range(2):
            layers += [nn.Conv2d(last, width, 3, padding=1), nn.ReLU()]
            last = width
    trunk = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
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
    trunk, _, optimizer, forward = network(widths, image, labels)
    aggregator = AGGREGATORS[name]()
    params = list(trunk.parameters())

    def call():
        optimizer.zero_grad()
        features, losses = forward()
        autojac.mtl_backward(losses, features=features)
        autojac.jac_to_grad(params, aggregator)
        optimizer.step()

    call()
    return call
