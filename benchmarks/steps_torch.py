"""PyTorch and TorchJD counterparts of the train steps in benchmarks/steps.py."""

import torch
from accelerator_torch import make_trunk
from torch import nn
from workloads import make_batch


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


def network(workload, layout=torch.contiguous_format):
    """Returns (trunk, heads, optimizer, forward) for classification tasks."""
    torch.manual_seed(0)
    if workload.trunk == "cnn":
        trunk, width = cnn(**dict(workload.options))
    else:
        trunk, width = make_trunk(workload)
    heads = nn.ModuleList(nn.Linear(width, count) for count in workload.classes)
    trunk.to(memory_format=layout)
    image, labels = make_batch(workload)
    image = torch.tensor(image).permute(0, 3, 1, 2).contiguous(memory_format=layout)
    labels = [torch.tensor(label, dtype=torch.long) for label in labels]
    optimizer = torch.optim.SGD([*trunk.parameters(), *heads.parameters()], lr=0.01)

    def forward():
        features = trunk(image)
        features = features if workload.trunk == "cnn" else features[1]  # beside its stages
        losses = [
            nn.functional.cross_entropy(head(features), label)
            for head, label in zip(heads, labels, strict=True)
        ]
        return features, losses

    return trunk, heads, optimizer, forward


def plain_step(workload, layout):
    """Returns a function that runs one step on the mean of the losses; calls it once."""
    _, _, optimizer, forward = network(workload, layout)

    def call():
        optimizer.zero_grad()
        _, losses = forward()
        (sum(losses) / len(losses)).backward()
        optimizer.step()

    call()
    return call


def loop_step(workload):
    """Returns a function that runs one step, with one `autograd.grad` per task."""
    trunk, heads, optimizer, forward = network(workload)
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


def torchjd_step(aggregator, workload):
    """Returns a function that runs one step with TorchJD."""
    from torchjd import aggregation, autojac

    trunk, _, optimizer, forward = network(workload)
    aggregator = getattr(aggregation, aggregator)()
    params = list(trunk.parameters())

    def call():
        optimizer.zero_grad()
        features, losses = forward()
        autojac.mtl_backward(losses, features=features)
        autojac.jac_to_grad(params, aggregator)
        optimizer.step()

    call()
    return call
