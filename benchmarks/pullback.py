"""How the Jacobian is best taken: all rows at once, one after the other, or a few at a time.

    python benchmarks/pullback.py [--tasks 3 10 40] [--trunks mlp cnn resnet18 vit_ti] [--rounds 3]

The time of one whole `pcgrad` step by `pullback`, as a ratio to the fastest of its line, all of a
line in one run. `auto` in `mtljax.step.objective.rows_per_pullback` is what this table says for the
backend; --check ends with status 1 where auto takes more than 1.15 times the fastest.
"""

import argparse
import functools
import statistics
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
from steps import timed

from mtljax import compiler_options, create_state, make_train_step
from mtljax.balancing import BALANCERS
from mtljax.models import FUSIONS, TRUNKS, build
from mtljax.tasks import Classification

WAYS = ("auto", "loop", 2, 4, 8, "vmap")
TRUNK = {
    "mlp": (functools.partial(TRUNKS["mlp"], widths=(256, 256)), 16, 64),
    "cnn": (functools.partial(TRUNKS["cnn"], widths=(16, 32, 64), norm="none"), 32, 32),
    "resnet18": (functools.partial(TRUNKS["resnet18"], norm="group"), 32, 8),
    "vit_ti": (functools.partial(TRUNKS["vit_ti"], patch=8), 32, 16),
}
"""Trunk: how it is made, image size, batch."""


def step_call(trunk, size, batch, num_tasks, pullback):
    """A call that takes one step."""
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
    held = [step(state, examples)[0]]

    def call():
        held[0], _ = step(held[0], examples)
        jax.block_until_ready(held[0].params)

    call()
    return call


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tasks", type=int, nargs="+", default=[3, 10, 40])
    parser.add_argument("--trunks", nargs="+", choices=TRUNK, default=list(TRUNK))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--check", action="store_true")
    flags = parser.parse_args()
    print(f"jax {jax.__version__}, {jax.devices()[0].device_kind}\n")
    print(f"{'trunk':10} {'tasks':>5}" + "".join(f"{way:>8}" for way in WAYS))
    slow = []
    for trunk in flags.trunks:
        for num_tasks in flags.tasks:
            ways = [way for way in WAYS if not isinstance(way, int) or way < num_tasks]
            calls = {way: step_call(*TRUNK[trunk], num_tasks, way) for way in ways}
            times = {way: [] for way in ways}
            for _ in range(flags.rounds):
                for way, call in calls.items():
                    times[way].append(timed(call, 2))
            median = {way: statistics.median(found) for way, found in times.items()}
            best = min(median.values())
            shown = (f"{median[way] / best:8.2f}" if way in ways else f"{'-':>8}" for way in WAYS)
            print(f"{trunk:10} {num_tasks:5}" + "".join(shown), flush=True)
            if median["auto"] > 1.15 * best:
                slow.append(f"{trunk}, {num_tasks} tasks: auto takes {median['auto'] / best:.2f}")
    if slow:
        print("\nauto is not the fastest:\n  " + "\n  ".join(slow))
    sys.exit(bool(slow and flags.check))


if __name__ == "__main__":
    main()
