"""Dispatch of the tasks of a comparison to a cluster: order, retries, and the end by a signal."""

import contextlib
import signal
import time
from typing import Any, Protocol

from mtljax.comparison.engines.base import Work
from mtljax.comparison.engines.tasks import MemberTask, tasks_of
from mtljax.comparison.engines.worker import Report
from mtljax.comparison.members import Failure, Member
from mtljax.comparison.plan import FOLDER
from mtljax.runs.folder import RESULT
from mtljax.runs.staging import refresh
from mtljax.training.stopping import Stopped, stop_signal
from mtljax.tuning.study import DATABASE
from mtljax.utils.text import count

INTERVAL = 0.5
"""Seconds between two looks at the signals."""
GRACE = 60.0
"""Seconds for canceled tasks to save."""
VISIBLE_SECONDS = 60.0
"""Seconds after which a result that a worker has written must be visible here."""


class Lost(Exception):
    """The process of a task has ended before its report: killed, or its machine has failed."""


class Cluster(Protocol):
    """Connection to a cluster; a job is a task that was submitted."""

    slots: int | None
    """Maximum number of jobs at a time; None: the cluster queues them."""
    retries: int
    """Number of times that a task may be started again without a new checkpoint."""

    def submit(self, message: dict[str, Any]) -> Any:
        """Submits `train_task` of the message and returns the job, which is hashable.

        Raises:
          ValueError: The cluster refuses it.
        """

    def wait(self, jobs: list[Any], seconds: float) -> list[Any]:
        """Returns the jobs that have ended, after at most about `seconds` if there are none."""

    def report(self, job: Any) -> Report:
        """Returns the report of a job that has ended.

        Raises:
          Lost: There is none.
          RuntimeError: The worker cannot run the task at all.
        """

    def cancel(self, job: Any) -> None:
        """Sends the job a signal to stop."""


def dispatch(cluster: Cluster, work: Work) -> list[Failure]:
    """Runs all tasks and returns the failures; a task that is lost starts again from its folder.

    Raises:
      ValueError: The cluster refuses the first task.
      Stopped: SIGTERM was received; the jobs were canceled, which saves their states.
      KeyboardInterrupt: Likewise after Ctrl-C.
    """
    (work.workdir / FOLDER).mkdir(parents=True, exist_ok=True)  # marks a comparison folder
    running = _Dispatcher(cluster, work)
    try:
        with stop_signal() as stop:
            while running.goes_on():
                if stop.was_received:
                    message = f"stopped; --workdir {work.workdir} resumes"
                    raise Stopped(message, status=128 + signal.SIGTERM)
    except BaseException:
        with contextlib.suppress(KeyboardInterrupt):  # a second Ctrl-C ends the wait
            running.cancel()
        raise
    return running.failures


class _Dispatcher:
    def __init__(self, cluster: Cluster, work: Work):
        self.failures: list[Failure] = []
        self._cluster, self._work = cluster, work
        self._waiting = tasks_of(work)
        self._jobs: dict[Any, MemberTask] = {}
        self._unsettled = {folder for task in self._waiting for folder in task.folders}
        self._saved: dict[MemberTask, int] = {}
        self._retries: dict[MemberTask, int] = {}

    def goes_on(self) -> bool:
        """Submits what can start, handles what has ended, and returns False at the end."""
        slots = self._cluster.slots
        for task in list(self._waiting):
            if slots is not None and len(self._jobs) >= slots:
                break
            if not task.needs & self._unsettled:
                self._jobs[self._cluster.submit(task.message(self._work))] = task
                self._waiting.remove(task)
        self._work.progress.tasks(len(self._jobs), len(self._waiting))
        for job in self._cluster.wait(list(self._jobs), INTERVAL):
            self._ended(self._jobs.pop(job), job)
        return bool(self._jobs or self._waiting)

    def _ended(self, task: MemberTask, job: Any) -> None:
        try:
            report = self._cluster.report(job)
        except Lost as lost:
            self._start_again(task, str(lost))
            return
        except RuntimeError as error:
            self._settle(task, [str(error)] * len(task.members))
            return
        if report.stopped:
            self._start_again(task, f"stopped by a signal on {report.host}")
            return
        unseen = f"finished on {report.host}, but its result is not in the folder here: --workdir "
        unseen += "must be on a file system that all nodes share"
        reasons = [
            reason if reason or _has_result(member) else unseen
            for member, reason in zip(task.members, report.reasons, strict=True)
        ]
        self._settle(task, reasons)

    def _settle(self, task: MemberTask, reasons: list[str | None]) -> None:
        self._unsettled -= task.folders
        for member, reason in zip(task.members, reasons, strict=True):
            if reason is None:
                self._work.progress.finished(member)
            else:
                self.failures.append(self._work.progress.failed(member, RuntimeError(reason)))

    def _start_again(self, task: MemberTask, why: str) -> None:
        """Queues a task again, unless it has failed too often without a new checkpoint."""
        for folder in task.folders:
            with contextlib.suppress(OSError):  # of the network
                refresh(folder)
        saved = task.saved
        if saved > self._saved.get(task, 0):
            self._retries[task] = 0
        self._saved[task] = saved
        tries = self._retries[task] = self._retries.get(task, 0) + 1
        name, limit = task.members[0].name, self._cluster.retries
        if tries > limit:
            reason = f"{why}; given up after {count(tries, 'start')} without a new checkpoint"
            self._settle(task, [reason] * len(task.members))
            return
        where = "from its last checkpoint" if saved else "from the beginning"
        self._work.progress.note(f"{name}: {why}; starts {where} (retry {tries} of {limit})")
        self._waiting.insert(0, task)

    def cancel(self) -> None:
        """Cancels all jobs and waits until they have saved."""
        if self._jobs:
            self._work.progress.note(f"stopping: {count(len(self._jobs), 'task')} to save")
        for job in self._jobs:
            with contextlib.suppress(Exception):  # it may have ended
                self._cluster.cancel(job)
        end = time.monotonic() + GRACE
        while self._jobs and time.monotonic() < end:
            for job in self._cluster.wait(list(self._jobs), INTERVAL):
                del self._jobs[job]


def _has_result(member: Member) -> bool:
    """Returns True once the result of a run is visible here, which network file systems delay."""
    end, result = time.monotonic() + VISIBLE_SECONDS, DATABASE if member.trials else RESULT
    while True:
        with contextlib.suppress(OSError):
            refresh(member.folder)
            list(member.folder.iterdir())  # asks the server again
        if (member.folder / result).exists():
            return True
        if time.monotonic() >= end:
            return False
        time.sleep(0.5)
