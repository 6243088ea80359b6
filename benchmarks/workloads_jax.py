"""Networks and batches of benchmarks/workloads.py for mtljax."""

import jax
import numpy as np
import optax
from workloads import CENTER_DEPTH, make_batch

from mtljax import create_state, make_train_step
from mtljax.models import FUSIONS, TRUNKS, build
from mtljax.tasks import Classification, Depth, Normals, Segmentation
from mtljax.training.executors import compile_step


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


def sgd_step(workload, balancer, level="parameters", **options):
    """Returns (`(state, batch) -> state`, state, batch); options are those of `make_train_step`."""
    model, tasks = network(workload)
    batch = examples(workload, tasks)
    parts = model, tasks, balancer, optax.sgd(0.01)
    state = create_state(jax.random.key(0), *parts, batch, level=level)
    step = make_train_step(*parts, level=level, **options)
    return lambda state, batch: step(state, batch)[0], state, batch


def step_call(step, state, batch):
    """Returns a function without arguments that takes a step and waits for it; calls it twice."""
    compiled = compile_step(jax.jit(step, donate_argnums=0).trace(state, batch))

    def call():
        nonlocal state
        state = compiled(state, batch)
        jax.block_until_ready(state.params)

    call()
    call()
    return call
