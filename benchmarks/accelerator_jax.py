"""Train steps of mtljax for benchmarks/accelerator.py: one JSON row per variant.

A variant is a balancer with options of `make_train_step`, `pcgrad:level=features`; `tasks=3` limits
the number of tasks, and `dtype=float32` replaces bf16.
"""

import functools
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
from accelerator_workloads import CENTER_DEPTH, make_batch, run_worker, timings
from flops import count
from timing import round_times

from mtljax import compiler_options, create_state, make_train_step, use_compile_cache
from mtljax.balancing import BALANCERS
from mtljax.models import FUSIONS, TRUNKS, build
from mtljax.tasks import Classification, Depth, Normals, Segmentation


def network(workload):
    """Returns (model, tasks)."""
    if workload.classes is None:
        decoder = {"decoder": "aspp", "width": workload.decoder_width}
        tasks = [
            Segmentation(name="segmentation", num_classes=13, ignore=-1, **decoder),
            Depth(name="depth", center=CENTER_DEPTH, **decoder),
            Normals(name="normals", **decoder),
        ]
    else:
        tasks = [
            Classification(name=f"t{i}", num_classes=classes)
            for i, classes in enumerate(workload.classes)
        ]
    trunk = TRUNKS[workload.trunk](**dict(workload.options))
    return build(trunk, FUSIONS["none"], tasks), tasks


def examples(workload, tasks):
    """Returns the batch of the train step, on the device."""
    image, labels = make_batch(workload)
    names = [task.name for task in tasks]
    present = {name: np.ones(workload.batch_size, bool) for name in names}
    labels = dict(zip(names, labels, strict=True))
    return jax.device_put({"image": image, "labels": labels, "present": present})


@functools.cache
def train_flops(workload):
    """Returns the operations of a train step per image: three times those of the forward pass."""
    model, _ = network(workload)
    image = jax.ShapeDtypeStruct((1, *workload.shape[1:], 3), jnp.float32)
    init = functools.partial(model.init, train=False)
    variables = jax.eval_shape(init, jax.random.key(0), image)
    return 3 * count(functools.partial(model.apply, train=False), variables, image)


def peak_memory(compiled):
    """Bytes of the arguments, outputs and temporaries of a compiled step."""
    memory = compiled.memory_analysis()
    if memory is None:
        return None
    outputs = memory.output_size_in_bytes - memory.alias_size_in_bytes
    return memory.argument_size_in_bytes + outputs + memory.temp_size_in_bytes


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
    step = jax.jit(
        make_train_step(*parts, **options), donate_argnums=0, compiler_options=compiler_options()
    )
    compiled = step.lower(state, batch).compile()
    compile_seconds = time.perf_counter() - start
    parameters = sum(leaf.size for leaf in jax.tree.leaves(state.params))

    def call():
        nonlocal state
        state, _ = compiled(state, batch)

    times = round_times(call, lambda: jax.block_until_ready(state.params), seconds)
    if int(state.skipped):
        raise ValueError(f"{int(state.skipped)} updates were not finite")
    return timings(workload, times) | {
        "compile_seconds": compile_seconds,
        "peak_bytes": peak_memory(compiled),
        "parameters": parameters,
        "flops_per_image": train_flops(workload),
        "device": jax.devices()[0].device_kind,
        "version": f"jax {jax.__version__}",
    }


if __name__ == "__main__":
    use_compile_cache()
    run_worker(measure, "mtljax", __doc__)
