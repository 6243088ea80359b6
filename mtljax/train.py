"""The host's loop: data -> steps -> log -> evaluate -> checkpoint, and the result at the end."""

import contextlib
import platform
import signal
import sys
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import jax
import numpy as np

from mtljax import parallel
from mtljax.assemble import Parts, assemble, load_source, train_step
from mtljax.checkpoint import Checkpoints
from mtljax.config import Experiment, to_json
from mtljax.console import console, result_table, say
from mtljax.data import Source, Split, pipeline
from mtljax.dispatch import Resident, Step, Streaming
from mtljax.evaluate import Evaluator, Predictions
from mtljax.models import partition, task_of
from mtljax.record import Recorder, require_tensorboard
from mtljax.runfolder import RunFolder, check_folder, read_result
from mtljax.selection import check_select, selection_score
from mtljax.step import TrainState, create_state
from mtljax.stopping import Stopped, stop_signal

RESIDENT_LIMIT = 2**30
"""Bytes up to which data is kept on the device if the experiment does not say."""


def train(
    experiment: Experiment,
    workdir: Path,
    *,
    devices: int | None = None,
    tensorboard: bool = False,
    quiet: bool = False,
) -> dict[str, Any]:
    """Trains an experiment in a run folder, or goes on with it, and returns its result.

    Args:
      experiment: What to train.
      workdir: The run folder. If it holds this experiment unfinished, training goes on from its
        latest checkpoint, bit for bit; if finished, its result is returned.
      devices: How many to use; None: all.
      tensorboard: Also write event files to `workdir/tensorboard`.
      quiet: Print nothing.

    Raises:
      ValueError: The experiment, the data, the folder or the devices are not as they must be;
        then nothing was written.
      Stopped: SIGTERM came (the state is saved), or too many updates in a row were not finite.
    """
    began = time.perf_counter()
    quiet = quiet or jax.process_index() > 0
    check_folder(workdir, experiment)
    result = read_result(workdir)
    parallel.same_everywhere(result is not None, "whether the run is finished")
    if result is not None:
        if not quiet:
            say(f"{workdir} is finished already; for a new run choose another --workdir")
            console.print(result_table(result))
        return result

    if tensorboard:
        require_tensorboard()
    placement = parallel.place(experiment.data.batch_size, devices)
    source = load_source(experiment)
    order = pipeline.Order(
        seed=experiment.seed, size=len(source.train), batch_size=experiment.data.batch_size
    )
    parts = assemble(experiment, source.mean, source.std)
    check_select(experiment)
    create = jax.jit(fresh(experiment, parts, source), out_shardings=placement.replicated)
    step_function = jax.jit(train_step(experiment, parts))
    rehearse(create, step_function, experiment, source)

    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(RunFolder(workdir, experiment, jax.process_index() == 0))
        folder.describe_input(source.train[0]["image"].shape, source.low, source.high)
        checkpoints = stack.enter_context(contextlib.closing(Checkpoints(workdir)))
        stop = stack.enter_context(stop_signal())
        state = create()
        step = checkpoints.latest() or 0
        if step:
            state = checkpoints.restore(step, state)
            if not quiet:
                say(f"going on from step {step}")
        folder.forget_after(step)
        recorder = Recorder(experiment, folder, len(source.train), step, tensorboard, quiet)
        stack.enter_context(contextlib.closing(recorder))
        runner = feed(experiment, step_function, source.train, order, placement, step)
        validation = evaluator(experiment, parts, source.validation, placement)

        while step < experiment.steps:
            count = steps_to_next_line(experiment, step)
            state, logs = runner.run(state, step, count)
            step += count
            recorder.add(step, count, logs)
            stopping = stop.came()
            if step % experiment.eval_every == 0 or step == experiment.steps:
                recorder.flush()
                metrics = validation.metrics(state)
                score = selection_score(experiment, metrics)
                recorder.validation(step, metrics, score)
                checkpoints.save(state, score)
            elif stopping:
                recorder.flush()
                checkpoints.save(state, sys.float_info.max)
            if stopping and step < experiment.steps:
                raise Stopped(
                    f"stopped at step {step} and saved; --workdir {workdir} goes on from there",
                    status=128 + signal.SIGTERM,
                )
        recorder.close()
        best = checkpoints.best()
        assert best is not None
        state = checkpoints.restore(best, state)

        test, predictions = evaluator(
            experiment, parts, source.test, placement
        ).metrics_and_predictions(state)
        result = {
            "experiment": experiment.name,
            "seed": experiment.seed,
            "steps": experiment.steps,
            "best_step": best,
            "validation": validation.metrics(state),
            "test": test,
            "parameters": count_parameters(state),
            "seconds": time.perf_counter() - began,
            **recorder.speed(),
            "skipped": recorder.skipped,
            "device": parallel.describe(placement.mesh.size),
            "environment": environment(),
        }
        if not quiet:
            console.print(result_table(result))
        if jax.process_index() == 0:
            draw(experiment, folder, result, predictions)
        result["seconds"] = time.perf_counter() - began
        folder.finish(result)
    return result


