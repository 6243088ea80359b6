"""The command line: `python -m mtljax.main [VERB] --experiment NAME [--flag value ...]`.

Each verb is a function of the remaining arguments. Bad input ends in one line and exit status 2.
"""

import dataclasses
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import tyro

from mtljax.choice import did_you_mean, nearest
from mtljax.flags import parse, value_of
from mtljax.protection.verbs import sign_verb, verify_verb

T = TypeVar("T")

USAGE = """\
python -m mtljax.main [VERB] [FLAGS]

  train      train an experiment, or go on with it (this is what happens without a verb)
  compare    baselines, balancers, fusions ... with several seeds each, and what may be concluded
  group      which tasks help each other, and which to train together
  evaluate   metrics of a trained run on one of its splits
  predict    what a trained run says of image files
  prepare    download an experiment's data and get it ready, once
  data       what is in an experiment's data: counts, balance, gaps, and a picture of samples
  sign       sign a run folder or a file of weights
  verify     whether a signature holds
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
    verify: Path | None = None
    """Public key (PEM): go on only from checkpoints that its owner signed."""
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
    attack: str = ""
    """Also under an attack, as `list attacks` shows: fgsm, pgd or pgd:steps=20."""
    eps: float = 8 / 255
    """Of the attack: largest change of a pixel, as a share of the way from black to white."""
    verify: Path | None = None
    """Public key (PEM): load the run only if its owner signed it."""
    output: Path | None = None
    """Where to write the numbers as JSON (default: RUN/evaluation-SPLIT.json)."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PredictFlags:
    """What a trained run, at its best checkpoint, says of image files."""

    images: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """PNG, JPEG or npy files, of any size."""
    run: Path
    """The run folder."""
    verify: Path | None = None
    """Public key (PEM): load the run only if its owner signed it."""
    output: Path | None = None
    """Where to write the predictions as JSON (default: RUN/predictions.json)."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ListFlags:
    """The things that are chosen by name, one line each."""

    kinds: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    """experiments, balancers, trunks, fusions, tasks, sources, ... (default: all)."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Compare:
    """What to compare."""

    experiment: str = ""
    """Name of an experiment, or the path of a file that defines one, or of a run's config.json."""
    balancers: tuple[str, ...] = ()
    """Balancers with their arguments (default: the experiment's own)."""
    fusions: tuple[str, ...] = ()
    """Fusions with their arguments (default: the experiment's own)."""
    trunks: tuple[str, ...] = ()
    """Trunks with their arguments (default: the experiment's own)."""
    grid: tuple[str, ...] = ()
    """field=value,value ...: of all combinations validation chooses one for each method."""
    front: int = 0
    """How many fixed weightings of the losses to train, as the front that a method must beat."""
    seeds: int = 5
    """How many seeds, from --seed on."""
    workdir: Path | None = None
    """Where everything is written (default: runs/compare-NAME); what is finished is kept."""
    devices: int | None = None
    """How many devices to use (default: all)."""
    together: Literal["auto", "yes", "no"] = "auto"
    """Train all seeds of a method side by side in one program; auto: where that is faster."""
    quiet: bool = False
    """Print nothing but errors."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prepare:
    """Whose data to get ready."""

    experiment: str = ""
    """Name of an experiment, or the path of a file that defines one, or of a run's config.json."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Survey:
    """Whose data to look at."""

    experiment: str = ""
    """Name of an experiment, or the path of a file that defines one, or of a run's config.json."""
    output: Path | None = None
    """Folder for statistics.json and samples.png (default: runs/data-NAME)."""
    samples: int = 8
    """How many examples to draw."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Group:
    """Which tasks to group."""

    experiment: str = ""
    """Name of an experiment, or the path of a file that defines one, or of a run's config.json."""
    groups: int | None = None
    """At most so many groups, a network each (default: as many as are best)."""
    seeds: int = 3
    """How many seeds, from --seed on."""
    workdir: Path | None = None
    """Where everything is written (default: runs/group-NAME); what was measured is kept."""
    devices: int | None = None
    """How many devices to use (default: all)."""
    quiet: bool = False
    """Print nothing but errors."""


def read_experiment(arguments: list[str], verb: str, what: str, kind: type[T]) -> tuple[T, Any]:
    """Reads a verb's own flags together with those of the experiment that one of them names.

    Args:
      arguments: The command line behind the verb.
      verb: What it is called.
      what: What it does with the experiment, for `--help`.
      kind: The dataclass of its own flags, with a field `experiment`.

    Returns:
      (its own flags, the experiment with the flags in it).

    Raises:
      ValueError: No experiment, or a flag that is wrong.
    """
    name = value_of(arguments, "--experiment")
    if name is None:
        other = next((a for a in arguments if did_you_mean(a, ["--experiment"])), None)
        wrong = f"unknown flag {other!r}; " if other not in (None, "--experiment") else ""
        raise ValueError(
            f"{wrong}which experiment? add --experiment NAME (`list experiments` shows them)"
        )
    from mtljax.config import Experiment, find_experiment

    experiment = find_experiment(name)

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Flags:
        own: Annotated[kind, tyro.conf.arg(name="")]  # type: ignore[valid-type]
        config: Annotated[Experiment, tyro.conf.arg(name="")]

    Flags.__doc__ = f"{what} the experiment {experiment.name!r}; the defaults are its own values."
    flags = parse(
        Flags, arguments, verb, Flags(own=kind(**{"experiment": name}), config=experiment)
    )
    return flags.own, flags.config


