"""Command line: `python -m mtljax.main [VERB] --experiment NAME [--flag value ...]`.

Invalid input prints one line and exits with status 2.
"""

import os
import sys
from collections.abc import Sequence

from mtljax.cli.arguments import asks_for_help, value_of
from mtljax.cli.verbs import VERBS, run_verb
from mtljax.utils.memory import collect_garbage_less_often, restart_with_allocator
from mtljax.utils.text import shortened

MAX_MESSAGE = 1000
"""Maximum number of characters of an error message."""
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
            return run_verb(verb, arguments)
        finally:
            sys.stdout.flush()  # raises BrokenPipeError here instead of at interpreter exit
    except ValueError as error:
        if os.environ.get("MTLJAX_TRACEBACK"):
            raise
        print(f"mtljax: {shortened(str(error), MAX_MESSAGE)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("mtljax: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader closed the pipe, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:
        if os.environ.get("MTLJAX_TRACEBACK") or error.strerror is None:
            raise
        place = "" if error.filename is None else f"{shortened(str(error.filename), 300)}: "
        print(f"mtljax: {place}{error.strerror}", file=sys.stderr)
        return 1


def _unknown_verb(verb: str) -> str:
    # Imported here: `--help` does not need them.
    from mtljax.config.files import experiment_names
    from mtljax.utils.registry import nearest

    if verb in experiment_names() or verb.endswith(".py"):
        return f"unknown verb {verb!r}; to train this experiment, write --experiment {verb}"
    return f"unknown verb {verb!r}{nearest(verb, VERBS)}"


if __name__ == "__main__":
    restart_with_allocator("mtljax.main")
    sys.exit(main())