def draw(
    experiment: Experiment, folder: RunFolder, result: dict[str, Any], predictions: Predictions
) -> None:
    """Writes the report into the run folder."""
    from mtljax import report  # matplotlib: not before it is needed

    report.write_report(
        folder.path,
        title=experiment.name,
        config=to_json(experiment),
        tasks=experiment.tasks,
        history=folder.history(),
        result=result,
        test=report.Predictions(*predictions),
    )


def batch_shapes(split: Split, batch_size: int) -> Any:
    """Shapes and types of a batch, from the first example."""

    def shape(leaf: Any) -> jax.ShapeDtypeStruct:
        leaf = np.asarray(leaf)
        return jax.ShapeDtypeStruct((batch_size, *leaf.shape), leaf.dtype)

    return jax.tree.map(shape, dict(split[0]))


def fresh(experiment: Experiment, parts: Parts, source: Source) -> Callable[[], TrainState]:
    """A function that makes the state of step 0."""
    shapes = batch_shapes(source.train, experiment.data.batch_size)

    def create() -> TrainState:
        return create_state(
            jax.random.key(experiment.seed),
            parts.model,
            experiment.tasks,
            parts.balancer,
            parts.optimizer,
            jax.tree.map(lambda x: jax.numpy.zeros(x.shape, x.dtype), shapes),
            level=experiment.level,
            ema=experiment.ema is not None,
        )

    return create


def rehearse(create: Any, step: Any, experiment: Experiment, source: Source) -> None:
    """Traces the first step, so that what does not fit together is found before anything is made.

    The traces are used again when the step is compiled, so this costs next to nothing.

    Raises:
      ValueError: The step cannot be taken.
    """
    try:
        step.eval_shape(create.eval_shape(), batch_shapes(source.train, experiment.data.batch_size))
    except ValueError:
        raise
    except (TypeError, IndexError, KeyError, AttributeError) as error:
        raise ValueError(f"the parts of this experiment do not fit together: {error}") from error


def keeps_on_device(experiment: Experiment, split: Split) -> bool:
    """Whether a split is kept on the device."""
    if experiment.data.keep_on_device == "auto":
        return pipeline.size_in_bytes(split) <= RESIDENT_LIMIT
    return experiment.data.keep_on_device == "yes"


def feed(
    experiment: Experiment,
    step: Step,
    split: Split,
    order: pipeline.Order,
    placement: parallel.Placement,
    start: int,
) -> Resident | Streaming:
    """What takes the steps, from `start` on."""
    if keeps_on_device(experiment, split):
        data = placement.replicate(pipeline.resident(split))
        return Resident(step, data, order, placement, chunk=experiment.log_every)
    batches = pipeline.stream(
        split,
        order,
        placement.local_rows(experiment.data.batch_size),
        start,
        experiment.steps,
        experiment.data.workers,
    )
    return Streaming(step, batches, placement)


def evaluator(
    experiment: Experiment, parts: Parts, split: Split, placement: parallel.Placement
) -> Evaluator:
    """What evaluates a split, in batches of the training's size."""
    return Evaluator(
        parts.model,
        experiment.tasks,
        split,
        experiment.data.batch_size,
        placement,
        keep_on_device=keeps_on_device(experiment, split),
    )


def steps_to_next_line(experiment: Experiment, step: int) -> int:
    """Steps until the next log line, evaluation or the end, whichever comes first."""
    return min(
        experiment.log_every - step % experiment.log_every,
        experiment.eval_every - step % experiment.eval_every,
        experiment.steps - step,
    )


def count_parameters(state: TrainState) -> dict[str, Any]:
    """Numbers of parameters: in all, shared, and of each task."""
    shared, specific = partition(state.params)
    of_tasks: dict[str, int] = {}
    for path, leaf in specific.items():
        of_tasks[str(task_of(path))] = of_tasks.get(str(task_of(path)), 0) + leaf.size
    total = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    return {
        "total": total,
        "shared": sum(x.size for x in shared.values()),
        "task_specific": of_tasks,
    }


def environment() -> dict[str, str]:
    """Versions that the numbers depend on."""
    found = {"python": platform.python_version()}
    for package in ("jax", "jaxlib", "flax", "optax", "numpy", "mtljax"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # run from the repository, not installed
            from mtljax import __version__

            found[package] = __version__
    return {**found, "platform": platform.platform()}
