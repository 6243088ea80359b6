"""Training of the unfinished runs of a comparison, seeds side by side where that is faster."""

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
from mtljax.training.loop import train_group
from mtljax.training.programs import Programs
from mtljax.training.setup import set_up
from mtljax.training.stopping import Stopped
from mtljax.utils.terminal import console, print_line

Together = Literal["auto", "yes", "no"]


class Member(NamedTuple):
    """One run of a comparison."""

    method: Method
    candidate: Candidate
    seed: int
    folder: Path

    @property
    def name(self) -> str:
        """Name for messages."""
        settings = f" ({self.candidate.settings})" if self.candidate.settings else ""
        return f"{self.method.name}{settings}, seed {self.seed}"


class Failure(NamedTuple):
    """Run that did not finish."""

    member: str
    reason: str


def members(methods: Sequence[Method], seeds: Sequence[int], workdir: Path) -> list[Member]:
    """Returns all runs of a comparison."""
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
    """Trains the unfinished runs and returns those that failed.

    Raises:
      Stopped: SIGTERM was received; the states are saved.
    """
    all_members = members(methods, seeds, workdir)
    pending = [member for member in all_members if not _is_finished(member)]
    failures: list[Failure] = []
    with ComparisonProgress(all_members, pending, quiet=quiet) as progress:
        sources: dict[str, Source] = {}
        for candidate in dict.fromkeys(id(member.candidate) for member in pending):
            group = [member for member in pending if id(member.candidate) == candidate]
            try:
                programs = _programs(group[0].candidate, devices, sources)
                side_by_side = {"yes": True, "no": False, "auto": programs.pays_together}[together]
            except Exception as error:
                failures += [progress.failed(member, error) for member in group]
                continue
            for part in rounds(group) if side_by_side else ([member] for member in group):
                failures += _train(part, programs, progress)
    return failures


def _is_finished(member: Member) -> bool:
    try:
        check_folder(member.folder, member.candidate.member(member.seed))
        return read_result(member.folder) is not None
    except ValueError:
        return False  # reported when it is trained


def _programs(candidate: Candidate, devices: int | None, sources: dict[str, Source]) -> Programs:
    """Makes the programs of a candidate; candidates with the same data share its source."""
    data = candidate.experiment.data
    names = [task.name for task in candidate.experiment.tasks]
    key = repr((data.source, data.labels, data.drop, names))
    setup = set_up(candidate.experiment, devices=devices, source=sources.get(key))
    sources[key] = setup.source
    return Programs(setup)


def rounds(group: Sequence[Member]) -> Iterator[list[Member]]:
    """Yields the members that can train side by side.

    All of them if they have stacked checkpoints; else those that can start at the same step.
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


def _train(
    part: Sequence[Member], programs: Programs, progress: "ComparisonProgress"
) -> list[Failure]:
    progress.start(part)
    try:
        outcomes = train_group(
            [member.candidate.member(member.seed) for member in part],
            [member.folder for member in part],
            programs,
            quiet=True,
            report=False,
            progress=progress.step,
        )
    except Stopped:
        raise
    except Exception as error:
        return [progress.failed(member, error) for member in part]
    failures = []
    for member, outcome in zip(part, outcomes, strict=True):
        if isinstance(outcome, Stopped):
            failures.append(progress.failed(member, outcome))
        else:
            progress.finished(member)
    return failures


class ComparisonProgress:
    """Progress over all runs: a bar on a terminal, elsewhere one line per run."""

    def __init__(self, members: Sequence[Member], pending: Sequence[Member], *, quiet: bool):
        self._quiet, self._total = quiet, len(members)
        self._done = len(members) - len(pending)
        self._total_steps = sum(_steps(member) for member in pending)
        self._steps_done, self._steps_now = 0, 0
        self._runs = 1
        self._start_time = time.perf_counter()
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
            self._bar = self._live.add_task("", total=self._total_steps, left="", now="")

    def __enter__(self) -> "ComparisonProgress":
        if self._done and not self._quiet:
            print_line(f"{self._done} of {self._total} runs are finished already")
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def start(self, part: Sequence[Member]) -> None:
        """Announces the runs that train now, side by side."""
        self._runs = len(part)
        self._now = part[0].name
        if len(part) > 1:
            seeds = ", ".join(str(member.seed) for member in part)
            self._now = f"{part[0].method.name}, seeds {seeds}"
        self.step(0)

    def step(self, step: int) -> None:
        """Updates the number of steps that the present runs have taken."""
        self._steps_now = step * self._runs
        if self._live is not None:
            self._live.update(
                self._bar,
                completed=self._steps_done + self._steps_now,
                left=self._left(),
                now=self._now,
            )

    def finished(self, member: Member) -> None:
        """Reports a finished run."""
        self._count(member)
        if not self._quiet:
            print_line(f"[{self._done}/{self._total}] {member.name}  {self._left()}")

    def failed(self, member: Member, error: BaseException) -> Failure:
        """Reports a run that failed."""
        self._count(member)
        failure = Failure(member.name, " ".join(str(error).split()) or type(error).__name__)
        if not self._quiet:
            print_line(f"[{self._done}/{self._total}] {member.name} FAILED: {failure.reason}")
        return failure

    def _count(self, member: Member) -> None:
        self._done += 1
        self._steps_now = 0
        self._steps_done += _steps(member)

    def _left(self) -> str:
        """Returns the estimated remaining time as text."""
        steps = self._steps_done + self._steps_now
        if not steps or steps >= self._total_steps:
            return ""
        left = (time.perf_counter() - self._start_time) * (self._total_steps / steps - 1)
        return f"about {left / 60:.0f} min left" if left >= 90 else f"about {left:.0f} s left"


def _steps(member: Member) -> int:
    return member.candidate.experiment.steps
