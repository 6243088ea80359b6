"""The command line: `python -m mtljax.main [VERB] --experiment NAME [--flag value ...]`.

Each verb is a function of the remaining arguments. Bad input ends in one line and exit status 2.
"""

import dataclasses
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import tyro

from mtljax.choice import did_you_mean, nearest
from mtljax.flags import parse, value_of

USAGE = """\
python -m mtljax.main [VERB] [FLAGS]

  train      train an experiment, or go on with it (this is what happens without a verb)
  evaluate   metrics of a trained run on one of its splits
  predict    what a trained run says of image files
  list       the experiments, and everything that is chosen by name

python -m mtljax.main --experiment digits          train the experiment `digits`
python -m mtljax.main --experiment digits --help   its flags, with their values in it
python -m mtljax.main VERB --help                  the flags of another verb

What is wrong with the input is said in one line; MTLJAX_TRACEBACK=1 shows where it was found.
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """Where and on what to run."""

    experiment: str = ""
    """Name of an experiment, or the path of a file that defines one, or of a run's config.json."""
    workdir: Path | None = None
    """Run folder (default: runs/NAME-<date>); one with an unfinished run goes on from there."""
    devices: int | None = None
    """How many devices to use (default: all)."""
    tensorboard: bool = False
    """Also write TensorBoard event files."""
    quiet: bool = False
    """Print nothing but errors."""
    coordinator: str | None = None
    """HOST:PORT of process 0, if several processes train together; auto: ask the cluster."""
    num_processes: int | None = None
    """How many processes train together."""
    process_id: int | None = None
    """Which of them this is, from 0."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluateFlags:
    """Metrics of a trained run, at its best checkpoint, on one of its splits."""

    run: Path
    """The run folder."""
    split: str = "test"
    """train, validation or test."""
    output: Path | None = None
    """Where to write the numbers as JSON (default: RUN/evaluation-SPLIT.json)."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PredictFlags:
    """What a trained run, at its best checkpoint, says of image files."""

    images: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """PNG, JPEG or npy files, of any size."""
    run: Path
    """The run folder."""
    output: Path | None = None
    """Where to write the predictions as JSON (default: RUN/predictions.json)."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ListFlags:
    """The things that are chosen by name, one line each."""

    kinds: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    """experiments, balancers, trunks, fusions, tasks, sources, ... (default: all)."""


def train_verb(arguments: list[str]) -> int:
    """Trains an experiment, or goes on with it."""
    name = value_of(arguments, "--experiment")
    if name is None:
        if {"-h", "--help"} & set(arguments):
            print(USAGE, end="")
            return 0
        other = next((a for a in arguments if did_you_mean(a, ["--experiment"])), None)
        wrong = f"unknown flag {other!r}; " if other not in (None, "--experiment") else ""
        raise ValueError(
            f"{wrong}which experiment? add --experiment NAME (`list experiments` shows them)"
        )
    from mtljax.config import Experiment, find_experiment

    experiment = find_experiment(name)

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Flags:
        run: Annotated[Run, tyro.conf.arg(name="")]
        config: Annotated[Experiment, tyro.conf.arg(name="")]

    Flags.__doc__ = f"Trains the experiment {experiment.name!r}; the defaults are its own values."
    flags = parse(Flags, arguments, "train", Flags(run=Run(experiment=name), config=experiment))
    run, experiment = flags.run, flags.config
    if run.coordinator is not None and run.workdir is None:
        raise ValueError("several processes need one --workdir that all of them can see")

    import jax

    from mtljax import parallel
    from mtljax.runfolder import default_workdir
    from mtljax.stopping import Stopped
    from mtljax.train import train

    parallel.start(run.coordinator, run.num_processes, run.process_id)
    parallel.use_compile_cache()
    workdir = run.workdir or default_workdir(experiment)
    try:
        train(
            experiment,
            workdir,
            devices=run.devices,
            tensorboard=run.tensorboard,
            quiet=run.quiet,
        )
    except Stopped as stopped:
        print(f"mtljax: {stopped}", file=sys.stderr)
        return stopped.status
    except KeyboardInterrupt:
        print(
            f"mtljax: interrupted; --workdir {workdir} goes on from its last checkpoint",
            file=sys.stderr,
        )
        return 130
    if not run.quiet and jax.process_index() == 0:
        print(f"pictures: {workdir / 'report.html'}")
    return 0


def evaluate_verb(arguments: list[str]) -> int:
    """Metrics of a trained run on one of its splits."""
    flags = parse(EvaluateFlags, arguments, "evaluate")
    from mtljax import parallel
    from mtljax.console import console, metrics_table
    from mtljax.predict import evaluate_run, load_run
    from mtljax.runfolder import check_output, write_json

    parallel.use_compile_cache()
    trained = load_run(flags.run)
    output = flags.output or flags.run / f"evaluation-{flags.split}.json"
    check_output(output)
    metrics, step = evaluate_run(trained, flags.split), trained.step
    console.print(metrics_table(f"{flags.run} at step {step}, {flags.split} split", metrics))
    write_json(output, {"step": step, "split": flags.split, "metrics": metrics})
    print(f"written to {output}")
    return 0


def predict_verb(arguments: list[str]) -> int:
    """What a trained run says of image files."""
    flags = parse(PredictFlags, arguments, "predict")
    if not flags.images:
        raise ValueError("which images? name PNG, JPEG or npy files after predict --run DIR")
    from mtljax import parallel
    from mtljax.console import console, predictions_table
    from mtljax.predict import load_run, predict_files
    from mtljax.runfolder import check_output

    parallel.use_compile_cache()
    trained = load_run(flags.run)
    output = flags.output or flags.run / "predictions.json"
    check_output(output)
    console.print(predictions_table(predict_files(trained, flags.images, output)))
    print(f"written to {output}")
    return 0


def list_verb(arguments: list[str]) -> int:
    """The things that are chosen by name."""
    flags = parse(ListFlags, arguments, "list")
    from mtljax.catalog import KINDS, entries
    from mtljax.console import catalog_table, console

    for kind in flags.kinds or KINDS:
        console.print(catalog_table(kind, entries(kind)))
    return 0


VERBS: dict[str, Callable[[list[str]], int]] = {
    "train": train_verb,
    "evaluate": evaluate_verb,
    "predict": predict_verb,
    "list": list_verb,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one verb and returns the exit status: 0 done, 1 failed, 2 bad input."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    verb = "train"
    if arguments and not arguments[0].startswith("-"):
        verb = arguments.pop(0)
    try:
        if verb not in VERBS:
            raise ValueError(_unknown_verb(verb))
        return VERBS[verb](arguments)
    except ValueError as error:
        if os.environ.get("MTLJAX_TRACEBACK"):
            raise
        print(f"mtljax: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("mtljax: interrupted", file=sys.stderr)
        return 130


def _unknown_verb(verb: str) -> str:
    from mtljax.config import experiment_names

    if verb in experiment_names() or verb.endswith(".py"):
        return f"unknown verb {verb!r}; to train it write --experiment {verb}"
    return f"unknown verb {verb!r}{nearest(verb, VERBS)}"


if __name__ == "__main__":
    sys.exit(main())
