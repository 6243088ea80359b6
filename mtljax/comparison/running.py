"""Training of the unfinished runs of a comparison, on an engine."""

import contextlib
from collections.abc import Sequence
from pathlib import Path

from mtljax.comparison.cross_validation import CrossValidation
from mtljax.comparison.engines.base import Engine, Local, Work
from mtljax.comparison.members import Failure, Together, groups_of, is_finished, members_of
from mtljax.comparison.plan import Method
from mtljax.comparison.progress import ComparisonProgress


def run_members(
    methods: Sequence[Method],
    seeds: Sequence[int],
    workdir: Path,
    *,
    validation: CrossValidation | None = None,
    devices: int | None = None,
    together: Together = "auto",
    quiet: bool = False,
    engine: Engine = Local(),
) -> list[Failure]:
    """Trains the unfinished runs, fold by fold in a cross-validation; returns those that failed.

    Raises:
      ValueError: The engine is not installed, cannot be reached or has too few resources; nothing
        was written.
      Stopped: SIGTERM was received; the states are saved.
    """
    members = members_of(methods, seeds, workdir, validation.folds if validation else [None])
    pending = [member for member in members if not is_finished(member)]
    progress = ComparisonProgress(len(members), pending, quiet=quiet)
    work = Work(groups_of(pending), workdir, validation, devices, together, progress, quiet)
    with contextlib.ExitStack() as stack:
        run = stack.enter_context(engine.open(work)) if pending else list  # before it writes
        if validation is not None:
            validation.write(workdir)
        stack.enter_context(progress.bar or contextlib.nullcontext())
        return run()
