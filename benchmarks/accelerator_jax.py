"""Train steps of mtljax for benchmarks/accelerator.py: one JSON row per variant.

A variant is a balancer with options of `make_train_step`, `pcgrad:level=features`; `tasks=3` limits
the number of tasks, and `dtype=float32` replaces bf16.
"""

import functools
import time

import jax
import jax.numpy as jnp
import optax
from flops import count
from timing import round_times
from workloads import run_worker, timings
from workloads_jax import examples, network

from mtljax import compiler_options, create_state, make_train_step, use_compile_cache
from mtljax.balancing import BALANCERS
from mtljax.training.executors import compile_step, cost_of


@functools.cache
def train_flops(workload):
    """Returns the operations of a train step per image: three times those of the forward pass."""
    model, _ = network(workload)
    image = jax.ShapeDtypeStruct((1, *workload.shape[1:], 3), jnp.float32)
    init = functools.partial(model.init, train=False)
    variables = jax.eval_shape(init, jax.random.key(0), image)
    return 3 * count(functools.partial(model.apply, train=False), variables, image)


def measure(workload, name, options, seconds):
    """Returns the row of one balancer."""
    options = {"dtype": "bfloat16"} | options
    model, tasks = network(workload)
    parts, batch = (model, tasks, BALANCERS[name](), optax.adam(1e-4)), examples(workload, tasks)
    level = options.get("level", "parameters")
    create = jax.jit(
        lambda key, batch: create_state(key, *parts, batch, level=level),
        compiler_options=compiler_options(use="once"),
    )
    state = create(jax.random.key(0), batch)
    start = time.perf_counter()
    step = jax.jit(make_train_step(*parts, **options), donate_argnums=0)
    compiled = compile_step(step.trace(state, batch))
    cost = cost_of(compiled, time.perf_counter() - start)
    parameters = sum(leaf.size for leaf in jax.tree.leaves(state.params))

    def call():
        nonlocal state
        state, _ = compiled(state, batch)

    times = round_times(call, lambda: jax.block_until_ready(state.params), seconds)
    if int(state.skipped):
        raise ValueError(f"{int(state.skipped)} updates were not finite")
    return timings(workload, times) | {
        "compile_seconds": cost.compile_seconds,
        "peak_bytes": cost.memory_bytes,
        "parameters": parameters,
        "flops_per_image": train_flops(workload),
        "device": jax.devices()[0].device_kind,
        "version": f"jax {jax.__version__}",
    }


if __name__ == "__main__":
    use_compile_cache()
    run_worker(measure, "mtljax", __doc__)
