"""`train`."""

import dataclasses
import sys
from pathlib import Path
from typing import Literal

from mtljax.cli.verbs.experiment import read_experiment


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
    screen: Literal["off", "strict"] = "off"
    """strict: do not train on data with errors, as the verb `screen` finds them."""
    verify: Path | None = None
    """Public key (PEM): go on, or start (--init), only from what its owner signed."""
    coordinator: str | None = None
    """HOST:PORT of process 0, if several processes train together; auto: ask the cluster."""
    num_processes: int | None = None
    """How many processes train together."""
    process_id: int | None = None
    """Which of them this is, from 0."""


def train_verb(arguments: list[str]) -> int:
    """Trains an experiment, or goes on with it; without a verb this is what happens."""
    run, experiment = read_experiment(arguments, "train", "Trains", Run)
    if run.coordinator is not None and run.workdir is None:
        raise ValueError("several processes need one --workdir that all of them can see")

    import jax

    from mtljax import compilation, parallel
    from mtljax.build import open_source
    from mtljax.runs.checkpoints import saved_steps
    from mtljax.runs.folder import default_workdir
    from mtljax.runs.signing import verify
    from mtljax.screening.screen import refuse_errors
    from mtljax.training.loop import train
    from mtljax.training.stopping import Stopped
    from mtljax.transfer import locate

    parallel.start(run.coordinator, run.num_processes, run.process_id)
    compilation.use_compile_cache()
    workdir = run.workdir or default_workdir(experiment)
    if run.screen == "strict":
        refuse_errors(open_source(experiment), experiment)
    if run.verify is not None and saved_steps(workdir):
        verify(workdir, run.verify)
    elif run.verify is not None and experiment.init is not None:
        verify(locate(experiment.init), run.verify)
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
