"""Bytes that a train step communicates between devices, and memory of its state per device.

Counted in the compiled program for virtual devices of a CPU; nothing is executed. An all-reduce of
which every device keeps its part only counts as a reduce-scatter, see `hlo_collectives`.

    python benchmarks/communication.py --trunk vit_b:depth=2,stages=1 --devices 1 2 4 8
"""

import argparse
import collections
import os

import jax
import jax.numpy as jnp
import optax
from hlo_collectives import collectives

from mtljax import parallel
from mtljax.compilation import compiler_options
from mtljax.config.balancers import balancer_from_text
from mtljax.models import FUSIONS, TRUNKS, build
from mtljax.step.state import create_state
from mtljax.step.train_step import make_train_step
from mtljax.tasks import Classification, Regression
from mtljax.utils.registry import choose

TASKS = (
    Classification(name="a", num_classes=10),
    Regression(name="b"),
    Regression(name="c"),
)
MEGABYTE = 1e6


def compiled_step(
    trunk, balancer, sharding, devices, *, size=32, batch=16, level="parameters", **options
):
    """Returns (compiled step with Adam, shapes of its state with their shardings).

    Args:
      options: Further arguments of `make_train_step`.
    """
    model = build(choose("trunk", trunk, TRUNKS).build(), FUSIONS["none"], TASKS)
    parts = model, TASKS, balancer_from_text(balancer), optax.adam(1e-3)
    placement = parallel.place(batch, devices, sharding)
    shape = lambda dims, dtype: jax.ShapeDtypeStruct(dims, dtype, sharding=placement.batched)
    numbers, flags = shape((batch,), jnp.float32), shape((batch,), jnp.bool)
    example = {
        "image": shape((batch, size, size, 3), jnp.float32),
        "labels": {"a": shape((batch,), jnp.int32), "b": numbers, "c": numbers},
        "present": {task.name: flags for task in TASKS},
    }
    zeros = lambda: jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), example)
    create = lambda key: create_state(key, *parts, zeros(), level=level)
    state = jax.eval_shape(create, jax.random.key(0))
    places = placement.of_state(state)
    place = lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)
    state = jax.tree.map(place, state, places)
    step = make_train_step(*parts, level=level, constraints=placement.constraints, **options)
    jitted = jax.jit(step, donate_argnums=0, out_shardings=(places, placement.replicated))
    return jitted.lower(state, example).compile(compiler_options(use="once")), state


def size_in_bytes(tree):
    """Returns the bytes of all arrays together."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def measure(*arguments, **options):
    """Returns a row of the table; arguments are those of `compiled_step`."""
    compiled, state = compiled_step(*arguments, **options)
    total, sent = collections.Counter(), 0.0
    for collective in collectives(compiled.as_text()):
        total[collective.kind] += collective.bytes
        sent += collective.sent
    memory = compiled.memory_analysis()
    return {
        "parameters": size_in_bytes(state.params),
        "all-gather": total.pop("all-gather", 0),
        "reduce-scatter": total.pop("reduce-scatter", 0),
        "all-reduce": total.pop("all-reduce", 0),
        "other": sum(total.values()),
        "sent": sent,
        "arguments": memory.argument_size_in_bytes,
        "temporary": memory.temp_size_in_bytes,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--trunk", default="vit_b:depth=2,stages=1")
    parser.add_argument("--size", type=int, default=224, help="height and width of the images")
    parser.add_argument("--devices", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--balancers", nargs="+", default=["ew", "cagrad"])
    parser.add_argument("--level", default="parameters", choices=["parameters", "features"])
    parser.add_argument("--shardings", nargs="+", default=["replicated", "fsdp"])
    flags = parser.parse_args()
    os.environ["JAX_PLATFORMS"] = "cpu"
    jax.config.update("jax_num_cpu_devices", max(flags.devices))
    columns = ("all-gather", "reduce-scatter", "all-reduce", "other", "sent", "arguments")
    print(f"{flags.trunk}, {len(TASKS)} tasks, MB per step and device\n")
    print("| sharding | balancer | devices |", " | ".join(columns), "| sent / parameters |")
    print("|---|---|" + "---:|" * (len(columns) + 2))
    for sharding in flags.shardings:
        for balancer in flags.balancers:
            for devices in flags.devices:
                options = {"size": flags.size, "level": flags.level}
                row = measure(flags.trunk, balancer, sharding, devices, **options)
                numbers = " | ".join(f"{row[name] / MEGABYTE:.1f}" for name in columns)
                ratio = row["sent"] / row["parameters"]
                line = f"| `{sharding}` | `{balancer}` | {devices} | {numbers} | {ratio:.2f} |"
                print(line, flush=True)


if __name__ == "__main__":
    main()
