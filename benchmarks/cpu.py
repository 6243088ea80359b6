"""Train steps of convolutional networks on CPU, beside the same steps in PyTorch.

    python benchmarks/cpu.py [twin resnet18 scan seeds] [--rounds 7] [--default-allocator]

- twin: `cnn:widths=(16,32,64,128)`, images 64x64x3, batch 64, four classification tasks, `ew`, SGD;
  with batch, group and no normalization.
- resnet18: ResNet-18 with the ImageNet stem, images 64x64x3, batch 32, one task.
- scan: four steps in one `jax.lax.scan`, relative to four steps, for the twin at 32x32, batch 32.
- seeds: three seeds under `jax.vmap`, and one after the other in `jax.lax.map`, relative to one.

Each ratio is the median over rounds of a ratio within a round, in which both libraries run
alternately, each in its own process; `images/s` are medians. PyTorch runs in its default layout
and with `channels_last`. Both libraries use the allocator settings of mtljax's command line.
"""

import argparse
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable

from workloads import Workload

from mtljax.utils.memory import ALLOCATOR

WIDTHS, NORMS = (16, 32, 64, 128), ("batch", "group", "none")
PARTS = ("twin", "resnet18", "scan", "seeds")


def cnn(norm, batch, size):
    options = (("widths", WIDTHS), ("norm", norm))
    return Workload("cnn", (batch, size, size), (10,) * 4, options)


def jax_call(workload, form="step"):
    """Returns a function that runs one train step; see `forms` for others."""
    import jax
    from workloads_jax import sgd_step, step_call

    from mtljax.balancing import BALANCERS

    step, state, batch = sgd_step(workload, BALANCERS["ew"]())
    stack = lambda n: jax.tree.map(lambda x: jax.numpy.stack([x] * n), state)
    forms = {
        "step": (step, state),
        "scan": (lambda s, x: jax.lax.scan(lambda s, _: (step(s, x), 0), s, length=4)[0], state),
        "vmap": (jax.vmap(step, (0, None)), stack(3)),
        "map": (lambda s, x: jax.lax.map(lambda s: step(s, x), s), stack(3)),
    }
    function, state = forms[form]
    return step_call(function, state, batch)


def torch_call(workload, channels_last):
    """Returns a function that runs the same train step in PyTorch."""
    import steps_torch
    import torch

    layout = torch.channels_last if channels_last else torch.contiguous_format
    return steps_torch.plain_step(workload, layout)


def serve(connection, make, arguments):
    """Process of one side: receives a number of calls, sends the seconds per call."""
    call = make(**arguments)
    connection.send("ready")
    while repeats := connection.recv():
        start = time.perf_counter()
        for _ in range(repeats):
            call()
        connection.send((time.perf_counter() - start) / repeats)


class Side:
    """A train step in a process of its own, idle between measurements."""

    def __init__(self, make: Callable[..., Callable[[], None]], **arguments):
        context = multiprocessing.get_context("spawn")
        self.connection, other = context.Pipe()
        self.process = context.Process(target=serve, args=(other, make, arguments), daemon=True)
        self.process.start()
        self.connection.recv()
        self.repeats = 1
        self.repeats = max(1, round(0.5 / self.seconds()))

    def seconds(self):
        self.connection.send(self.repeats)
        return self.connection.recv()

    def close(self):
        self.connection.send(0)
        self.process.join()


def compare(sides, rounds):
    """Returns {name: seconds of each round}; the sides run alternately."""
    times = {name: [] for name in sides}
    for _ in range(rounds):
        for name, side in sides.items():
            times[name].append(side.seconds())
    for side in sides.values():
        side.close()
    return times


def beside_torch(name, workload, flags):
    """Prints one row of images/s."""
    sides = {"mtljax": Side(jax_call, workload=workload)}
    for layout in (False, True):
        sides[f"torch{layout:d}"] = Side(torch_call, workload=workload, channels_last=layout)
    times = compare(sides, flags.rounds)
    rates = {side: workload.batch_size / statistics.median(t) for side, t in times.items()}
    ratios = {
        side: statistics.median(b / a for a, b in zip(times["mtljax"], times[side], strict=True))
        for side in ("torch0", "torch1")
    }
    print(
        f"{name:20} {rates['mtljax']:8.0f} {rates['torch0']:9.0f} {ratios['torch0']:5.2f}x"
        f" {rates['torch1']:15.0f} {ratios['torch1']:5.2f}x",
        flush=True,
    )


def relative(name, factors, flags):
    """Prints the time of other forms of the step, divided by that of single steps."""
    workload = cnn("group", 32, 32)
    sides = {form: Side(jax_call, workload=workload, form=form) for form in ("step", *factors)}
    times = compare(sides, flags.rounds)
    for form, count in factors.items():
        ratios = [t / one for t, one in zip(times[form], times["step"], strict=True)]
        print(f"{name + ', ' + form:22} {statistics.median(ratios):6.2f}x of one step ({count})")


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", default=PARTS, metavar="PART")
    parser.add_argument("--norms", nargs="+", default=NORMS, choices=NORMS)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--default-allocator", action="store_true", help="the system's default")
    flags = parser.parse_args()
    if not flags.default_allocator:
        os.environ["GLIBC_TUNABLES"] = ALLOCATOR  # read when the processes start
    import jax

    from mtljax import parallel

    print(f"jax {jax.__version__}, {parallel.describe(1)}")
    columns = f"{'images/s':20} {'mtljax':>8} {'PyTorch':>9} {'ratio':>6}"
    print(f"{columns} {'channels_last':>15} {'ratio':>6}")
    if "twin" in flags.parts:
        for norm in flags.norms:
            beside_torch(f"cnn 64x64, {norm}", cnn(norm, 64, 64), flags)
    if "resnet18" in flags.parts:
        beside_torch("resnet18 64x64", Workload("resnet18", (32, 64, 64), (10,)), flags)
    if "scan" in flags.parts:
        relative("scan", {"scan": 4}, flags)
    if "seeds" in flags.parts:
        relative("seeds", {"vmap": 3, "map": 3}, flags)


if __name__ == "__main__":
    main()
