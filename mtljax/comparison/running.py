"""Training the members of a comparison: only those that are not finished, seeds side by side."""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from mtljax.comparison.plan import Candidate, Method
from mtljax.data import Source
from mtljax.runs.checkpoints import saved_steps
from mtljax.runs.folder import check_folder, read_result
from mtljax.runs.joint_checkpoints import joint_step
from mtljax.training.loop import train_together
from mtljax.training.programs import Programs
from mtljax.training.stopping import Stopped
from mtljax.utils.terminal import console, say

Together = Literal["auto", "yes", "no"]


class Member(NamedTuple):
    """One run."""

    method: Method
    candidate: Candidate
    seed: int
    folder: Path

    @property
    def name(self) -> str:
        """For people."""
        settings = f" ({self.candidate.settings})" if self.candidate.settings else ""
        return f"{self.method.name}{settings}, seed {self.seed}"


class Failure(NamedTuple):
    """A member that could not be trained to the end."""

    member: str
    reason: str


def members(methods: Sequence[Method], seeds: Sequence[int], workdir: Path) -> list[Member]:
    """All runs of a comparison."""
    return [
        Member(method, candidate, seed, candidate.folder(workdir, seed))
        for method in methods
        for candidate in method.candidates
        for seed in seeds
    ]


def run_members(
    methods: Sequence[Method],
    seeds: Sequence[int],
    workdir: Path,
    *,
    devices: int | None = None,
    together: Together = "auto",
    quiet: bool = False,
) -> list[Failure]:
    """Trains what is not finished, and says what could not be.

    Raises:
      Stopped: SIGTERM came; the states are saved.
    """
    everything = members(methods, seeds, workdir)
    pending = [member for member in everything if not _finished(member)]
    failures: list[Failure] = []
    with Watch(everything, pending, quiet=quiet) as watch:
        sources: dict[str, Source] = {}
        for candidate in dict.fromkeys(id(member.candidate) for member in pending):
            group = [member for member in pending if id(member.candidate) == candidate]
            try:
                programs = _programs(group[0].candidate, devices, sources)
                side_by_side = {"yes": True, "no": False, "auto": programs.pays_together}[together]
            except Exception as error:
                failures += [watch.failed(member, error) for member in group]
                continue
            for part in rounds(group) if side_by_side else ([member] for member in group):
                failures += _train(part, programs, watch)
    return failures


def _finished(member: Member) -> bool:
    try:
        check_folder(member.folder, member.candidate.member(member.seed))
        return read_result(member.folder) is not None
    except ValueError:
        return False  # said when it is trained


def _programs(candidate: Candidate, devices: int | None, sources: dict[str, Source]) -> Programs:
    """The programs of a candidate, on data that is loaded once for all that read the same."""
    data = candidate.experiment.data
    names = [task.name for task in candidate.experiment.tasks]
    key = repr((data.source, data.labels, data.drop, names))
    programs = Programs(candidate.experiment, devices=devices, source=sources.get(key))
    sources[key] = programs.source
    return programs


def rounds(group: Sequence[Member]) -> Iterator[list[Member]]:
    """Members that can go on together: all of them, or from the first step that one has to go on
    from.
    """
    pending = list(group)
    if joint_step(group[0].folder, [member.seed for member in group]):
        yield pending
        return
    while pending:
        saved = {id(member): saved_steps(member.folder) for member in pending}
        step = min(max(steps, default=0) for steps in saved.values())
        part = [member for member in pending if step == 0 or step in saved[id(member)]]
        yield part
        pending = [member for member in pending if member not in part]


def _train(part: Sequence[Member], programs: Programs, watch: "Watch") -> list[Failure]:
    watch.begin(part)
    try:
        outcomes = train_together(
            [member.candidate.member(member.seed) for member in part],
            [member.folder for member in part],
            programs,
            quiet=True,
            page=False,
            progress=watch.step,
        )
    except Stopped:
        raise
    except Exception as error:
        return [watch.failed(member, error) for member in part]
    failures = []
    for member, outcome in zip(part, outcomes, strict=True):
        if isinstance(outcome, Stopped):
            failures.append(watch.failed(member, outcome))
        else:
            watch.finished(member)
    return failures


class Watch:
    """Progress over all members: a bar on a terminal, a line per member elsewhere."""

    def __init__(self, everything: Sequence[Member], pending: Sequence[Member], *, quiet: bool):
        self._quiet, self._total = quiet, len(everything)
        self._done = len(everything) - len(pending)
        self._work = sum(_steps(member) for member in pending)
        self._behind, self._part = 0, 0
        self._runs = 1
        self._began = time.perf_counter()
        self._live = None
        if console.is_terminal and not quiet and pending:
            self._live = Progress(
                TextColumn("{task.completed:.0f}/{task.total:.0f} steps"),
                BarColumn(bar_width=24),
                TimeElapsedColumn(),
                TextColumn("{task.fields[left]}  {task.fields[now]}", markup=False),
                console=console,
                transient=True,
            )
            self._bar = self._live.add_task("", total=self._work, left="", now="")

    def __enter__(self) -> "Watch":
        if self._done and not self._quiet:
            say(f"{self._done} of {self._total} runs are finished already")
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def begin(self, part: Sequence[Member]) -> None:
        """These are trained now, side by side."""
        self._runs = len(part)
        self._now = part[0].name
        if len(part) > 1:
            seeds = ", ".join(str(member.seed) for member in part)
            self._now = f"{part[0].method.name}, seeds {seeds}"
        self.step(0)

    def step(self, step: int) -> None:
        """So many steps of the present runs are behind."""
        self._part = step * self._runs
        if self._live is not None:
            self._live.update(
                self._bar,
                completed=self._behind + self._part,
                left=self._left(),
                now=self._now,
            )

    def finished(self, member: Member) -> None:
        """A member is finished."""
        self._count(member)
        if not self._quiet:
            say(f"[{self._done}/{self._total}] {member.name}  {self._left()}")

    def failed(self, member: Member, error: BaseException) -> Failure:
        """A member could not be trained."""
        self._count(member)
        failure = Failure(member.name, " ".join(str(error).split()) or type(error).__name__)
        if not self._quiet:
            say(f"[{self._done}/{self._total}] {member.name} FAILED: {failure.reason}")
        return failure

    def _count(self, member: Member) -> None:
        self._done += 1
        self._part = 0
        self._behind += _steps(member)

    def _left(self) -> str:
        """About how long the rest takes, at the pace so far."""
        behind = self._behind + self._part
        if not behind or behind >= self._work:
            return ""
        passed = time.perf_counter() - self._began
        left = passed * (self._work / behind - 1)
        return f"about {left / 60:.0f} min left" if left >= 90 else f"about {left:.0f} s left"


def _steps(member: Member) -> int:
    return member.candidate.experiment.steps
