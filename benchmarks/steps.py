"""Cost of balancing in a complete train step, compared with `ew`, TorchJD and a PyTorch loop.

    python benchmarks/steps.py [--tasks 2 3 10 40] [--balancers uw pcgrad ... | all] [--rounds 5]

Setting: images 32x32x3, batch size 64 (32 for 40 tasks), six 3x3 convolutions (16, 16, 32, 32, 64,
64 channels, two poolings), one linear head of 10 classes per task, SGD. Each number is the median
over rounds of a ratio of step times within a round: `x ew` is the time relative to equal weighting;
`TorchJD/mtljax` and `loop/mtljax` are the times of the same step in TorchJD (`mtl_backward` and its
aggregator) and in PyTorch with one `autograd.grad` per task (Jacobian, then sum), relative to
mtljax. Targets of the project that are not reached are listed below the table with the cause.
Convolutions dominate the step, so those of both libraries are timed first: they limit the ratios.
"""

import argparse
import functools
import json
import statistics
from pathlib import Path

import jax
import jax.numpy as jnp
from timing import timed
from workloads import Workload
from workloads_jax import sgd_step, step_call

from mtljax import compiler_options, parallel
from mtljax.balancing import BALANCERS, Needs, required_arguments
from mtljax.config.balancers import balancer_from_text

try:
    import steps_torch
except ImportError:
    steps_torch = None

TORCHJD = {
    "pcgrad": "PCGrad",
    "mgda": "MGDA",
    "upgrad": "UPGrad",
    "imtl_g": "IMTLG",
    "config": "ConFIG",
}
"""Balancers that are compared with TorchJD -> its aggregator."""
WIDTHS = (16, 32, 64)
LAYERS = [(32, 3, 16), (32, 16, 16), (16, 16, 32), (16, 32, 32), (8, 32, 64), (8, 64, 64)]
"""Image size, input channels and output channels of the convolutions."""


def make(text, num_tasks):
    """Balancer of an expression; a method alone gets ones for the arguments that it requires."""
    if text in BALANCERS:
        return BALANCERS[text](*((1.0,) * num_tasks for _ in required_arguments(text)))
    return balancer_from_text(text)


def workload_of(num_tasks, batch):
    options = (("widths", WIDTHS), ("norm", "none"))
    return Workload("cnn", (batch, 32, 32), (10,) * num_tasks, options)


def mtljax_step(name, num_tasks, batch, level="parameters"):
    """Returns a function without arguments that runs one train step."""
    workload, balancer = workload_of(num_tasks, batch), make(name, num_tasks)
    return step_call(*sgd_step(workload, balancer, level))


def convolution_ratios(batch):
    """Returns {pass: time of XLA's convolutions / time of PyTorch's}, summed over layers."""
    times = {part: [0.0, 0.0] for part in ("forward", "input gradient", "kernel gradient")}
    for size, inputs, width in LAYERS:
        shapes = (batch, size, size, inputs), (3, 3, inputs, width), (batch, size, size, width)
        libraries = convolution_passes(*shapes), steps_torch.convolution_passes(*shapes)
        for library, calls in enumerate(libraries):
            for part, call in calls.items():
                call()
                times[part][library] += statistics.median(timed(call, 2) for _ in range(5))
    return {part: xla / torch for part, (xla, torch) in times.items()}


