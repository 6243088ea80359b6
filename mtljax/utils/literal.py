"""Python literals, parsed by one thread at a time."""

import ast
import threading
from typing import Any

LOCK = threading.RLock()
"""Held while a syntax tree is built. CPython 3.11 counts the depth of all threads' trees in one
number, and a collection of garbage, in which JAX lets other threads run, can come in between: then
it raises SystemError for valid text."""


def parse_literal(text: str) -> Any:
    """Returns the value of a literal; raises what `ast.literal_eval` raises."""
    with LOCK:
        return ast.literal_eval(text)
