"""Fastest way to compute the Jacobian: all rows at once, one by one, or in groups.

    python benchmarks/pullback.py [--tasks 3 10 40] [--trunks mlp cnn resnet18 vit_ti] [--rounds 3]

Prints the time of a complete `pcgrad` step for each value of `pullback`, relative to the fastest
value in the row; a row is measured in one run. `mtljax.step.objective.rows_per_pullback` implements
`auto` according to this table for each backend. With --check the exit status is 1 if `auto` takes
more than 1.15 times the fastest.
"""

import argparse
import functools
import statistics
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
from timing import timed

from mtljax import compiler_options, create_state, make_train_step
from mtljax.balancing import BALANCERS
from mtljax.models import FUSIONS, TRUNKS, build
from mtljax.tasks import Classification

PULLBACKS = ("auto", "loop", 2, 4, 8, "vmap")
CASES = {
    "mlp": (functools.partial(TRUNKS["mlp"], widths=(256, 256)), 16, 64),
    "cnn": (functools.partial(TRUNKS["cnn"], widths=(16, 32, 64), norm="none"), 32, 32),
    "resnet18": (functools.partial(TRUNKS["resnet18"], norm="group"), 32, 8),
    "vit_ti": (functools.partial(TRUNKS["vit_ti"], patch=8), 32, 16),
}
"""Trunk: (factory, image size, batch size)."""


def step_call(trunk, size, batch, num_tasks, pullback):
    """Returns a function without arguments that runs one train step."""
    tasks = [Classification(name=f"t{i}", num_classes=10) for i in range(num_tasks)]
    parts = build(trunk(), FUSIONS["none"], tasks), tasks, BALANCERS["pcgrad"](), optax.sgd(0.01)
    rng = np.random.default_rng(0)
    examples = {
        "image": jnp.asarray(rng.normal(size=(batch, size, size, 3)), jnp.float32),
        "labels": {t.name: jnp.asarray(rng.integers(10, size=batch)) for t in tasks},
        "present": {t.name: jnp.ones(batch, bool) for t in tasks},
    }
    state = create_state(jax.random.key(0), *parts, examples)
    step = jax.jit(
        make_train_step(*parts, pullback=pullback),
        donate_argnums=0,
        compiler_options=compiler_options(),
    )
    state, _ = step(state, examples)

    def call():
        nonlocal state
        state, _ = step(state, examples)
        jax.block_until_ready(state.params)

    call()
    return call


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
                pullback: step_call(*CASES[trunk], num_tasks, pullback)
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
