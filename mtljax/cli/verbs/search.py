"""Verb `search`."""

import dataclasses
from pathlib import Path
from typing import Literal

from mtljax.cli.verbs.compare import train_members
from mtljax.cli.verbs.experiment import ExperimentFlags, read_experiment


@dataclasses.dataclass(frozen=True, kw_only=True)
class SearchFlags(ExperimentFlags):
    """Space of settings, and how it is searched."""

    space: tuple[str, ...] = ()
    """FIELD=DISTRIBUTION ..., where a distribution is uniform(a,b), loguniform(a,b), int(a,b) or
    choice(a,b,...): "learning_rate=loguniform(1e-4,1e-1)" "balancer=choice(ew,uw,cagrad:c=0.4)". It
    may be a part of a value: "optimizer=adamw:weight_decay=loguniform(1e-4,1)"."""
    trials: int = 40
    """Number of trials, each a training with another setting, scored by --select on validation."""
    finalists: int = 3
    """Number of best settings that are trained with all seeds; the best mean on validation wins."""
    seeds: int = 5
    """Number of seeds of the best settings and the default, starting at --seed."""
    pruning: Literal["asha", "none"] = "asha"
    """asha: end trials early if two thirds of the others were better at the same evaluation."""
    storage: str | None = None
    """Database of the study, such as postgresql://HOST/NAME, or path of a journal file; if omitted,
    study.db in the output folder. Processes with the same --workdir share a study."""
    workdir: Path | None = None
    """Output folder, or with --storage its URL in a bucket; if omitted, runs/search-NAME. A search
    in it is resumed."""
    devices: int | None = None
    """Number of devices; if omitted, all."""
    together: Literal["auto", "yes", "no"] = "auto"
    """Train all seeds of a setting in one program; auto: if that is faster."""
    quiet: bool = False
    """Print errors only."""


def search_verb(arguments: list[str]) -> int:
    """Runs `search` and returns the exit status."""
    action = "Searches for settings of"
    flags, experiment = read_experiment(arguments, "search", action, SearchFlags)
    if not flags.quiet:
        print(f"search of settings of {experiment.name}", flush=True)
    from mtljax.searching.search import search, show

    workdir = flags.workdir or Path("runs") / f"search-{experiment.name}"
    return train_members(
        lambda: search(experiment, workdir, **flags.options()), show, workdir, flags.quiet
    )
