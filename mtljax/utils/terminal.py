"""Terminal output: lines, and announcements of what a program is doing."""

import contextlib
import sys
import threading
import time
from collections.abc import Iterator
from contextvars import ContextVar

from rich.console import Console

from mtljax.utils.urls import named

console = Console(highlight=False, soft_wrap=not sys.stdout.isatty())
"""Terminal of all output."""

FIRST_REMINDER = 30.0
"""Seconds until `phase` prints again; the time between two lines then doubles."""

_announces: ContextVar[bool] = ContextVar("announces", default=False)
_printed_at = 0.0


def can_show_bar(console: Console = console) -> bool:
    """True if a progress bar can be drawn; FORCE_COLOR, which notebooks set, is not enough."""
    return console.is_terminal and console.file.isatty()


def print_line(message: str) -> None:
    """Prints a line without markup."""
    global _printed_at
    console.print(named(message), markup=False)
    _printed_at = time.perf_counter()


def seconds_since_line() -> float:
    """Returns the seconds since `print_line` was last called by this process."""
    return time.perf_counter() - _printed_at


@contextlib.contextmanager
def announcements(enabled: bool) -> Iterator[None]:
    """Context in which `announce` and `phase` print, or do not; outside, they do not."""
    token = _announces.set(enabled)
    try:
        yield
    finally:
        _announces.reset(token)


def announce(message: str) -> None:
    """Prints a line if announcements are enabled."""
    if _announces.get():
        print_line(message)


@contextlib.contextmanager
def phase(message: str, *, announced: bool = True) -> Iterator[None]:
    """Announces what the block does, unless `announced` is False, and reminds of it while it lasts.

    Reminders follow after 30, 60, 120, ... seconds, so that long phases do not flood a log file.
    """
    if not _announces.get():
        yield
        return
    if announced:
        print_line(message)
    start, ended = time.perf_counter(), threading.Event()

    def remind() -> None:
        wait = FIRST_REMINDER
        while not ended.wait(wait):
            elapsed = time.perf_counter() - start
            print_line(f"{message}: {elapsed:.0f} s so far")
            wait = elapsed

    thread = threading.Thread(target=remind, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
