"""Slurm: runs as jobs that submitit submits."""

import contextlib
import dataclasses
import functools
import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from mtljax.comparison.engines.base import Run, Work
from mtljax.comparison.engines.dispatch import Lost, dispatch
from mtljax.comparison.engines.ray_cluster import check_counts
from mtljax.comparison.engines.tasks import require_portable
from mtljax.comparison.engines.worker import Report, Resources, train_task
from mtljax.utils.optional import require
from mtljax.utils.text import count, first_line

JOBS = "jobs"
"""Folder in that of the comparison for scripts, arguments and logs of the jobs."""
CHECK_SECONDS = 30.0
"""Time between two questions to Slurm for jobs that were lost."""


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
            minutes=(self.minutes, 1),
            retries=(self.retries, 0),
            parallel=(self.parallel, 1),
        )

    @contextlib.contextmanager
    def open(self, work: Work) -> Iterator[Run]:
        """Checks that jobs can be submitted here."""
        require_portable(work, "slurm")
        submitit = require("submitit", "cluster", "--engine slurm")
        missing = [name for name in ("sbatch", "srun", "sacct") if shutil.which(name) is None]
        if self.executor == "slurm" and missing:
            raise ValueError(
                f"--engine slurm: there is no {missing[0]} here; start the command on a login node "
                "of the cluster, or use --engine ray or local"
            )
        available = os.cpu_count() or 1
        if self.executor == "local" and self.cpus > available:
            raise ValueError(
                f"--engine slurm: a run needs {count(self.cpus, 'CPU')}, but this machine has "
                f"{available}; lower cpus"
            )
        where = "this machine" if self.executor == "local" else "Slurm"
        each = f"{count(self.cpus, 'CPU')} and {count(self.gpus, 'GPU')} each"
        work.progress.note(f"engine slurm: jobs on {where}, {each}, logs in {work.workdir / JOBS}")
        slots = max(1, available // self.cpus) if self.executor == "local" else None
        executor = functools.partial(self._executor, submitit, work.workdir)
        yield lambda: dispatch(
            _SlurmCluster(submitit, executor(), self, self.parallel or slots), work
        )

    def _executor(self, submitit: Any, workdir: Path) -> Any:
        executor = submitit.AutoExecutor(folder=workdir / JOBS, cluster=self.executor)
        options: dict[str, Any] = {
            "name": "mtljax",
            "timeout_min": self.minutes,
            "cpus_per_task": self.cpus,
            "gpus_per_node": self.gpus or None,
            "mem_gb": self.memory,
            "slurm_partition": self.partition,
            "slurm_account": self.account,
            "slurm_qos": self.qos,
            "slurm_constraint": self.constraint,
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
        self._checked = time.monotonic()

    def submit(self, message: dict[str, Any]) -> Any:
        resources = Resources(self._engine.cpus, self._engine.gpus)
        try:
            return self._executor.submit(train_task, message, resources)
        except (RuntimeError, OSError) as error:  # of sbatch
            lines = [line for line in str(error).splitlines() if "sbatch: error" in line]
            raise ValueError(
                f"--engine slurm: {lines[0] if lines else first_line(error)}; check cpus, gpus, "
                "memory, minutes, partition, account and qos"
            ) from error

    def wait(self, jobs: list[Any], seconds: float) -> list[Any]:
        is_due = time.monotonic() - self._checked > CHECK_SECONDS
        if is_due:
            self._checked = time.monotonic()
        end = time.monotonic() + seconds
        while not (ended := [job for job in jobs if job.done(force_check=is_due)]):
            if time.monotonic() >= end:
                break
            is_due = False
            time.sleep(0.1)
        return ended

    def report(self, job: Any) -> Report:
        if self._engine.executor == "local" and not job.paths.result_pickle.exists():
            raise Lost("its process was killed")
        try:
            return job.result()
        except self._submitit.core.utils.FailedJobError as error:
            lines = [line for line in str(error).splitlines() if line and line[0] not in "- "]
            reason = next((line for line in lines if "Error" in line.split(":")[0]), lines[0])
            raise RuntimeError(f"the job cannot run it: {reason}; see {job.paths.stderr}") from None
        except self._submitit.core.utils.UncompletedJobError:
            raise Lost(f"job {job.job_id} ended without a result ({job.state})") from None

    def cancel(self, job: Any) -> None:
        if self._engine.executor == "local":  # `cancel` would kill it after one second
            os.kill(int(job.job_id), signal.SIGTERM)
        else:
            job.cancel(check=False)
