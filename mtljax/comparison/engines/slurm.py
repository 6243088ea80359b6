"""Slurm: runs as jobs that submitit submits."""

import contextlib
import dataclasses
import functools
import math
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from mtljax.comparison.engines.base import Resources, TrainAll, Work, check_counts
from mtljax.comparison.engines.dispatch import Lost, dispatch
from mtljax.comparison.engines.tasks import require_portable
from mtljax.comparison.engines.worker import Report, train_task
from mtljax.utils.optional import require
from mtljax.utils.text import count, first_line

JOBS = "jobs"
"""Folder in that of the comparison for scripts, arguments and logs of the jobs."""
MIN_MINUTES = 3
"""Shortest time limit of a job: the signal to save comes 90 seconds before it."""
CHECK_SECONDS = 20.0
"""Time between two looks at the queue for jobs that were lost."""
QUEUE = ("squeue", "--me", "--noheader", "--format=%i")
"""Command that lists the user's jobs that are queued or run."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Slurm:
    """Slurm: each run is a job with CPUs and GPUs, submitted again if it is preempted or killed.

    Needs `pip install 'mtljax[cluster]'`, and a --workdir and a Python that all nodes share. The
    command waits for the jobs; start it in tmux, or as a small job.
    """

    partition: str | None = None
    """Partition; none: the default one."""
    cpus: int = 1
    """CPUs of each run, and number of its threads."""
    gpus: int = 0
    """GPUs of each run; 0: it is trained on CPU."""
    memory: float | None = None
    """Memory of each run in GB; none: the default of the partition."""
    minutes: int = 60
    """Time limit of each job. A run that needs longer saves before the end and continues in another
    job."""
    account: str | None = None
    """Account; none: the default one."""
    qos: str | None = None
    """Quality of service; none: the default one."""
    constraint: str | None = None
    """Features of the nodes."""
    retries: int = 3
    """Number of times that a run whose job was lost starts again without a new checkpoint in
    between."""
    parallel: int | None = None
    """Maximum number of jobs in the queue; none: all, with executor=local one per `cpus`
    processors."""
    executor: Literal["slurm", "local"] = "slurm"
    """slurm, or local: processes of this machine in place of jobs, to try a command."""

    def __post_init__(self) -> None:
        check_counts(
            cpus=(self.cpus, 1),
            gpus=(self.gpus, 0),
            minutes=(self.minutes, MIN_MINUTES),
            retries=(self.retries, 0),
            parallel=(self.parallel, 1),
        )

    @property
    def resources(self) -> Resources:
        """Resources of each run."""
        return Resources(self.cpus, self.gpus)

    @contextlib.contextmanager
    def open(self, work: Work) -> Iterator[TrainAll]:
        """Checks that jobs can be submitted here."""
        require_portable(work, "slurm")
        submitit = require("submitit", "cluster", "--engine slurm")
        missing = [name for name in ("sbatch", "srun", "squeue") if shutil.which(name) is None]
        if self.executor == "slurm" and missing:
            raise ValueError(
                f"--engine slurm: there is no {missing[0]} here; start the command on a login node "
                "of the cluster, or use --engine ray or local"
            )
        available = os.cpu_count() or 1
        if self.executor == "slurm":
            self._require_accepted()
        elif self.cpus > available:
            raise ValueError(
                f"--engine slurm: a run needs {count(self.cpus, 'CPU')}, but this machine has "
                f"{available}; lower cpus"
            )
        where = "this machine" if self.executor == "local" else "Slurm"
        each = f"{self.resources.text} each"
        work.progress.note(f"engine slurm: jobs on {where}, {each}, logs in {work.workdir / JOBS}")
        slots = max(1, available // self.cpus) if self.executor == "local" else None
        executor = functools.partial(self._executor, submitit, work.workdir)
        yield lambda: dispatch(
            _SlurmCluster(submitit, executor(), self, self.parallel or slots), work
        )

    @property
    def _selection(self) -> dict[str, str | None]:
        """Options of sbatch that select nodes and the user's rights."""
        names = ("partition", "account", "qos", "constraint")
        return {name: getattr(self, name) for name in names}

    def _require_accepted(self) -> None:
        """Raises ValueError, with the reason of Slurm, for a job that it can never start."""
        flags = {
            **self._selection,
            "cpus-per-task": self.cpus,
            "gpus-per-node": self.gpus or None,
            "mem": None if self.memory is None else f"{math.ceil(1024 * self.memory)}M",
            "time": self.minutes,
        }
        given = [f"--{name}={value}" for name, value in flags.items() if value is not None]
        tried = subprocess.run(
            ["sbatch", "--test-only", "--wrap=true", *given],
            capture_output=True,
            text=True,
            check=False,
        )
        if tried.returncode:
            reason = (tried.stderr.strip().splitlines() or ["unknown reason"])[-1]
            raise ValueError(
                f"--engine slurm: Slurm refuses a job with {' '.join(given)}: {reason}; see sinfo"
            )

    def _executor(self, submitit: Any, workdir: Path) -> Any:
        executor = submitit.AutoExecutor(folder=workdir / JOBS, cluster=self.executor)
        options: dict[str, Any] = {
            **{f"slurm_{name}": value for name, value in self._selection.items()},
            "name": "mtljax",
            "timeout_min": self.minutes,
            "cpus_per_task": self.cpus,
            "gpus_per_node": self.gpus or None,
            "mem_gb": self.memory,
            # Since Slurm 22.05, srun does not know the number of sbatch.
            "slurm_srun_args": [f"--cpus-per-task={self.cpus}"],
            # `dispatch` submits again, and counts.
            "slurm_additional_parameters": {"no-requeue": True},
        }
        executor.update_parameters(**{n: x for n, x in options.items() if x is not None})
        return executor


