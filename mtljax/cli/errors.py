"""Lines and exit statuses of errors that are not bugs."""

import os

from mtljax.utils.text import shortened

MAX_MESSAGE = 1000
"""Maximum number of characters of an error message."""


def explain(error: BaseException) -> tuple[str, int] | None:
    """Returns the line for an error and the exit status; None if its traceback is to be shown.

    The line is empty if the reader of the output has gone.
    """
    is_debugged = bool(os.environ.get("MTLJAX_TRACEBACK"))
    match error:
        case ValueError() if not is_debugged:
            return shortened(str(error), MAX_MESSAGE), 2
        case KeyboardInterrupt():
            return "interrupted", 130
        case BrokenPipeError():
            return "", 141
        case OSError() if not is_debugged and error.strerror is not None:
            place = "" if error.filename is None else f"{shortened(str(error.filename), 300)}: "
            return f"{place}{error.strerror}", 1
    return None
