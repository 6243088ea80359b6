"""Local copies of folders that flags name by a URL, such as `s3://bucket/run`."""

import contextlib
from collections.abc import Iterator, Sequence

from mtljax.cli.arguments import asks_for_help, value_of
from mtljax.utils.urls import url_of

WORKDIR = "--workdir"
"""Flag of the folder that a verb writes."""
READ = ("--run", "--runs")
"""Flags of folders that are read; what a verb adds to them is uploaded at its end."""
EXPERIMENT = "--experiment"
"""Flag of an experiment, which may be the path of a file."""


@contextlib.contextmanager
def local_folders(verb: str, arguments: Sequence[str]) -> Iterator[list[str]]:
    """Context with the arguments in which local copies replace the URLs of folders.

    Raises:
      ValueError: A URL cannot be used, or not for this.
    """
    found = list(arguments)
    if asks_for_help(arguments) or not any("://" in argument for argument in arguments):
        yield found
        return
    with contextlib.ExitStack() as stack:
        for place, flag, value in _values(arguments):
            if flag not in (WORKDIR, *READ, EXPERIMENT) or (url := url_of(value)) is None:
                continue
            from mtljax.runs.staging import local_folder, staged  # imports JAX

            if flag == WORKDIR:
                _check(verb, arguments, url)
                local = stack.enter_context(staged(url))
            elif flag == EXPERIMENT:
                parent, _, name = url.rpartition("/")
                local = local_folder(parent) / name
            else:
                local = stack.enter_context(staged(url, writes=False))
            found[place] = f"{flag}={local}" if "=" in arguments[place] else str(local)
        yield found


def _values(arguments: Sequence[str]) -> Iterator[tuple[int, str, str]]:
    """Yields (index in the arguments, flag, value), several per flag if it takes several."""
    flag = ""
    for place, argument in enumerate(arguments):
        if argument.startswith("--"):
            flag, has_value, value = argument.partition("=")
            if has_value:
                yield place, flag, value
        else:
            yield place, flag, argument


def _check(verb: str, arguments: Sequence[str], url: str) -> None:
    """Raises ValueError if a verb cannot write to a URL, before anything is downloaded."""
    if value_of(arguments, "--coordinator") is not None:
        raise ValueError(
            f"--workdir {url}: several processes write the parts of a checkpoint into one folder; "
            "give one of a file system that all of them mount, such as a bucket mounted by gcsfuse"
        )
    if verb == "search" and value_of(arguments, "--storage") is None:
        raise ValueError(
            f"--workdir {url}: the study is a database, which cannot be in a bucket; add --storage "
            "postgresql://HOST/NAME, or the path of a local journal file"
        )
    if verb == "compare" and value_of(arguments, "--tune") not in (None, "0"):
        raise ValueError(
            f"--workdir {url}: the studies of --tune are databases, which cannot be in a bucket; "
            "use a local --workdir, and upload it afterwards"
        )
    if (value_of(arguments, "--engine") or "").partition(":")[0] == "slurm":
        raise ValueError(
            f"--workdir {url}: --engine slurm needs a folder that all nodes mount, also for the "
            "scripts of its jobs; use one, and upload it afterwards"
        )
