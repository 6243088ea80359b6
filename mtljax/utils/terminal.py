"""Terminal output."""

import sys

from rich.console import Console

console = Console(highlight=False, soft_wrap=not sys.stdout.isatty())


def print_line(message: str) -> None:
    """Prints a line without markup."""
    console.print(message, markup=False)
