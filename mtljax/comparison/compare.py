"""Comparison of methods with single-task baselines: trains missing runs, writes tables and page."""

from collections.abc import Sequence
from pathlib import Path

from mtljax.balancing import Balancer
from mtljax.comparison import table
from mtljax.comparison.conclusions import conclusions
from mtljax.comparison.cross_validation import cross_validation
from mtljax.comparison.engines import make_engine
from mtljax.comparison.members import Failure, Together, consecutive_seeds
from mtljax.comparison.outcome import Comparison
from mtljax.comparison.plan import FOLDER, plan
from mtljax.comparison.results import collect
from mtljax.comparison.running import run_members
from mtljax.comparison.tuning import plan_tuning
from mtljax.comparison.workdir import locked_workdir
from mtljax.config import Experiment
from mtljax.config.experiment import FusionFactory, as_text
from mtljax.models.trunks import Trunk
from mtljax.utils.files import write_text
from mtljax.utils.terminal import console, print_line


def compare(
    experiment: Experiment,
    workdir: Path | str,
    *,
    seeds: int | None = None,
    folds: int = 0,
    balancers: Sequence[str | Balancer] = (),
    fusions: Sequence[str | FusionFactory] = (),
    trunks: Sequence[str | Trunk] = (),
    vary: Sequence[str] = (),
    grid: Sequence[str] = (),
    tune: int = 0,
    space: Sequence[str] = (),
    merges: Sequence[str] = (),
    devices: int | None = None,
    together: Together = "auto",
    engine: str = "local",
    quiet: bool = False,
) -> tuple[Comparison, list[Failure]]:
    """Trains single-task baselines and methods with several seeds, and compares them.

    Finished runs in `workdir` are not repeated: an interrupted comparison resumes, and another
    method or seed trains only the additional runs.

    Args:
      experiment: Base experiment; its seed is the first.
      workdir: Folder for the tables, the page, and a run folder per member.
      balancers, fusions, trunks: Names or objects, as in `Experiment`, in all combinations; empty:
        that of the experiment.
      vary: `field=value,value` per field; all combinations are separate methods.
      grid: `field=value,value` per field; validation chooses for each method and baseline.
      merges: Merging methods, applied to the single-task runs of each seed.
      seeds: Number of consecutive seeds; None: 5, or 1 with folds.
      folds: Number of folds of a cross-validation; 0: the splits of the data.
      tune: Number of trials by which each method and each baseline is tuned on validation; 0: none.
      space: Space of the trials, `FIELD=DISTRIBUTION` per field, see `mtljax.tuning.space`; empty:
        learning rates around the experiment's.
      devices: Number of devices to use; None: all.
      together: Train the seeds of a method in one program; auto: where that is faster.
      engine: Place where the runs are trained: this process, or an entry of
        `mtljax.comparison.engines.ENGINES` with its arguments, such as `ray:gpus=1`.
      quiet: Show no progress.

    Returns:
      The outcome, and the members that could not be trained.

    Raises:
      ValueError: Invalid arguments; nothing was written.
      Stopped: SIGTERM was received; the same call resumes.
    """
    numbers = consecutive_seeds(experiment.seed, (1 if folds else 5) if seeds is None else seeds)
    workdir, place = Path(workdir), make_engine(engine)
    methods = plan(
        experiment,
        balancers=[as_text("balancer", balancer) for balancer in balancers],
        fusions=[as_text("fusion", fusion) for fusion in fusions],
        trunks=[as_text("trunk", trunk) for trunk in trunks],
        vary=vary,
        grid=grid,
        merges=merges,
    )
    tuning = plan_tuning(experiment, tune, space, vary=vary, grid=grid, folds=folds)
    with locked_workdir(workdir, FOLDER, "comparison"):
        failures: list[Failure] = []
        if tuning is not None:
            methods, failures = tuning.run(methods, workdir, place, devices=devices, quiet=quiet)
        validation = cross_validation(experiment, folds, methods) if folds else None
        failures += run_members(
            methods,
            numbers,
            workdir,
            validation=validation,
            devices=devices,
            together=together,
            engine=place,
            quiet=quiet,
        )
        comparison = collect(experiment, methods, numbers, workdir, folds, tuning)
        write(comparison, failures, workdir)
    return comparison, failures


def show(comparison: Comparison) -> None:
    """Prints tables and conclusions."""
    for part in table.to_terminal(comparison):
        console.print(part)
    for sentence in conclusions(comparison):
        print_line(sentence)


def write(comparison: Comparison, failures: Sequence[Failure], workdir: Path) -> None:
    """Writes the tables and the page."""
    from mtljax.comparison.page import write_page  # imports matplotlib

    workdir.mkdir(parents=True, exist_ok=True)
    write_text(workdir / "results.csv", table.to_csv(comparison, table.result_columns(comparison)))
    if comparison.folds:
        write_text(workdir / "results_per_fold.csv", table.folds_to_csv(comparison))
    write_text(workdir / "costs.csv", table.to_csv(comparison, table.COST_COLUMNS))
    write_text(workdir / "results.md", table.to_markdown(comparison))
    write_text(workdir / "results.tex", table.to_latex(comparison))
    write_page(workdir, comparison, failures)
