"""Merging of finished runs into the run folder of a multi-task network."""

import contextlib
import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
from jaxtyping import PyTree

from mtljax.build import build
from mtljax.compilation import compiler_options
from mtljax.config import Experiment
from mtljax.data import Source, pipeline
from mtljax.evaluation.tables import result_table
from mtljax.merging import MERGES, Candidate, Merger, Network, Problem
from mtljax.merging.base import Batches, to_numpy
from mtljax.merging.compatibility import (
    check_compatible,
    check_network,
    check_start,
    merged_experiment,
    shared_parameters,
)
from mtljax.merging.network import MergedNetwork
from mtljax.runs.folder import check_folder, read_result
from mtljax.runs.load import TrainedModel, load_run
from mtljax.runs.result import RunResult
from mtljax.runs.selection import selection_score
from mtljax.step.state import TrainState
from mtljax.training.executors import Cost
from mtljax.training.programs import Programs
from mtljax.training.run import Run
from mtljax.training.setup import set_up
from mtljax.training.trackers import Trackers
from mtljax.utils.registry import choose
from mtljax.utils.terminal import announcements, console, phase, print_line
from mtljax.utils.text import number
from mtljax.utils.urls import named

Runs = Mapping[Path, TrainedModel]
"""Run folder -> its model."""
EXAMPLES = 1024
"""Training images for the batch statistics of a merged network."""


def merge(
    runs: Sequence[Path | str],
    workdir: Path | str,
    *,
    method: str = "task_arithmetic",
    source: Source | None = None,
    devices: int | None = None,
    verify: Path | None = None,
    quiet: bool = False,
) -> RunResult:
    """Merges single-task runs that started from the same weights into one multi-task run.

    The shared parameters are merged by the method, the heads are those of the runs. Batch
    statistics are estimated again on training images. Validation chooses between the candidates of
    a method, such as scales, by the runs' `select`; the test split is evaluated once, at the end.
    The folder is one of a run: `predict`, `evaluate`, `load_run` and `export` accept it.

    Args:
      runs: Run folders, at least two, of different tasks.
      workdir: Run folder to write. If it holds this merged run already, its result is returned.
      method: Name and arguments of an entry of `mtljax.merging.MERGES`, as `ties:density=0.2`.
      source: The data with the labels of all tasks, if it is in memory; None: the runs'
        `data.source`.
      devices: Number of devices to use; None: all.
      verify: File with a public key, whose owner must have signed the runs.
      quiet: Suppress all output.

    Raises:
      ValueError: The method is unknown, a run cannot be loaded, the runs cannot be merged, or the
        folder holds something else.
    """
    merger = make_merger(method)
    workdir, paths = Path(workdir), [Path(run) for run in runs]
    for path in paths:
        if paths.count(path) > 1:
            raise ValueError(f"run {path} is listed twice; remove one")
    loaded = {path: load_run(path, verify=verify) for path in paths}
    check_compatible(loaded)
    experiment = merged_experiment([run.experiment for run in loaded.values()])
    merger.check(experiment.tasks)
    result = finished_merge(experiment, paths, workdir, method)
    if result is not None:
        if not quiet:
            print_line(f"{workdir} is finished already; choose another --workdir to merge again")
            console.print(result_table(result))
        return result
    with announcements(not quiet):
        programs = Programs(set_up(experiment, devices=devices, source=source))
        experiment = programs.setup.experiment
        result = merge_runs(experiment, loaded, workdir, method, programs, quiet=quiet)
    if not quiet:
        console.print(result_table(result))
    return result


def make_merger(method: str) -> Merger:
    """Creates a merging method; raises ValueError for an unknown name or argument."""
    return choose("merging method", method, MERGES).build()


def finished_merge(
    experiment: Experiment, runs: Sequence[Path], workdir: Path, method: str
) -> RunResult | None:
    """Returns the result of a merged run, None if the folder has none.

    Raises:
      ValueError: The folder cannot be used, or holds a run that was created in another way.
    """
    check_folder(workdir, experiment)
    result = read_result(workdir)
    if result is None:
        return None
    merged = result.merged or {}
    if merged.get("method") != method or merged.get("runs") != list(map(named, runs)):
        how = f"by merging {', '.join(merged['runs'])} by {merged['method']}" if merged else ""
        how = how or "by training"
        raise ValueError(f"{workdir} holds a run made {how}; choose another --workdir")
    return result


