"""The host's loop: data -> steps -> log -> evaluate -> checkpoint, and the result at the end."""

import contextlib
import math
import platform
import signal
import sys
import time
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import jax
import numpy as np

from mtljax import parallel
from mtljax.assemble import Parts, assemble, load_source, train_step
from mtljax.checkpoint import Checkpoints
from mtljax.config import Experiment, to_json
from mtljax.console import Reporter, console, result_table, say
from mtljax.data import Source, Split, pipeline
from mtljax.dispatch import Logs, Resident, Streaming
from mtljax.evaluate import Evaluator
from mtljax.models import partition, task_of
from mtljax.runfolder import RunFolder
from mtljax.step import TrainState, create_state

RESIDENT_LIMIT = 2**30
"""Bytes up to which data is kept on the device if the experiment does not say."""


class Stopped(Exception):
    """Training was asked to stop, or had to; the message is for the user.

    Attributes:
      status: The exit status that says so.
    """

    def __init__(self, message: str, status: int = 1):
        super().__init__(message)
        self.status = status


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
      ValueError: The experiment, the data, the folder or the devices are not as they must be.
      Stopped: SIGTERM came (the state is saved), or too many updates in a row were not finite.
    """
    began = time.perf_counter()
    quiet = quiet or jax.process_index() > 0
    placement = parallel.place(experiment.data.batch_size, devices)
    source = load_source(experiment)
    order = pipeline.Order(
        seed=experiment.seed, size=len(source.train), batch_size=experiment.data.batch_size
    )
    parts = assemble(experiment, source.mean, source.std)
    folder = RunFolder(workdir, experiment, writes=jax.process_index() == 0)
    if folder.result is not None:
        if not quiet:
            say(f"{workdir} is finished already; for a new run choose another --workdir")
            console.print(result_table(folder.result))
        return folder.result

    folder.describe_input(source.train[0]["image"].shape, source.low, source.high)
    state = initial_state(experiment, parts, source, placement)
    with contextlib.closing(Checkpoints(workdir)) as checkpoints, stop_signal() as stop:
        step = checkpoints.latest() or 0
        if step:
            state = checkpoints.restore(step, state)
            if not quiet:
                say(f"going on from step {step}")
        folder.forget_after(step)
        recorder = Recorder(experiment, folder, len(source.train), step, tensorboard, quiet)
        runner = feed(experiment, parts, source.train, order, placement, step)
        validation = evaluator(experiment, parts, source.validation, placement)

        with contextlib.closing(recorder):
            while step < experiment.steps:
                count = steps_to_next_line(experiment, step)
                state, logs = runner.run(state, step, count)
                step += count
                recorder.add(step, count, logs)
                if step % experiment.eval_every == 0 or step == experiment.steps:
                    recorder.flush()
                    metrics = validation.metrics(state)
                    score = selection_score(experiment, metrics)
                    recorder.validation(step, metrics, score)
                    checkpoints.save(state, score)
                elif stop.is_set:
                    recorder.flush()
                    checkpoints.save(state, sys.float_info.max)
                if stop.is_set and step < experiment.steps:
                    raise Stopped(
                        f"stopped at step {step} and saved; the same --workdir goes on from there",
                        status=128 + signal.SIGTERM,
                    )

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
        from mtljax.report import Predictions, write_report  # matplotlib: not before it is needed

        write_report(
            workdir,
            title=experiment.name,
            config=to_json(experiment),
            tasks=experiment.tasks,
            history=folder.history(),
            result=result,
            test=Predictions(*predictions),
        )
    result["seconds"] = time.perf_counter() - began
    folder.finish(result)
    return result


def initial_state(
    experiment: Experiment, parts: Parts, source: Source, placement: parallel.Placement
) -> TrainState:
    """A fresh state, made on the devices where it will stay."""
    example = pipeline.read(source.train, np.arange(experiment.data.batch_size))
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), example)

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

    return jax.jit(create, out_shardings=placement.replicated)()


def keeps_on_device(experiment: Experiment, split: Split) -> bool:
    """Whether a split is kept on the device."""
    if experiment.data.keep_on_device == "auto":
        return pipeline.size_in_bytes(split) <= RESIDENT_LIMIT
    return experiment.data.keep_on_device == "yes"


def feed(
    experiment: Experiment,
    parts: Parts,
    split: Split,
    order: pipeline.Order,
    placement: parallel.Placement,
    start: int,
) -> Resident | Streaming:
    """What takes the steps, from `start` on."""
    step = train_step(experiment, parts)
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


def selection_score(experiment: Experiment, metrics: dict[str, dict[str, Any]]) -> float:
    """What the best checkpoint has least of.

    Raises:
      ValueError: `select` names a task or metric that is not there.
    """
    if experiment.select == "loss":
        losses = [metrics[task.name]["loss"] for task in experiment.tasks]
        known = [max(loss, 1e-12) for loss in losses if not math.isnan(loss)]
        return float(np.mean(np.log(known))) if known else sys.float_info.max
    name, _, metric = experiment.select.partition("/")
    chosen = [task for task in experiment.tasks if task.name == name]
    if not chosen or metric not in metrics[name]:
        there = [f"{t}/{m}" for t, values in metrics.items() for m in values]
        raise ValueError(
            f"select must be loss or one of {', '.join(there)}, not {experiment.select!r}"
        )
    task, value = chosen[0], float(metrics[name][metric])
    if math.isnan(value):
        return sys.float_info.max
    higher = task.higher_is_better if metric == task.main_metric else metric != "loss"
    return -value if higher else value


class Recorder:
    """Turns the logs of steps into lines, one chunk later, so that the device need not wait."""

    def __init__(
        self,
        experiment: Experiment,
        folder: RunFolder,
        train_size: int,
        step: int,
        tensorboard: bool,
        quiet: bool,
    ):
        self._experiment, self._folder, self._train_size = experiment, folder, train_size
        self._reporter = Reporter(experiment.steps, step, quiet=quiet)
        self._board = event_writer(folder.path) if tensorboard and not quiet else None
        self._pending: tuple[int, int, Logs] | None = None
        self._began = self._last = time.perf_counter()
        self._chunks: list[tuple[int, float]] = []
        self._in_row = 0
        scores = [line["score"] for line in folder.history() if "score" in line]
        self._best = min(scores, default=math.inf)
        self.skipped = sum(line.get("skipped", 0) for line in folder.history())

    def add(self, step: int, count: int, logs: Logs) -> None:
        """The logs of the `count` steps up to `step`, still on the device."""
        self.flush()
        self._pending = (step, count, logs)

    def flush(self) -> None:
        """Writes the line of the chunk that was added last.

        Raises:
          Stopped: Too many updates in a row were not finite.
        """
        if self._pending is None:
            return
        (step, count, logs), self._pending = self._pending, None
        values = jax.tree.map(
            lambda *x: np.concatenate([np.atleast_1d(v) for v in x])[:count], *jax.device_get(logs)
        )
        now = time.perf_counter()
        self._chunks.append((count, now - self._last))
        skipped = values.pop("skipped")
        mean = jax.tree.map(lambda x: float(np.mean(x, dtype=np.float64)), values)
        batch_size = self._experiment.data.batch_size
        line = {
            "step": step,
            "epoch": step * batch_size / self._train_size,
            **mean,
            "skipped": int(skipped.sum()),
            "examples_per_second": count * batch_size / (now - self._last),
            "seconds": now - self._began,
        }
        self._last = now
        self.skipped += line["skipped"]
        self._write(line)
        self._reporter.train(line)
        for skip in skipped:
            self._in_row = (self._in_row + 1) * int(skip)
            if self._in_row >= self._experiment.max_skipped:
                raise Stopped(
                    f"the last {self._in_row} updates up to step {step} were not finite and were "
                    "skipped; lower learning_rate, set clip_norm, or look for NaN in the data"
                )

    def validation(self, step: int, metrics: dict[str, dict[str, Any]], score: float) -> None:
        """The line of an evaluation."""
        line = {"step": step, "validation": metrics, "score": score}
        self._write(line)
        self._reporter.validation(line, self._experiment.tasks, score < self._best)
        self._best = min(self._best, score)
        self._last = time.perf_counter()

    def _write(self, line: dict[str, Any]) -> None:
        self._folder.append([line])
        if self._board is not None:
            for name, value in flat_scalars(line).items():
                self._board.add_scalar(name, value, line["step"])

    def speed(self) -> dict[str, float]:
        """How fast the steps were, the first chunk (which compiles) left out if there are more."""
        chunks = self._chunks[1:] or self._chunks
        count, seconds = sum(c for c, _ in chunks), sum(s for _, s in chunks)
        return {
            "train_seconds": sum(s for _, s in self._chunks),
            "ms_per_step": 1e3 * seconds / count if count else math.nan,
            "examples_per_second": (
                count * self._experiment.data.batch_size / seconds if seconds else math.nan
            ),
        }

    def close(self) -> None:
        self._reporter.close()
        if self._board is not None:
            self._board.close()


def event_writer(path: Path) -> Any:
    """A TensorBoard writer.

    Raises:
      ValueError: tensorboardX is not installed.
    """
    try:
        from tensorboardX import SummaryWriter
    except ImportError:
        raise ValueError(
            "--tensorboard needs tensorboardX: pip install 'mtljax[tensorboard]'"
        ) from None
    return SummaryWriter(str(path / "tensorboard"))


def flat_scalars(tree: Any, prefix: str = "") -> dict[str, float]:
    """Nested dicts as {"a/b": number}; what is not a number is left out."""
    if isinstance(tree, dict):
        parts = [flat_scalars(v, f"{prefix}/{k}" if prefix else k) for k, v in tree.items()]
        return {name: value for part in parts for name, value in part.items()}
    return {prefix: tree} if isinstance(tree, (int, float)) else {}


class StopSignal:
    """Whether SIGTERM came."""

    is_set = False


@contextlib.contextmanager
def stop_signal() -> Iterator[StopSignal]:
    """Notes SIGTERM instead of dying of it, so that the loop can save; only in the main thread."""
    stop = StopSignal()

    def note(*_: Any) -> None:
        stop.is_set = True

    try:
        before = signal.signal(signal.SIGTERM, note)
    except ValueError:  # not the main thread: whoever runs us handles signals
        yield stop
        return
    try:
        yield stop
    finally:
        signal.signal(signal.SIGTERM, before)


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
