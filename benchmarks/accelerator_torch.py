"""Train steps in PyTorch for benchmarks/accelerator.py: one JSON row per variant.

    ew       equal weighting, one backward pass; `ew:compile` with torch.compile
    loop     PCGrad with one `autograd.grad` per task, as in LibMTL
    torchjd  PCGrad with `mtl_backward` of TorchJD; `torchjd:chunk=1` one row at a time

All with autocast to bf16 (`dtype=float32` without), channels_last and Adam. `tasks=3` limits the
number of tasks. The networks have the parameters of mtljax's.
"""

import sys
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from timing import round_times
from torch import nn
from workloads import (
    CENTER_DEPTH,
    DENSE_OUTPUTS,
    make_batch,
    run_worker,
    timings,
)

sys.path.append(str(Path(__file__).parent.parent / "tests"))
from support import torch_models  # noqa: E402

ORDER = np.random.default_rng(0)
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


class ConvNormReLU(nn.Sequential):
    """Convolution, group normalization and ReLU, as in the decoders of mtljax."""

    def __init__(self, inputs, outputs, size=1, dilation=1):
        padding = dilation * (size // 2)
        super().__init__(
            nn.Conv2d(inputs, outputs, size, padding=padding, dilation=dilation, bias=False),
            nn.GroupNorm(min(32, max(1, outputs // 8)), outputs),
            nn.ReLU(inplace=True),
        )


class ASPP(nn.Module):
    """DeepLabV3+ decoder; see `mtljax.models.heads.ASPPHead`."""

    def __init__(self, coarse, fine, width, outputs):
        super().__init__()
        self.pool = ConvNormReLU(coarse, width)
        rates = [ConvNormReLU(coarse, width, 3, rate) for rate in (6, 12, 18)]
        self.branches = nn.ModuleList([ConvNormReLU(coarse, width), *rates])
        self.join = ConvNormReLU(5 * width, width)
        self.fine = ConvNormReLU(fine, 48)
        self.refine = nn.Sequential(
            ConvNormReLU(width + 48, width, 3), ConvNormReLU(width, width, 3)
        )
        self.output = nn.Conv2d(width, outputs, 1)

    def forward(self, fine, coarse, size):
        pooled = self.pool(coarse.mean((2, 3), keepdim=True))
        branches = [branch(coarse) for branch in self.branches]
        x = self.join(torch.cat([*branches, pooled.expand_as(branches[0])], 1))
        x = F.interpolate(x, size=fine.shape[2:], mode="bilinear", align_corners=False)
        x = self.output(self.refine(torch.cat([x, self.fine(fine)], 1)))
        return F.interpolate(x.float(), size=size, mode="bilinear", align_corners=False)


class FlashViTBlock(torch_models.ViTBlock):
    """Block with PyTorch's fused attention."""

    def attend(self, query, key, value):
        return F.scaled_dot_product_attention(query, key, value)


def make_trunk(workload):
    """Returns (trunk with `forward(x) -> (stages, pooled features)`, width of the features)."""
    options = dict(workload.options)
    if workload.trunk == "vit_b":
        size = options.get("image_size", 224)
        width, heads = options.get("width", 768), options.get("heads", 12)
        trunk = torch_models.ViT(size, width, heads, options.get("depth", 12), block=FlashViTBlock)
        trunk.head = nn.Identity()
        return trunk, width
    bottleneck = workload.trunk == "resnet50"
    depths = options.get("depths", (3, 4, 6, 3) if bottleneck else (2, 2, 2, 2))
    dilated = {32: 0, 16: 1, 8: 2}[options.get("output_stride", 32)]
    trunk = torch_models.ResNet(depths, bottleneck, dilated)
    width, trunk.fc = trunk.fc.in_features, nn.Identity()
    return trunk, width


class Network(nn.Module):
    """Trunk and one head per task."""

    def __init__(self, workload):
        super().__init__()
        self.trunk, width = make_trunk(workload)
        self.is_dense, self.size = workload.classes is None, workload.shape[1:]
        if self.is_dense:
            outputs = DENSE_OUTPUTS.values()
            self.heads = nn.ModuleList(
                ASPP(width, width // 4, workload.decoder_width, count) for count in outputs
            )
        else:
            self.heads = nn.ModuleList(nn.Linear(width, count) for count in workload.classes)

    def features(self, x):
        """Returns the features that the heads read."""
        stages, pooled = self.trunk(x)
        return (stages[1], stages[3]) if self.is_dense else (pooled,)

    def losses(self, features, targets):
        """Returns the mean loss of each task."""
        if not self.is_dense:
            outputs = [head(*features).float() for head in self.heads]
            return [F.cross_entropy(*pair) for pair in zip(outputs, targets, strict=True)]
        segmentation, depth, normals = (head(*features, self.size) for head in self.heads)
        cosine = (F.normalize(normals, dim=1) * targets[2]).sum(1)
        return [
            F.cross_entropy(segmentation, targets[0], ignore_index=-1),
            (depth[:, 0] + CENTER_DEPTH - targets[1]).abs().mean(),
            1 - cosine.mean(),
        ]

    def forward(self, x, targets):
        features = self.features(x)
        return self.losses(features, targets), features


def tensors(workload):
    """Returns (images in channels_last, targets) on the device."""
    image, labels = make_batch(workload)
    x = torch.tensor(image).permute(0, 3, 1, 2).to(DEVICE, memory_format=torch.channels_last)
    targets = []
    for label in map(torch.tensor, labels):
        label = label.permute(0, 3, 1, 2) if label.ndim == 4 else label
        targets.append(label.to(DEVICE, label.dtype if label.is_floating_point() else torch.long))
    return x, targets


def pcgrad_weights(products):
    """PCGrad from the Gramian, on the host (Yu et al., 2020, arXiv:2001.06782)."""
    products, count = products.cpu().double().numpy(), len(products)
    weights = np.eye(count)
    for i in range(count):
        for j in ORDER.permutation(count):
            slope = weights[i] @ products[:, j]
            if i != j and slope < 0:
                weights[i, j] -= slope / products[j, j]
    return torch.tensor(weights.sum(0), dtype=torch.float32, device=DEVICE)


def loop_backward(net, losses):
    """Sets the gradients of PCGrad, with one `autograd.grad` per task."""
    shared, rows = list(net.trunk.parameters()), []
    for loss, head in zip(losses, net.heads, strict=True):
        specific = list(head.parameters())
        gradients = torch.autograd.grad(loss, shared + specific, retain_graph=True)
        rows.append(torch.cat([g.flatten() for g in gradients[: len(shared)]]))
        for parameter, gradient in zip(specific, gradients[len(shared) :], strict=True):
            parameter.grad = gradient
    jacobian = torch.stack(rows)
    total = pcgrad_weights(jacobian @ jacobian.T) @ jacobian
    for parameter, gradient in zip(shared, total.split([p.numel() for p in shared]), strict=True):
        parameter.grad = gradient.view_as(parameter)


def torchjd_backward(net, losses, features, chunk):
    """Sets the gradients of PCGrad with TorchJD."""
    from torchjd import aggregation, autojac

    autojac.mtl_backward(losses, features=list(features), parallel_chunk_size=chunk)
    autojac.jac_to_grad(list(net.trunk.parameters()), aggregation.PCGrad())


def train_step(workload, name, options):
    """Returns (network, function that starts one step)."""
    torch.manual_seed(0)
    net = Network(workload).to(DEVICE, memory_format=torch.channels_last).train()
    optimizer = torch.optim.Adam(net.parameters(), 1e-4, fused=DEVICE == "cuda")
    x, targets = tensors(workload)
    forward = torch.compile(net) if options.get("compile") else net
    half = options.get("dtype", "bfloat16") == "bfloat16"

    def call():
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(DEVICE, dtype=torch.bfloat16, enabled=half):
            losses, features = forward(x, targets)
        if name == "ew":
            sum(losses).backward()
        elif name == "loop":
            loop_backward(net, losses)
        elif name == "torchjd":
            torchjd_backward(net, losses, features, options.get("chunk"))
        else:
            raise ValueError(f"no variant {name!r}; there are ew, loop and torchjd")
        optimizer.step()

    return net, call


def measure(workload, name, options, seconds):
    """Returns the row of one variant."""
    on_gpu = DEVICE == "cuda"
    wait = torch.cuda.synchronize if on_gpu else lambda: None
    if on_gpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    net, call = train_step(workload, name, options)
    start = time.perf_counter()
    call()
    wait()
    first = time.perf_counter() - start
    return timings(workload, round_times(call, wait, seconds)) | {
        "compile_seconds": first,
        "peak_bytes": torch.cuda.max_memory_allocated() if on_gpu else None,
        "parameters": sum(parameter.numel() for parameter in net.parameters()),
        "device": torch.cuda.get_device_name() if on_gpu else "cpu",
        "version": f"torch {torch.__version__}",
    }


if __name__ == "__main__":
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    run_worker(measure, "torch", __doc__)
