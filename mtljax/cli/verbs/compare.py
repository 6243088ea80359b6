"""`compare` and `group`."""

import dataclasses
import sys
from pathlib import Path
from typing import Literal

from mtljax.cli.verbs.experiment import read_experiment


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
    vary: tuple[str, ...] = ()
    """field=value,value ...: a method for each of all combinations; what has init=none is trained
    from scratch, without the options of fine-tuning."""
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


def compare_verb(arguments: list[str]) -> int:
    """Baselines, balancers, fusions ... with several seeds each, and what may be concluded."""
    flags, experiment = read_experiment(arguments, "compare", "Compares methods on", Compare)
    from mtljax import compilation
    from mtljax.comparison.compare import compare, show
    from mtljax.training.stopping import Stopped

    compilation.use_compile_cache()
    workdir = flags.workdir or Path("runs") / f"compare-{experiment.name}"
    try:
        found, failures = compare(
            experiment,
            workdir,
            seeds=flags.seeds,
            balancers=flags.balancers,
            fusions=flags.fusions,
            trunks=flags.trunks,
            vary=flags.vary,
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
    """Which tasks help each other, and which to train together."""
    flags, experiment = read_experiment(arguments, "group", "Groups the tasks of", Group)
    from mtljax import compilation
    from mtljax.comparison.grouping.group import group

    compilation.use_compile_cache()
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
