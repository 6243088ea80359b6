"""Which tasks to train together: their affinity, measured while all of them train, and groups."""

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.table import Table

from mtljax.comparison.grouping.affinity import measure_affinity
from mtljax.comparison.grouping.search import Grouping, recommend
from mtljax.config import Experiment
from mtljax.training.programs import Programs
from mtljax.utils.files import PART, write_json
from mtljax.utils.terminal import console, say
from mtljax.utils.text import count, joined

FOLDER = "affinity"


def group(
    experiment: Experiment,
    workdir: Path,
    *,
    seeds: int = 3,
    groups: int | None = None,
    devices: int | None = None,
    quiet: bool = False,
) -> Grouping:
    """Measures task affinity with several seeds and recommends which tasks to train together.

    Seeds that were measured before are not measured again.

    Args:
      experiment: Its tasks are trained together, as it says.
      workdir: Where measurements, the recommendation and the page are written.
      seeds: How many, one after the other from the experiment's own.
      groups: At most so many groups, that is networks; None: as many as are best.
      devices: How many to use; None: all.
      quiet: Print nothing.

    Raises:
      ValueError: There is but one task, or something else is not as it must be.
    """
    if len(experiment.tasks) < 2:
        raise ValueError("group needs at least two tasks")
    if seeds < 1 or (groups is not None and groups < 1):
        raise ValueError("--seeds and --groups must be >= 1")
    check_workdir(workdir)
    programs, measured = Programs(experiment, devices=devices), []
    if not quiet:
        for line in programs.initial.report:
            say(line)
    for number in range(experiment.seed, experiment.seed + seeds):
        member = dataclasses.replace(experiment, seed=number)
        measured.append(measure_affinity(member, workdir / FOLDER, programs))
        if not quiet:
            say(f"[{len(measured)}/{seeds}] seed {number}: {len(measured[-1])} measurements")
    found = recommend(measured, groups)
    names = [task.name for task in experiment.tasks]
    write(experiment, found, [len(part) for part in measured], workdir)
    if not quiet:
        console.print(affinity_table(names, found.affinity, console.width))
        for sentence in conclusions(names, found, [len(part) for part in measured]):
            say(sentence)
    return found


def check_workdir(path: Path) -> None:
    """Makes sure, by looking only, that a grouping may be written to a folder.

    Raises:
      ValueError: It is a file, or holds something else.
    """
    if path.exists() and not path.is_dir():
        raise ValueError(f"{path} is a file, not a folder; choose another --workdir")
    if not path.is_dir() or (path / FOLDER).is_dir():
        return
    if any(not inside.name.endswith(PART) for inside in path.iterdir()):
        raise ValueError(f"{path} is not empty and no grouping's folder; choose another --workdir")


def affinity_table(names: Sequence[str], affinity: np.ndarray, width: int) -> Table:
    """For the terminal: by how much a step on one task helps (+) or hurts (-) another's loss.

    The whole matrix, or, where that is wider than `width` characters, the extremes of each task.
    """
    table = Table("a step on ...", title="affinity, % of the other's loss", title_justify="left")
    for name in names:
        table.add_column(f"helps {name}", justify="right")
    for name, row in zip(names, affinity, strict=True):
        table.add_row(name, *(f"{100 * value:+.3g}" for value in row))
    wide = console.options.update(max_width=sys.maxsize)
    if console.measure(table, options=wide).maximum <= width:
        return table

    table = Table(
        "the loss of",
        "is helped most by",
        "is helped least by",
        title="affinity, % of the loss (all of it is on the page)",
        title_justify="left",
    )
    for j, name in enumerate(names):
        others = sorted(set(range(len(names))) - {j}, key=lambda i: affinity[i, j])
        cells = [f"{names[i]}  {100 * affinity[i, j]:+.2g}" for i in (others[-1], others[0])]
        table.add_row(name, *cells)
    return table


def conclusions(names: Sequence[str], found: Grouping, counts: Sequence[int]) -> list[str]:
    """The recommendation in words, and how sure it is."""
    together = [joined([names[i] for i in part]) for part in found.groups if len(part) > 1]
    alone = [names[part[0]] for part in found.groups if len(part) == 1]
    said = []
    if len(together) == 1 and not alone:
        said.append(f"Train all together: {together[0]}.")
    elif together:
        said.append(f"Train together: {'; '.join(together)}.")
    if alone:
        verb = "are" if len(alone) > 1 else "is"
        reason = "the others do not help them" if len(alone) > 1 else "the others do not help it"
        said.append(f"{joined(alone)} {verb} better trained alone: {reason}.")
    off = ~np.eye(len(names), dtype=bool)
    pairs = [(int(i), int(j)) for i, j in np.argwhere(off)]
    best = max(pairs, key=lambda pair: found.affinity[pair])
    worst = min(pairs, key=lambda pair: found.affinity[pair])
    said.append(
        f"A step on {names[best[0]]} changes {names[best[1]]}'s loss by "
        f"{-100 * found.affinity[best]:+.2g} %, the most helpful; one on {names[worst[0]]} changes "
        f"{names[worst[1]]}'s by {-100 * found.affinity[worst]:+.2g} %, the least."
    )
    sure = "surely" if found.support >= 0.95 else "probably" if found.support >= 0.7 else "unsurely"
    search = "the best of all partitions" if found.exact else "found by local search"
    said.append(
        f"How sure: {sure}. {100 * found.support:.0f} % of resamplings of {sum(counts)} "
        f"measurements from {count(len(counts), 'seed')} lead to the same groups ({search}). "
        "Affinity looks one step ahead; only a comparison shows what training together brings."
    )
    return said


def write(experiment: Experiment, found: Grouping, counts: Sequence[int], workdir: Path) -> None:
    """Writes `group.json` and the page."""
    from mtljax.comparison.grouping.page import write_page  # matplotlib: not before it is needed

    names = [task.name for task in experiment.tasks]
    write_json(
        workdir / "group.json",
        {
            "tasks": names,
            "groups": [[names[i] for i in part] for part in found.groups],
            "affinity": found.affinity.tolist(),
            "score": found.score,
            "score_together": found.together,
            "support": found.support,
            "measurements": list(counts),
        },
    )
    write_page(workdir, experiment, found, conclusions(names, found, counts))
