"""Terminal output."""

import sys

from rich.console import Console

console = Console(highlight=False, soft_wrap=not sys.stdout.isatty())


def say(message: str) -> None:
    """One line for people, not interpreted as markup."""
    console.print(message, markup=False)