def merge_runs(
    experiment: Experiment,
    runs: Runs,
    workdir: Path,
    method: str,
    programs: Programs,
    *,
    report: bool = True,
    quiet: bool = True,
) -> RunResult:
    """Merges loaded runs, evaluates the result and writes its run folder.

    Args:
      experiment: Experiment of the merged run, with the tasks of the runs in their order.
      programs: Programs of the experiment, for any seed; its source has the labels of all tasks.
      report: Draw the report.
      quiet: Do not print the validation scores of scales.

    Raises:
      ValueError: The runs cannot be merged.
    """
    merger, setup = make_merger(method), programs.setup
    template = programs.create(experiment.seed)
    network = MergedNetwork(
        setup.parts.model,
        [run.state.variables for run in runs.values()],
        template.variables,
        freeze_statistics=experiment.freeze_statistics,
    )
    batches = batches_of(setup.source, experiment.seed)
    problem = make_problem(runs, experiment, setup.source, network, batches)
    for path, run in runs.items():
        shared = shared_parameters(run.state.variables["params"])
        check_network(path, shared, shared_parameters(template.params))
    images: list[PyTree] = []
    if network.estimates_statistics:
        size = experiment.data.batch_size
        count = -(-min(EXAMPLES, len(setup.source.train)) // size)
        images = [batch["image"] for batch in batches("train", size, count)]

    def evaluated(candidate: Candidate) -> _Evaluated:
        model_state = network.variables(candidate.shared, images)
        params = model_state.pop("params")
        params, model_state = setup.placement.replicate((params, model_state))
        state = template.replace(params=params, model_state=model_state)
        metrics = programs.validation.metrics(state)
        return _Evaluated(candidate, state, selection_score(experiment, metrics))

    with contextlib.ExitStack() as stack:
        merged = Run(experiment, workdir, programs, stack)
        with phase(f"merging {len(runs)} runs by {method}", announced=not quiet):
            best = _best(map(evaluated, merger.candidates(problem)), quiet=quiet)
        merged.merged = {
            "method": method,
            "runs": list(map(named, runs)),
            "steps": [run.step for run in runs.values()],
            **best.candidate.settings,
        }
        merged.start_recording(0, trackers=Trackers(), quiet=True)
        merged.checkpoints.save(best.state, best.score)
        merged.checkpoints.wait()
        return merged.finish(best.state, Cost(), report=report)


class _Evaluated(NamedTuple):
    """Candidate with its state and validation score; lower is better."""

    candidate: Candidate
    state: TrainState
    score: float


def _best(candidates: Iterable[_Evaluated], *, quiet: bool) -> _Evaluated:
    """Returns the candidate with the best validation score, the first of equal ones."""
    best: _Evaluated | None = None
    for item in candidates:
        settings = item.candidate.settings
        if not quiet and "scale" in settings:
            score = f"validation score {number(item.score, 4)}, lower is better"
            print_line(f"scale {settings['scale']:g}: {score}")
        if best is None or item.score < best.score:
            best = item
    assert best is not None
    return best


def make_problem(
    runs: Runs, experiment: Experiment, source: Source, network: MergedNetwork, batches: Batches
) -> Problem:
    """Creates the problem that a merging method reads, from runs with the same start.

    Raises:
      ValueError: The runs started from different weights.
    """
    starts = [initial_parameters(run.experiment, source) for run in runs.values()]
    check_start(list(runs), starts)
    networks = []
    for run in runs.values():
        # Without rematerialization, whose traces methods cannot read.
        model = build(dataclasses.replace(run.experiment, remat=False)).model
        networks.append(Network(run.experiment.tasks[0], model, run.state.variables))
    tuned = [to_numpy(shared_parameters(run.state.variables["params"])) for run in runs.values()]
    return Problem(
        start=starts[0],
        tuned=[{path: run[path] for path in starts[0]} for run in tuned],
        seed=experiment.seed,
        networks=networks,
        batches=batches,
        forward=network.forward,
    )


def initial_parameters(experiment: Experiment, source: Source) -> dict:
    """Computes the shared parameters that a run started from, as training does."""
    with announcements(False):  # those of the merged run are the same
        setup = set_up(dataclasses.replace(experiment, teachers={}), devices=1, source=source)
    create = jax.jit(setup.new_state, compiler_options=compiler_options(use="once"))
    state = create(jax.random.key(experiment.seed), setup.initial.variables)
    return to_numpy(shared_parameters(state.params))


def batches_of(source: Source, seed: int) -> Batches:
    """Creates a reader of shuffled, unaugmented batches."""

    def read(split: str, size: int, count: int) -> Iterator[Mapping[str, PyTree]]:
        examples = source.splits()[split]
        size = min(size, len(examples))
        sampler = pipeline.BatchSampler(seed=seed, size=len(examples), batch_size=size)
        return pipeline.stream(examples, sampler, slice(None), 0, count)

    return read
