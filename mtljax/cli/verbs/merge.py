"""Verb `merge`."""

import dataclasses
from pathlib import Path

from mtljax.cli.flags import parse
from mtljax.utils.urls import named


@dataclasses.dataclass(frozen=True, kw_only=True)
class MergeFlags:
    """Merges single-task runs that started from the same weights (--seed, --init) into one
    multi-task run, without training. The result is a run folder, for predict, evaluate, export."""

    runs: tuple[Path, ...] = ()
    """Run folders of different tasks, at least two, with the same trunk and data."""
    method: str = "task_arithmetic"
    """Merging method with its arguments, such as ties:density=0.2; see `list merges`. Scales that
    are not given are chosen on validation."""
    workdir: Path | None = None
    """Run folder to write, or its URL in a bucket; if omitted, runs/merge-METHOD-<date>."""
    verify: Path | None = None
    """Public key (PEM): load the runs only if the owner of this key signed them."""
    devices: int | None = None
    """Number of devices; if omitted, all."""
    quiet: bool = False
    """Print errors only."""


def merge_verb(arguments: list[str]) -> int:
    """Runs `merge` and returns the exit status."""
    flags = parse(MergeFlags, arguments, "merge")
    if not flags.runs:
        raise ValueError("missing --runs DIR DIR ... (run folders of different tasks)")
    from mtljax import compilation
    from mtljax.runs.folder import default_folder
    from mtljax.training.merged_run import merge

    compilation.use_compile_cache()
    workdir = flags.workdir or default_folder(f"merge-{flags.method.partition(':')[0]}")
    merge(
        flags.runs,
        workdir,
        method=flags.method,
        devices=flags.devices,
        verify=flags.verify,
        quiet=flags.quiet,
    )
    if not flags.quiet:
        print(named(f"report: {workdir / 'report.html'}"))
    return 0
