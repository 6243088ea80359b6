"""The honest comparison in one call: train what is missing, then say what all of it means."""

from collections.abc import Sequence
from pathlib import Path

from mtljax.comparison import table
from mtljax.comparison.conclusions import conclusions
from mtljax.comparison.outcome import Comparison, collect
from mtljax.comparison.plan import FOLDER, plan
from mtljax.comparison.running import Failure, Together, run_members
from mtljax.config import Experiment
from mtljax.utils.files import PART, write_text
from mtljax.utils.terminal import console, say


def compare(
    experiment: Experiment,
    workdir: Path,
    *,
    seeds: int = 5,
    balancers: Sequence[str] = (),
    fusions: Sequence[str] = (),
    trunks: Sequence[str] = (),
    vary: Sequence[str] = (),
    grid: Sequence[str] = (),
    front: int = 0,
    devices: int | None = None,
    together: Together = "auto",
    quiet: bool = False,
) -> tuple[Comparison, list[Failure]]:
    """Trains single-task baselines and methods with several seeds, and compares them.

    Whatever is finished in `workdir` is not run again, so a comparison that was interrupted goes
    on, and one that gets another method or seed runs only that.

    Args:
      experiment: What to compare on; its own seed is the first.
      workdir: Where everything is written: tables, the page, and a run folder per member.
      seeds: How many, one after the other from the experiment's own.
      balancers, fusions, trunks, vary, grid, front: See `mtljax.comparison.plan.plan`.
      devices: How many to use; None: all.
      together: Whether seeds are trained side by side in one program; auto: where that pays.
      quiet: Show no progress.

    Returns:
      What came out, and what could not be trained.

    Raises:
      ValueError: Something asked for is not there; then nothing was written.
      Stopped: SIGTERM came; the same call goes on.
    """
    if seeds < 1:
        raise ValueError(f"--seeds must be >= 1, not {seeds}")
    methods = plan(
        experiment,
        balancers=balancers,
        fusions=fusions,
        trunks=trunks,
        vary=vary,
        grid=grid,
        front=front,
    )
    check_workdir(workdir)
    numbers = range(experiment.seed, experiment.seed + seeds)
    failures = run_members(
        methods, numbers, workdir, devices=devices, together=together, quiet=quiet
    )
    found = collect(experiment, methods, numbers, workdir)
    write(found, failures, workdir)
    return found, failures


def show(found: Comparison) -> None:
    """Tables and findings on the terminal."""
    for part in table.to_terminal(found):
        console.print(part)
    for sentence in conclusions(found):
        say(sentence)


def check_workdir(path: Path) -> None:
    """Makes sure, by looking only, that a comparison may be written to a folder.

    Raises:
      ValueError: It is a file, a run folder, or holds something else.
    """
    if path.exists() and not path.is_dir():
        raise ValueError(f"{path} is a file, not a folder; choose another --workdir")
    if not path.is_dir() or (path / FOLDER).is_dir():
        return
    if any(not inside.name.endswith(PART) for inside in path.iterdir()):
        raise ValueError(
            f"{path} is not empty and no comparison's folder; choose another --workdir"
        )


def write(found: Comparison, failures: Sequence[Failure], workdir: Path) -> None:
    """Writes the tables and the page."""
    from mtljax.comparison.page import write_page  # matplotlib: not before it is needed

    workdir.mkdir(parents=True, exist_ok=True)
    write_text(workdir / "results.csv", table.to_csv(found, table.result_columns(found)))
    write_text(workdir / "costs.csv", table.to_csv(found, table.cost_columns()))
    write_text(workdir / "results.md", table.to_markdown(found))
    write_text(workdir / "results.tex", table.to_latex(found))
    write_page(workdir, found, failures)
