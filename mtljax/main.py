"""The command line: `python -m mtljax.main [VERB] --experiment NAME [--flag value ...]`.

Bad input ends in one line and exit status 2.
"""

import inspect
import os
import sys
from collections.abc import Sequence

from mtljax.cli.flags import asks_for_help, value_of
from mtljax.cli.verbs import VERBS
from mtljax.utils.registry import nearest

USAGE = """\
python -m mtljax.main [VERB] [FLAGS]

{verbs}

python -m mtljax.main --experiment digits          train the experiment `digits`
python -m mtljax.main --experiment digits --help   its flags, with their values in it
python -m mtljax.main VERB --help                  the flags of another verb

What is wrong with the input is said in one line; MTLJAX_TRACEBACK=1 shows where it was found.
"""


def usage() -> str:
    """What can be done, a line per verb."""
    told = {name: (inspect.getdoc(verb) or "").splitlines()[0] for name, verb in VERBS.items()}
    return USAGE.format(verbs="\n".join(f"  {name:10} {line}" for name, line in told.items()))


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one verb and returns the exit status: 0 done, 1 failed, 2 bad input."""
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
            return VERBS[verb](arguments)
        finally:
            sys.stdout.flush()  # so that a closed pipe is noticed here, not at the very end
    except ValueError as error:
        if os.environ.get("MTLJAX_TRACEBACK"):
            raise
        print(f"mtljax: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("mtljax: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # whoever read has read enough, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141


def _unknown_verb(verb: str) -> str:
    from mtljax.config import experiment_names

    if verb in experiment_names() or verb.endswith(".py"):
        return f"unknown verb {verb!r}; to train it write --experiment {verb}"
    return f"unknown verb {verb!r}{nearest(verb, VERBS)}"


if __name__ == "__main__":
    sys.exit(main())
