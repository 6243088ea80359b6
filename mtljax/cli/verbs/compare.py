"""Verbs `compare`, `front` and `group`."""

import dataclasses
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from mtljax.cli.verbs.experiment import ExperimentFlags, read_experiment
from mtljax.utils.urls import named


@dataclasses.dataclass(frozen=True, kw_only=True)
class CompareFlags(ExperimentFlags):
    """Methods to compare."""

    balancers: tuple[str, ...] = ()
    """Balancers with their arguments; if omitted, the experiment's balancer."""
    fusions: tuple[str, ...] = ()
    """Fusions with their arguments; if omitted, the experiment's fusion."""
    trunks: tuple[str, ...] = ()
    """Trunks with their arguments; if omitted, the experiment's trunk."""
    vary: tuple[str, ...] = ()
    """FIELD=VALUE,VALUE ...: one method for each combination of values. Methods with init=none are
    trained from scratch, without the fine-tuning options."""
    grid: tuple[str, ...] = ()
    """FIELD=VALUE,VALUE ...: settings to tune; the best combination of each method is chosen on
    validation."""
    tune: int = 0
    """Number of trials by which each method and each single-task network is tuned on validation, by
    TPE and ASHA as in the verb `search`. 0: no tuning."""
    space: tuple[str, ...] = ()
    """FIELD=DISTRIBUTION ...: space of the trials, as in the verb `search`; if omitted, learning
    rates from a tenth to ten times the experiment's."""
    merges: tuple[str, ...] = ()
    """Merging methods with their arguments, applied to the single-task networks of each seed; see
    `list merges`."""
    seeds: int | None = None
    """Number of seeds, starting at --seed; if omitted, 5, or 1 with --folds."""
    folds: int = 0
    """Number of folds of a cross-validation, in which each example of all splits is tested once;
    groups are not divided, strata are in proportion. 0: the splits of the data."""
    workdir: Path | None = None
    """Output folder, or its URL in a bucket; if omitted, runs/compare-NAME. Finished runs
    in it are reused."""
    devices: int | None = None
    """Number of devices; if omitted, all."""
    together: Literal["auto", "yes", "no"] = "auto"
    """Train all seeds of a method in one program; auto: if that is faster."""
    engine: str = "local"
    """Place where the runs are trained, with its arguments: local (this process), ray or slurm, as
    in ray:cpus=4,gpus=1 or slurm:partition=gpu,gpus=1,minutes=240; see `list engines`."""
    quiet: bool = False
    """Print errors only."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class FrontFlags(ExperimentFlags):
    """Pareto fronts to train."""

    method: tuple[str, ...] = ("epo",)
    """Balancers with a preference and their arguments, one front each, in place of --balancer: epo,
    pmtl, pmgda, ferero, hypervolume, chebyshev, stch, ... Linear scalarization is trained in any
    case."""
    rays: int = 8
    """Number of preferences, evenly distributed, with one network each."""
    seeds: int = 3
    """Number of seeds, starting at --seed."""
    conditions: tuple[str, ...] = ()
    """Conditionings of a network on the preference with their arguments, one network for all rays
    each; see `list conditionings`."""
    conditioned_steps: int | None = None
    """Steps of each conditioned network; if omitted, --steps. With --rays times as many, it takes
    as many steps as the separate networks together."""
    linear_steps: int | None = None
    """Steps of each network of linear scalarization; if omitted, --steps. More steps make up for
    methods whose steps take longer."""
    grid: tuple[str, ...] = ()
    """FIELD=VALUE,VALUE ...: settings to tune; the best combination of each ray is chosen on
    validation."""
    workdir: Path | None = None
    """Output folder, or its URL in a bucket; if omitted, runs/front-NAME. Finished runs
    in it are reused."""
    devices: int | None = None
    """Number of devices; if omitted, all."""
    together: Literal["auto", "yes", "no"] = "auto"
    """Train all rays of a seed in one program; auto: if that is faster."""
    engine: str = "local"
    """Place where the networks are trained, as in compare; see `list engines`."""
    quiet: bool = False
    """Print errors only."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class GroupFlags(ExperimentFlags):
    """Options of task grouping."""

    groups: int | None = None
    """Maximum number of groups, one network each; if omitted, the best number."""
    seeds: int = 3
    """Number of seeds, starting at --seed."""
    workdir: Path | None = None
    """Output folder, or its URL in a bucket; if omitted, runs/group-NAME. Finished
    measurements in it are reused."""
    devices: int | None = None
    """Number of devices; if omitted, all."""
    quiet: bool = False
    """Print errors only."""


