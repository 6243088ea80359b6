"""Terminal output."""

import io

import pytest
from rich.console import Console

from mtljax.utils.terminal import can_show_bar


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self):
        return True


@pytest.mark.parametrize(("stream", "expected"), [(io.StringIO(), False), (Terminal(), True)])
def test_forced_colors_do_not_bring_a_progress_bar_into_a_notebook(stream, expected, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.delenv("TTY_COMPATIBLE", raising=False)
    console = Console(file=stream)
    assert console.is_terminal
    assert can_show_bar(console) is expected
