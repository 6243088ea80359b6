"""Worker of a cluster: trains the members of a task in its own process."""

import contextlib
import os
import signal
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax

from mtljax.comparison.engines.base import Resources
from mtljax.comparison.engines.tasks import members_of_message, validation_of_message
from mtljax.comparison.member_training import train_members
from mtljax.comparison.members import Failure, Member
from mtljax.comparison.plan import FOLDER
from mtljax.comparison.progress import failure
from mtljax.compilation import use_compile_cache
from mtljax.runs.staging import local_folder, staged
from mtljax.training.stopping import Interrupted, Stopped
from mtljax.utils.memory import collect_garbage_less_often
from mtljax.utils.text import first_line
from mtljax.utils.trust import VARIABLE
from mtljax.utils.urls import named


class Report(NamedTuple):
    """Outcome of a task; results are in the run folders."""

    host: str
    """Name of the machine."""
    reasons: tuple[str | None, ...]
    """Per member the reason why it failed; None if it is finished."""
    stopped: bool
    """True if a signal ended it; checkpoints were saved."""


def train_task(message: dict[str, Any], resources: Resources) -> Report:
    """Trains the members of a task that are not finished; never raises.

    Args:
      message: From `MemberTask.message`.
    """
    host, reasons = socket.gethostname(), [None] * len(message["members"])
    try:
        with _ended_by_signals():
            return Report(host, _train(message, resources), stopped=False)
    except (Stopped, Interrupted, KeyboardInterrupt):
        return Report(host, tuple(reasons), stopped=True)
    except Exception as error:
        reason = f"{first_line(error)} (on {host})"
        return Report(host, (reason,) * len(reasons), stopped=False)


def _train(message: dict[str, Any], resources: Resources) -> tuple[str | None, ...]:
    _limit(resources)
    workdir, url = Path(message["workdir"]), message["url"]
    _enter(Path(message["folder"]), workdir if url is None else None)
    use_compile_cache()
    collect_garbage_less_often()
    trusted = [os.environ.get(VARIABLE, ""), *message["code"]]
    os.environ[VARIABLE] = os.pathsep.join(filter(None, trusted))  # the user's own, just executed
    members, outcome = members_of_message(message), _Outcome()
    with contextlib.ExitStack() as stack:
        if url is not None:
            members = [_staged(member, workdir, url, stack) for member in members]
        train_members(
            members,
            sources={},
            progress=outcome,
            validation=validation_of_message(message),
            devices=message["devices"],
            together=message["together"],
        )
    return tuple(outcome.reasons.get(member.folder) for member in members)


def _staged(member: Member, workdir: Path, url: str, stack: contextlib.ExitStack) -> Member:
    """Returns a member in local copies of its folders, those of its parts only to be read.

    Args:
      workdir: Folder of the comparison on the machine that made the task.
      url: URL of that folder.
      stack: Uploads and unlocks the folder.
    """
    below = lambda folder: f"{url}/{folder.relative_to(workdir).as_posix()}"
    parts = tuple(local_folder(below(part)) for part in member.parts)
    return member._replace(folder=stack.enter_context(staged(below(member.folder))), parts=parts)


def _limit(resources: Resources) -> None:
    """Restricts JAX to the resources of the task, before its first use in this process."""
    # Number of threads of XLA on CPU; without it, as many as the machine has processors.
    os.environ["PJRT_NPROC"] = os.environ["NPROC"] = str(resources.cpus)
    if not resources.gpus:
        jax.config.update("jax_platforms", "cpu")


def _enter(folder: Path, workdir: Path | None) -> None:
    """Changes to the folder of the process that made the task, as its paths are relative to it.

    `workdir` is None for a comparison in a bucket, whose data may be in none of the folders.

    Raises:
      ValueError: This machine does not have the folders.
    """
    if workdir is None:
        with contextlib.suppress(OSError):
            os.chdir(folder)
        return
    for path in (folder, folder / workdir / FOLDER):
        if not path.is_dir():
            raise ValueError(
                f"{path} does not exist on this machine: start compare in a folder, and with a "
                "--workdir, of a file system that all nodes share"
            )
    os.chdir(folder)


class _Outcome:
    """Receiver of what happens to the members, without output."""

    def __init__(self) -> None:
        self.reasons: dict[Path, str] = {}

    def start(self, part: Sequence[Member]) -> None:
        pass

    def step(self, step: int) -> None:
        pass

    def finished(self, member: Member) -> None:
        pass

    def failed(self, member: Member, error: BaseException) -> Failure:
        report = failure(member, error)
        self.reasons[member.folder] = named(report.reason)
        return report


@contextlib.contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Context that signals end with `Interrupted`; training replaces the handler, and saves.

    SIGINT is what Ray sends to cancel a task, SIGUSR2 what Slurm sends before the time limit.
    """

    def interrupt(*_: object) -> None:
        raise Interrupted

    handlers = {signal.SIGTERM: interrupt}
    for name in ("SIGINT", "SIGUSR2"):
        if hasattr(signal, name):
            terminate = lambda *_: signal.raise_signal(signal.SIGTERM)
            handlers[getattr(signal, name)] = terminate
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(ValueError):  # Python allows handlers in the main thread only
            for number, handler in handlers.items():
                stack.callback(signal.signal, number, signal.signal(number, handler))
        yield
