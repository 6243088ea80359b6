"""Pareto fronts of an experiment: trains missing rays, writes tables and page."""

from collections.abc import Sequence
from pathlib import Path

from mtljax.balancing import Balancer
from mtljax.comparison.engines import make_engine
from mtljax.comparison.members import Failure, Together, consecutive_seeds
from mtljax.comparison.plan import FOLDER
from mtljax.comparison.running import run_members
from mtljax.comparison.workdir import locked_workdir
from mtljax.config import Experiment
from mtljax.config.balancers import balancer_from_text
from mtljax.config.experiment import as_text
from mtljax.pareto import table
from mtljax.pareto.conclusions import conclusions
from mtljax.pareto.outcome import FrontOutcome
from mtljax.pareto.plan import plan
from mtljax.pareto.results import collect
from mtljax.utils.files import write_text
from mtljax.utils.terminal import console, print_line


def front(
    experiment: Experiment,
    workdir: Path | str,
    *,
    method: Sequence[str | Balancer] = ("epo",),
    rays: int = 8,
    seeds: int = 3,
    conditions: Sequence[str] = (),
    linear_steps: int | None = None,
    conditioned_steps: int | None = None,
    grid: Sequence[str] = (),
    devices: int | None = None,
    together: Together = "auto",
    engine: str = "local",
    quiet: bool = False,
) -> tuple[FrontOutcome, list[Failure]]:
    """Trains the rays of Pareto fronts, linear scalarization and single-task baselines.

    Finished runs in `workdir` are not repeated: an interrupted call resumes, and another method,
    ray or seed trains only the additional runs.

    Args:
      experiment: Base experiment; its seed is the first.
      workdir: Folder for the tables, the page, and a run folder per network.
      method: Balancers that read a preference, as names or objects.
      rays: Number of preferences.
      seeds: Number of consecutive seeds.
      conditions: Conditionings of a network on the preference, one network for all rays each.
      linear_steps: Number of steps of linear scalarization; None: that of the experiment.
      conditioned_steps: Number of steps of a conditioned network; None: that of the experiment.
      grid: `field=value,value` per field; validation chooses for each ray and baseline.
      devices: Number of devices to use; None: all.
      together: Train all rays of a seed in one program; auto: where that is faster.
      engine: Place where the networks are trained, as in `mtljax.compare`.
      quiet: Show no progress.

    Returns:
      The outcome, and the networks that could not be trained.

    Raises:
      ValueError: Invalid arguments; nothing was written.
      Stopped: SIGTERM was received; the same call resumes.
    """
    numbers = consecutive_seeds(experiment.seed, seeds)
    workdir, place = Path(workdir), make_engine(engine)
    methods = [as_text("balancer", balancer) for balancer in method]
    coupled = [text for text in methods if balancer_from_text(text).couples]
    if coupled and together == "no":
        raise ValueError(
            f"--method {coupled[0]} trains all rays in one program: leave out --together no"
        )
    planned = plan(
        experiment,
        methods,
        rays,
        conditions=conditions,
        grid=grid,
        linear_steps=linear_steps,
        conditioned_steps=conditioned_steps,
    )
    with locked_workdir(workdir, FOLDER, "front"):
        failures = run_members(
            planned.methods,
            numbers,
            workdir,
            devices=devices,
            together=together,
            engine=place,
            quiet=quiet,
        )
        outcome = collect(experiment, planned, numbers, workdir)
        write(outcome, failures, workdir)
    return outcome, failures


def show(outcome: FrontOutcome) -> None:
    """Prints the table and conclusions."""
    console.print(table.to_terminal(outcome))
    for sentence in conclusions(outcome):
        print_line(sentence)


def write(outcome: FrontOutcome, failures: Sequence[Failure], workdir: Path) -> None:
    """Writes the tables and the page."""
    from mtljax.pareto.page import write_page  # imports matplotlib

    workdir.mkdir(parents=True, exist_ok=True)
    write_text(workdir / "hypervolume.csv", table.volumes_to_csv(outcome))
    write_text(workdir / "front.csv", table.points_to_csv(outcome))
    write_page(workdir, outcome, failures)