def compare_verb(arguments: list[str]) -> int:
    """Runs `compare` and returns the exit status."""
    if any(argument.partition("=")[0] == "--front" for argument in arguments):
        raise ValueError(
            "compare has no flag --front any more; use the verb front: python -m mtljax.main front "
            "--experiment NAME --method epo --rays 8"
        )
    flags, experiment = read_experiment(arguments, "compare", "Compares methods on", CompareFlags)
    if not flags.quiet:
        print(f"comparison of methods on {experiment.name}", flush=True)
    from mtljax.comparison.compare import compare, show

    workdir = flags.workdir or Path("runs") / f"compare-{experiment.name}"
    return train_members(
        lambda: compare(experiment, workdir, **flags.options()), show, workdir, flags.quiet
    )


def front_verb(arguments: list[str]) -> int:
    """Runs `front` and returns the exit status."""
    action = "Trains Pareto fronts of the tasks of"
    flags, experiment = read_experiment(arguments, "front", action, FrontFlags)
    if not flags.quiet:
        print(f"Pareto fronts of {experiment.name}", flush=True)
    from mtljax.pareto.front import front, show

    workdir = flags.workdir or Path("runs") / f"front-{experiment.name}"
    return train_members(
        lambda: front(experiment, workdir, **flags.options()), show, workdir, flags.quiet
    )


def train_members(
    train: Callable[[], tuple[Any, Sequence[Any]]],
    show: Callable[[Any], None],
    workdir: Path,
    quiet: bool,
) -> int:
    """Trains the runs of a comparison, front or search, and returns the exit status."""
    from mtljax import compilation
    from mtljax.training.stopping import Stopped

    compilation.use_compile_cache()
    try:
        outcome, failures = train()
    except Stopped as stopped:
        is_failure = stopped.status == 1  # else a signal
        message = stopped if is_failure else "stopped and saved; run the same command to resume"
        print(f"mtljax: {message}", file=sys.stderr)
        return stopped.status
    except KeyboardInterrupt:
        print("mtljax: interrupted; run the same command to resume", file=sys.stderr)
        return 130
    except OSError as error:  # a full disk, say
        if error.strerror is None or "the same command" in error.strerror:
            raise
        message = f"{error.strerror}; run the same command to resume"
        raise OSError(error.errno, message, error.filename) from error
    if not quiet:
        show(outcome)
        print(named(f"report: {workdir / 'report.html'}"))
    for failure in failures:
        print(f"mtljax: {failure.member} failed: {failure.reason}", file=sys.stderr)
    return 1 if failures else 0


def group_verb(arguments: list[str]) -> int:
    """Runs `group` and returns the exit status."""
    flags, experiment = read_experiment(arguments, "group", "Groups the tasks of", GroupFlags)
    if not flags.quiet:
        print(f"grouping of the tasks of {experiment.name}", flush=True)
    from mtljax import compilation
    from mtljax.comparison.grouping.group import group

    compilation.use_compile_cache()
    workdir = flags.workdir or Path("runs") / f"group-{experiment.name}"
    group(experiment, workdir, **flags.options())
    if not flags.quiet:
        print(named(f"report: {workdir / 'report.html'}"))
    return 0
