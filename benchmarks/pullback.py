"""Fastest way to compute the Jacobian: all rows at once, one by one, or in groups.

    python benchmarks/pullback.py [--tasks 3 10 40] [--trunks mlp cnn resnet18 vit_ti] [--rounds 3]

Prints the time of a complete `pcgrad` step for each value of `pullback`, relative to the fastest
value in the row; a row is measured in one run. `rows_per_pullback` in mtljax implements
`auto` according to this table for each backend. With --check the exit status is 1 if `auto` takes
more than 1.15 times the fastest.
"""

import argparse
import statistics
import sys

import jax
from timing import timed
from workloads import Workload
from workloads_jax import sgd_step, step_call

from mtljax.balancing import BALANCERS

PULLBACKS = ("auto", "loop", 2, 4, 8, "vmap")
CASES = {
    "mlp": ("mlp", 16, 64, (("widths", (256, 256)),)),
    "cnn": ("cnn", 32, 32, (("widths", (16, 32, 64)), ("norm", "none"))),
    "resnet18": ("resnet18", 32, 8, (("norm", "group"),)),
    "vit_ti": ("vit_ti", 32, 16, (("patch", 8),)),
}
"""Name -> (trunk, image size, batch size, options of the trunk)."""


def pcgrad_call(case, num_tasks, pullback):
    """Returns a function without arguments that runs one train step."""
    trunk, size, batch, options = case
    workload = Workload(trunk, (batch, size, size), (10,) * num_tasks, options)
    return step_call(*sgd_step(workload, BALANCERS["pcgrad"](), pullback=pullback))


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tasks", type=int, nargs="+", default=[3, 10, 40])
    parser.add_argument("--trunks", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--check", action="store_true")
    flags = parser.parse_args()
    print(f"jax {jax.__version__}, {jax.devices()[0].device_kind}\n")
    print(f"{'trunk':10} {'tasks':>5}" + "".join(f"{value:>8}" for value in PULLBACKS))
    slow = []
    for trunk in flags.trunks:
        for num_tasks in flags.tasks:
            calls = {
                pullback: pcgrad_call(CASES[trunk], num_tasks, pullback)
                for pullback in PULLBACKS
                if not isinstance(pullback, int) or pullback < num_tasks
            }
            times = {pullback: [] for pullback in calls}
            for _ in range(flags.rounds):
                for pullback, call in calls.items():
                    times[pullback].append(timed(call, 2))
            median = {pullback: statistics.median(values) for pullback, values in times.items()}
            best = min(median.values())
            cells = (
                f"{median[pullback] / best:8.2f}" if pullback in median else f"{'-':>8}"
                for pullback in PULLBACKS
            )
            print(f"{trunk:10} {num_tasks:5}" + "".join(cells), flush=True)
            if median["auto"] > 1.15 * best:
                slow.append(f"{trunk}, {num_tasks} tasks: auto takes {median['auto'] / best:.2f}")
    if slow:
        print("\nauto is not the fastest:\n  " + "\n  ".join(slow))
    sys.exit(bool(slow and flags.check))


if __name__ == "__main__":
    main()
