"""Command line: `python -m mtljax.main [VERB] --experiment NAME [--flag value ...]`.

Invalid input prints one line and exits with status 2.
"""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Sequence
from typing import NoReturn

from mtljax.cli.arguments import asks_for_help, value_of
from mtljax.cli.errors import explain
from mtljax.cli.folders import local_folders
from mtljax.cli.supervisor import is_needed, supervise
from mtljax.cli.verbs import VERBS, run_verb
from mtljax.utils.memory import collect_garbage_less_often, restart_with_allocator
from mtljax.utils.urls import named

USAGE = """\
usage: python -m mtljax.main [VERB] [FLAGS]

verbs:
{verbs}

examples:
  python -m mtljax.main --experiment digits         train the experiment `digits`
  python -m mtljax.main --experiment digits --help  its flags and their defaults
  python -m mtljax.main VERB --help                 flags of another verb

Errors are one line; set MTLJAX_TRACEBACK=1 for the traceback.
"""
"""Text of `--help` without a verb."""


def usage() -> str:
    """Help text with one line per verb."""
    return USAGE.format(verbs="\n".join(f"  {name:10}{VERBS[name].summary}" for name in VERBS))


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one verb and returns the exit status: 0 success, 1 failure, 2 invalid input."""
    collect_garbage_less_often()
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    verb = "train"
    if arguments and not arguments[0].startswith("-"):
        verb = arguments.pop(0)
    elif asks_for_help(arguments) and value_of(arguments, "--experiment") is None:
        print(usage(), end="")
        return 0
    try:
        if verb not in VERBS:
            raise ValueError(_unknown_verb(verb))
        try:
            with local_folders(verb, arguments) as arguments:
                return run_verb(verb, arguments)
        finally:
            sys.stdout.flush()  # raises BrokenPipeError here instead of at interpreter exit
    except (Exception, KeyboardInterrupt) as error:
        explained = explain(error)
        if explained is None:
            raise
        message, status = explained
        if message:
            print(named(f"mtljax: {message}"), file=sys.stderr)
        else:  # the reader closed the pipe, as `head` does
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return status


def _unknown_verb(verb: str) -> str:
    # Imported here: `--help` does not need them.
    from mtljax.config.files import experiment_names
    from mtljax.utils.registry import nearest

    if verb in experiment_names() or verb.endswith(".py"):
        return f"unknown verb {verb!r}; to train this experiment, write --experiment {verb}"
    return f"unknown verb {verb!r}{nearest(verb, VERBS)}"


def leave(status: int) -> NoReturn:
    """Ends the process, after a signal without the destructors of its libraries.

    A signal can interrupt the wait for a compilation (jaxlib 0.10), which continues in a thread of
    XLA and crashes when the destructors delete what it uses. A run of several processes has no such
    interruptions, but has to take leave of the others.
    """
    is_alone = value_of(sys.argv[1:], "--coordinator") is None
    if not (is_alone and status in (128 + signal.SIGINT, 128 + signal.SIGTERM)):
        sys.exit(status)
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join()  # as `sys.exit` does
    with contextlib.suppress(OSError):  # nobody reads them any more
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    restart_with_allocator("mtljax.main")
    leave(supervise(sys.argv[1:]) if is_needed(sys.argv[1:]) else main())