def train_verb(arguments: list[str]) -> int:
    """Trains an experiment, or goes on with it."""
    run, experiment = read_experiment(arguments, "train", "Trains", Run)
    if run.coordinator is not None and run.workdir is None:
        raise ValueError("several processes need one --workdir that all of them can see")

    import jax

    from mtljax import parallel
    from mtljax.checkpoint import saved_steps
    from mtljax.protection.signing import verify
    from mtljax.runfolder import default_workdir
    from mtljax.stopping import Stopped
    from mtljax.train import train

    parallel.start(run.coordinator, run.num_processes, run.process_id)
    parallel.use_compile_cache()
    workdir = run.workdir or default_workdir(experiment)
    if run.verify is not None and saved_steps(workdir):
        verify(workdir, run.verify)
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


def compare_verb(arguments: list[str]) -> int:
    """Compares methods on an experiment."""
    flags, experiment = read_experiment(arguments, "compare", "Compares methods on", Compare)
    from mtljax import parallel
    from mtljax.compare import compare, show
    from mtljax.stopping import Stopped

    parallel.use_compile_cache()
    workdir = flags.workdir or Path("runs") / f"compare-{experiment.name}"
    try:
        found, failures = compare(
            experiment,
            workdir,
            seeds=flags.seeds,
            balancers=flags.balancers,
            fusions=flags.fusions,
            trunks=flags.trunks,
            grid=flags.grid,
            front=flags.front,
            devices=flags.devices,
            together=flags.together,
            quiet=flags.quiet,
        )
    except Stopped as stopped:
        print("mtljax: stopped and saved; the same command goes on from there", file=sys.stderr)
        return stopped.status
    except KeyboardInterrupt:
        print("mtljax: interrupted; the same command goes on", file=sys.stderr)
        return 130
    if not flags.quiet:
        show(found)
        print(f"tables and pictures: {workdir / 'report.html'}")
    for failure in failures:
        print(f"mtljax: {failure.member} failed: {failure.reason}", file=sys.stderr)
    return 1 if failures else 0


def group_verb(arguments: list[str]) -> int:
    """Recommends which tasks to train together."""
    flags, experiment = read_experiment(arguments, "group", "Groups the tasks of", Group)
    from mtljax import parallel
    from mtljax.group import group

    parallel.use_compile_cache()
    workdir = flags.workdir or Path("runs") / f"group-{experiment.name}"
    group(
        experiment,
        workdir,
        seeds=flags.seeds,
        groups=flags.groups,
        devices=flags.devices,
        quiet=flags.quiet,
    )
    if not flags.quiet:
        print(f"table and picture: {workdir / 'report.html'}")
    return 0


def evaluate_verb(arguments: list[str]) -> int:
    """Metrics of a trained run on one of its splits."""
    flags = parse(EvaluateFlags, arguments, "evaluate")
    from mtljax import parallel
    from mtljax.assemble import make_attack
    from mtljax.console import console, metrics_table
    from mtljax.predict import evaluate_run, load_run
    from mtljax.runfolder import check_output, write_json

    parallel.use_compile_cache()
    trained = load_run(flags.run, verify=flags.verify)
    under = f"-{flags.attack.partition(':')[0]}" if flags.attack else ""
    output = flags.output or flags.run / f"evaluation-{flags.split}{under}.json"
    check_output(output)
    attack = make_attack(flags.attack or None, trained.low, trained.high, eps=flags.eps)
    found, step = evaluate_run(trained, flags.split, attack), trained.step
    console.print(metrics_table(f"{flags.run} at step {step}, {flags.split} split", **found))
    told = {"step": step, "split": flags.split, **found}
    if attack is not None:
        told["attack"] = {"attack": flags.attack, "eps": flags.eps}
    write_json(output, told)
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
    trained = load_run(flags.run, verify=flags.verify)
    output = flags.output or flags.run / "predictions.json"
    check_output(output)
    console.print(predictions_table(predict_files(trained, flags.images, output)))
    print(f"written to {output}")
    return 0


def prepare_verb(arguments: list[str]) -> int:
    """Downloads an experiment's data and gets it ready."""
    _, experiment = read_experiment(arguments, "prepare", "Gets ready the data of", Prepare)
    from mtljax.data.prepare import prepare

    done = prepare(experiment.data.source)
    print("\n".join(done) or f"source {experiment.data.source} needs no preparation")
    return 0


def data_verb(arguments: list[str]) -> int:
    """Says what is in an experiment's data."""
    flags, experiment = read_experiment(arguments, "data", "Looks at the data of", Survey)
    from mtljax.console import console
    from mtljax.survey import survey

    folder = flags.output or Path("runs") / f"data-{experiment.name}"
    console.print(survey(experiment, folder, flags.samples))
    print(f"written to {folder}")
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
    "compare": compare_verb,
    "group": group_verb,
    "evaluate": evaluate_verb,
    "predict": predict_verb,
    "prepare": prepare_verb,
    "data": data_verb,
    "sign": sign_verb,
    "verify": verify_verb,
    "list": list_verb,
}

OF_EXPERIMENT = ("train", "compare", "group", "prepare", "data")
"""Verbs whose flags are known only when the experiment is."""


def asks_for_usage(arguments: list[str]) -> bool:
    """Whether help is wanted, but not on a certain experiment."""
    return bool({"-h", "--help"} & set(arguments)) and value_of(arguments, "--experiment") is None


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one verb and returns the exit status: 0 done, 1 failed, 2 bad input."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    verb = "train"
    if arguments and not arguments[0].startswith("-"):
        verb = arguments.pop(0)
    try:
        if verb not in VERBS:
            raise ValueError(_unknown_verb(verb))
        if verb in OF_EXPERIMENT and asks_for_usage(arguments):
            print(USAGE, end="")
            return 0
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
