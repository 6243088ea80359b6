"""The command line: `python -m mtljax.main [VERB] --experiment NAME [--flag value ...]`.

Each verb is a function of the remaining arguments. Bad input ends in one line and exit status 2.
"""

import contextlib
import dataclasses
import io
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

import tyro

from mtljax.choice import nearest

USAGE = """\
python -m mtljax.main [VERB] [FLAGS]

  train      train an experiment, or go on with it (this is what happens without a verb)
  evaluate   metrics of a trained run on one of its splits
  predict    what a trained run says of image files
  list       the experiments, and everything that is chosen by name

python -m mtljax.main --experiment digits          train the experiment `digits`
python -m mtljax.main --experiment digits --help   its flags, with their values in it
python -m mtljax.main VERB --help                  the flags of another verb
"""

T = TypeVar("T")


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
    name = _value_of(arguments, "--experiment")
    if name is None:
        if {"-h", "--help"} & set(arguments):
            print(USAGE, end="")
            return 0
        raise ValueError("which experiment? add --experiment NAME (`list experiments` shows them)")
    from mtljax.config import Experiment, find_experiment

    experiment = find_experiment(name)

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Flags:
        run: Annotated[Run, tyro.conf.arg(name="")]
        config: Annotated[Experiment, tyro.conf.arg(name="")]

    Flags.__doc__ = f"Trains the experiment {experiment.name!r}; the defaults are its own values."
    flags = parse(Flags, arguments, default=Flags(run=Run(experiment=name), config=experiment))
    run, experiment = flags.run, flags.config

    from mtljax import parallel
    from mtljax.runfolder import default_workdir
    from mtljax.train import Stopped, train

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
    if not run.quiet:
        print(f"pictures: {workdir / 'report.html'}")
    return 0


def evaluate_verb(arguments: list[str]) -> int:
    """Metrics of a trained run on one of its splits."""
    flags = parse(EvaluateFlags, arguments)
    from mtljax import parallel
    from mtljax.console import console, metrics_table
    from mtljax.predict import evaluate_run
    from mtljax.runfolder import write_json

    parallel.use_compile_cache()
    metrics, step = evaluate_run(flags.run, flags.split)
    console.print(metrics_table(f"{flags.run} at step {step}, {flags.split} split", metrics))
    output = flags.output or flags.run / f"evaluation-{flags.split}.json"
    write_json(output, {"step": step, "split": flags.split, "metrics": metrics})
    print(f"written to {output}")
    return 0


def predict_verb(arguments: list[str]) -> int:
    """What a trained run says of image files."""
    flags = parse(PredictFlags, arguments)
    if not flags.images:
        raise ValueError("which images? name PNG, JPEG or npy files after predict --run DIR")
    from mtljax import parallel
    from mtljax.console import console, predictions_table
    from mtljax.predict import load_run, predict_files

    parallel.use_compile_cache()
    output = flags.output or flags.run / "predictions.json"
    console.print(predictions_table(predict_files(load_run(flags.run), flags.images, output)))
    print(f"written to {output}")
    return 0


def list_verb(arguments: list[str]) -> int:
    """The things that are chosen by name."""
    flags = parse(ListFlags, arguments)
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


def parse(flags: type[T], arguments: Sequence[str], default: T | None = None) -> T:
    """Fills a dataclass from flags, by tyro; what is wrong is said in one line.

    Raises:
      ValueError: An unknown flag, naming the nearest, or a value of the wrong type.
      SystemExit: After printing the help that was asked for.
    """
    settings: dict[str, Any] = {"args": list(arguments), "config": (tyro.conf.AvoidSubcommands,)}
    if default is not None:
        settings["default"] = default
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            made, unknown = tyro.cli(flags, return_unknown_args=True, **settings)
    except SystemExit as end:
        if end.code in (0, None):
            raise
        raise ValueError(_first_sentence(complaint.getvalue())) from None
    if unknown:
        known = _flag_names(flags, default)
        raise ValueError(f"unknown flag {unknown[0]!r}{nearest(unknown[0], known)}")
    return made


def _first_sentence(complaint: str) -> str:
    """What tyro's box says, without the box and without the help below the first rule."""
    words = []
    for line in complaint.splitlines()[1:]:
        text = line.strip("│╭╮╰╯─ ")
        if not text and words:
            break
        words.append(text)
    return " ".join(words) or "the flags cannot be read"


def _flag_names(flags: type, default: Any) -> list[str]:
    if default is None:
        return ["--" + field.name.replace("_", "-") for field in dataclasses.fields(flags)]
    parts = (dataclasses.asdict(getattr(default, f.name)) for f in dataclasses.fields(flags))
    return ["--" + name.replace("_", "-") for part in parts for name in _paths(part)]


def _paths(tree: Any, prefix: str = "") -> list[str]:
    if isinstance(tree, dict):
        items = list(tree.items())
    elif isinstance(tree, (list, tuple)) and tree and isinstance(tree[0], dict):
        items = list(enumerate(tree))
    else:
        return [prefix]
    return [
        p for key, value in items for p in _paths(value, f"{prefix}.{key}" if prefix else f"{key}")
    ]


def _value_of(arguments: Sequence[str], flag: str) -> str | None:
    """The value of one flag, before the flags of the experiment are known."""
    for i, argument in enumerate(arguments):
        if argument.startswith(flag + "="):
            return argument.partition("=")[2]
        if argument == flag:
            return arguments[i + 1] if i + 1 < len(arguments) else None
    return None


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one verb and returns the exit status: 0 done, 1 failed, 2 bad input."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    verb = "train"
    if arguments and not arguments[0].startswith("-"):
        verb = arguments.pop(0)
    try:
        if verb not in VERBS:
            raise ValueError(f"unknown verb {verb!r}{nearest(verb, VERBS)}")
        return VERBS[verb](arguments)
    except ValueError as error:
        print(f"mtljax: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("mtljax: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