class _SlurmCluster:
    """Queue of Slurm, or processes of this machine, by an executor of submitit."""

    def __init__(self, submitit: Any, executor: Any, engine: Slurm, slots: int | None):
        self.slots, self.retries = slots, engine.retries
        self._submitit, self._executor, self._engine = submitit, executor, engine
        self._next_check = time.monotonic() + CHECK_SECONDS
        self._absent: set[str] = set()

    def submit(self, message: dict[str, Any]) -> Any:
        try:
            return self._executor.submit(train_task, message, self._engine.resources)
        except (RuntimeError, OSError) as error:  # of sbatch
            raise ValueError(
                f"--engine slurm: no job was submitted: {first_line(error)}"
            ) from error

    def wait(self, jobs: list[Any], seconds: float) -> list[Any]:
        end = time.monotonic() + seconds
        while True:
            # Listed, not looked up: a network file system may remember that a file was missing.
            names = {path.name for path in Path(self._executor.folder).iterdir()}
            ended = [job for job in jobs if job.paths.result_pickle.name in names]
            ended = ended or self._gone(jobs)
            if ended or time.monotonic() >= end:
                return ended
            time.sleep(0.1)

    def _gone(self, jobs: list[Any]) -> list[Any]:
        """Jobs that have ended without a result."""
        if self._engine.executor == "local":
            return [job for job in jobs if job.done()]
        if time.monotonic() < self._next_check:
            return []
        self._next_check = time.monotonic() + CHECK_SECONDS
        # Not sacct, as submitit does: a cluster may have no accounting.
        queue = subprocess.run(QUEUE, capture_output=True, text=True, check=False)
        if queue.returncode:
            return []  # the controller is busy or restarts
        queued = queue.stdout.split()
        absent = {job.job_id for job in jobs if job.job_id not in queued}
        gone = absent & self._absent  # twice: its result may have been on the way
        self._absent = absent
        return [job for job in jobs if job.job_id in gone]

    def report(self, job: Any) -> Report:
        if not job.paths.result_pickle.exists():
            raise Lost(f"job {job.job_id} ended without a report")
        outcome, value = self._submitit.core.utils.pickle_load(job.paths.result_pickle)
        if outcome == "error":  # the traceback
            reason = value.strip().splitlines()[-1]
            raise RuntimeError(f"the job cannot run it: {reason}; see {job.paths.stderr}")
        return value

    def cancel(self, job: Any) -> None:
        if self._engine.executor == "local":  # `cancel` would kill it after one second
            os.kill(int(job.job_id), signal.SIGTERM)
        else:
            job.cancel(check=False)