def convolution_passes(image, kernel, out):
    """Returns {pass: function} of an XLA convolution."""
    conv = functools.partial(
        jax.lax.conv_general_dilated,
        window_strides=(1, 1),
        padding="SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    x, k, g = (jnp.ones(shape) for shape in (image, kernel, out))
    passes = {
        "forward": lambda x, k, g: conv(x, k),
        "input gradient": lambda x, k, g: jax.vjp(lambda x: conv(x, k), x)[1](g),
        "kernel gradient": lambda x, k, g: jax.vjp(lambda k: conv(x, k), k)[1](g),
    }
    compiled = {
        part: jax.jit(function, compiler_options=compiler_options())
        for part, function in passes.items()
    }
    return {part: lambda f=f: jax.block_until_ready(f(x, k, g)) for part, f in compiled.items()}


def levels_of(balancer):
    """Levels of the gradients that the balancer supports."""
    has_features = balancer.needs is not Needs.LOSSES and not balancer.parameters_only
    return ["parameters", "features"] if has_features else ["parameters"]


def measure(name, level, num_tasks, batch, references, rounds, repeats):
    """Returns {reference: median of reference time / step time}; None without reference."""
    call = mtljax_step(name, num_tasks, batch, level)
    references = dict(references, TorchJD=None)
    if steps_torch and name in TORCHJD and level == "parameters":
        references["TorchJD"] = steps_torch.torchjd_step(
            TORCHJD[name], workload_of(num_tasks, batch)
        )
    ratios = {reference: [] for reference in references}
    for _ in range(rounds):
        seconds = timed(call, repeats)
        for reference, other in references.items():
            if other is not None:
                ratios[reference].append(timed(other, max(1, repeats // 2)) / seconds)
    return {reference: statistics.median(r) if r else None for reference, r in ratios.items()}


def benchmark(num_tasks, flags, convolutions):
    """Prints the table for one number of tasks; returns (missed targets, {balancer: x ew})."""
    batch = 32 if num_tasks >= 40 else 64
    repeats = 3 if num_tasks >= 10 else 6
    references = {"ew": mtljax_step("ew", num_tasks, batch), "loop": None}
    if steps_torch:
        references["loop"] = steps_torch.loop_step(workload_of(num_tasks, batch))
    print(f"{num_tasks} tasks, batch {batch}")
    print(f"  {'balancer':10} {'level':11} {'x ew':>7} {'TorchJD/mtljax':>15} {'loop/mtljax':>12}")
    missed, costs = [], {}
    for name in flags.balancers:
        balancer = make(name, num_tasks)
        for level in levels_of(balancer):
            if flags.level not in (None, level):
                continue
            calls = max(repeats, balancer.period)
            median = measure(name, level, num_tasks, batch, references, flags.rounds, calls)
            cost = 1 / median["ew"]
            cells = [f"{median[k]:.2f}" if median[k] else "-" for k in ("TorchJD", "loop")]
            print(f"  {name:10} {level:11} {cost:7.2f} {cells[0]:>15} {cells[1]:>12}", flush=True)
            missed += missed_targets(name, balancer, level, num_tasks, cost, median, convolutions)
            costs[name] = round(cost, 2)
    print()
    return missed, costs


def missed_targets(name, balancer, level, num_tasks, cost, median, convolutions):
    """Returns a line for each target that is not reached, with the cause."""
    missed = []
    limit = {"features": 1.15}.get(level, 2.4 if num_tasks == 3 else None)
    if balancer.needs is Needs.LOSSES:
        limit = 1.03
    if limit and cost > limit:
        cause = cause_of_cost(balancer, level, num_tasks, cost - limit)
        missed.append(
            f"  {name} at {level}, {num_tasks} tasks: {cost:.2f} x ew, target {limit}: {cause}"
        )
    for reference, targets in (("TorchJD", {3: 1.2, 40: 2.0}), ("loop", {3: 1.0, 40: 1.0})):
        target, ratio = targets.get(num_tasks), median[reference]
        applies = target and ratio and level == "parameters" and balancer.needs is not Needs.LOSSES
        if applies and ratio < target:
            back = (convolutions["input gradient"] + convolutions["kernel gradient"]) / 2
            missed.append(
                f"  {name}, {num_tasks} tasks: {ratio:.2f} x as fast as {reference}, target "
                f"{target}: gradients of XLA's convolutions take {back:.1f} times as long as "
                "PyTorch's"
            )
    return missed


def cause_of_cost(balancer, level, num_tasks, excess):
    """Returns the reason why a step exceeds its target by `excess`."""
    if level == "features" and num_tasks > 10:
        return "T rows of the size of the batch's features are computed and multiplied"
    if balancer.lookahead:
        return "it takes trial steps and differentiates at their result"
    if balancer.samples > 1:
        rows = balancer.samples * num_tasks
        return f"it reads task gradients on {balancer.samples} samples, {rows} backward passes"
    if balancer.observe is not None:
        return "it reads the losses after the update, an additional forward pass"
    if excess < 0.05:
        return "within the variation of the timings between rounds"
    return "unknown cause"


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tasks", type=int, nargs="+", default=[2, 3, 10, 40])
    parser.add_argument(
        "--balancers",
        nargs="+",
        default=["uw", "famo", *TORCHJD, "nash_mtl", "cagrad"],
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--level", choices=["parameters", "features"], help="only this level")
    parser.add_argument("--save", type=Path, help="write {balancer: x ew} of the last T as JSON")
    flags = parser.parse_args()
    flags.balancers = list(BALANCERS) if flags.balancers == ["all"] else flags.balancers
    print(f"jax {jax.__version__}, {parallel.describe(1)}")
    convolutions = {}
    if steps_torch:
        torch = steps_torch.torch
        print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
        convolutions = convolution_ratios(64)
        ratios = ", ".join(f"{part} {ratio:.2f}" for part, ratio in convolutions.items())
        print(f"time of XLA's convolutions / PyTorch's: {ratios}")
    else:
        print("torch or torchjd is not installed: ratios to ew only")
    print()
    missed, costs = [], {}
    for num_tasks in flags.tasks:
        missed_here, costs_here = benchmark(num_tasks, flags, convolutions)
        missed += missed_here
        costs |= costs_here
    if flags.save:
        flags.save.write_text(json.dumps(costs, indent=1) + "\n")
    print("All targets are reached." if not missed else "Not reached:")
    print("\n".join(missed))


if __name__ == "__main__":
    main()
