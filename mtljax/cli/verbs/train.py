"""Verb `train`."""

import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from mtljax.cli.verbs.experiment import ExperimentFlags, read_experiment
from mtljax.utils.text import count
from mtljax.utils.urls import named

if TYPE_CHECKING:
    from mtljax.config import Experiment
    from mtljax.data import Source


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainFlags(ExperimentFlags):
    """Run folder, devices and checks."""

    workdir: Path | None = None
    """Run folder, or its URL in a bucket (s3://bucket/run); if omitted, runs/NAME-<date>. An
    unfinished run in it is resumed."""
    devices: int | None = None
    """Number of devices; if omitted, all."""
    tensorboard: bool = False
    """Also write TensorBoard event files."""
    mlflow: str | None = None
    """Also log to MLflow: sqlite:///mlflow.db, or http://HOST:5000 of a server; if omitted, no."""
    quiet: bool = False
    """Print errors only."""
    screen: Literal["off", "strict"] = "off"
    """strict: refuse to train on data with errors, as reported by the verb `screen`."""
    verify: Path | None = None
    """Public key (PEM): resume the run, or load --init, only if the owner of this key signed it."""
    coordinator: str | None = None
    """HOST:PORT of process 0 for training in several processes; auto: ask the cluster."""
    num_processes: int | None = None
    """Number of processes that train together."""
    process_id: int | None = None
    """Index of this process, from 0."""
    timeout_minutes: float = 10.0
    """Minutes after which processes end if another one does not answer or does not progress."""


def train_verb(arguments: list[str]) -> int:
    """Runs `train` and returns the exit status."""
    flags, experiment = read_experiment(arguments, "train", "Trains", TrainFlags)
    if flags.coordinator is not None and flags.workdir is None:
        raise ValueError("training in several processes needs --workdir, a folder shared by all")
    if not flags.quiet and not flags.process_id:
        print(f"experiment {experiment.name}, {count(experiment.steps, 'step')}", flush=True)

    from mtljax.cli.distributed import run_joined

    return run_joined(
        lambda: _train(flags, experiment),
        flags.coordinator,
        flags.num_processes,
        flags.process_id,
        timeout_minutes=flags.timeout_minutes,
    )


def _train(flags: TrainFlags, experiment: "Experiment") -> int:
    import jax

    from mtljax import compilation
    from mtljax.runs.checkpoints import saved_steps
    from mtljax.runs.folder import default_workdir
    from mtljax.runs.signing import verify
    from mtljax.training.loop import train
    from mtljax.training.stopping import Stopped
    from mtljax.transfer import locate

    compilation.use_compile_cache()
    workdir = flags.workdir or default_workdir(experiment)
    if flags.verify is not None and saved_steps(workdir):
        verify(workdir, flags.verify)
    elif flags.verify is not None and experiment.init is not None:
        verify(locate(experiment.init), flags.verify)
    resumes = named(f"--workdir {workdir} resumes from the last checkpoint")
    try:
        train(
            experiment,
            workdir,
            load=_load_screened if flags.screen == "strict" else None,
            devices=flags.devices,
            tensorboard=flags.tensorboard,
            mlflow=flags.mlflow,
            quiet=flags.quiet,
        )
    except Stopped as stopped:
        print(named(f"mtljax: {stopped}"), file=sys.stderr)
        return stopped.status
    except KeyboardInterrupt:
        print(f"mtljax: interrupted; {resumes}", file=sys.stderr)
        return 130
    except OSError as error:  # a full disk, for example
        if error.strerror is None or not saved_steps(workdir):
            raise
        raise OSError(error.errno, f"{error.strerror}; {resumes}", error.filename) from error
    if not flags.quiet and jax.process_index() == 0:
        print(named(f"report: {workdir / 'report.html'}"))
    return 0


def _load_screened(experiment: "Experiment") -> "Source":
    """Calls `load_screened`, whose imports take a tenth of a second."""
    from mtljax.screening.screen import load_screened

    return load_screened(experiment)
