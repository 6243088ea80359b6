"""A browser without a window and without a network."""

import shutil
from pathlib import Path

import pytest
from support.cli import run

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
needs_browser = pytest.mark.skipif(
    CHROMIUM is None, reason="no chromium or google-chrome on this machine"
)


def browse(address: str, folder: Path, *flags: str) -> tuple[str, str]:
    """Opens a page and returns what the browser prints, and what it logs.

    Args:
      address: Address of the page, such as `path.as_uri()`.
      folder: Folder for the browser's own files.
      flags: Without dashes, such as `dump-dom`.
    """
    every = ["headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run"]
    every += ["disable-background-networking", "disable-component-update", "disable-sync"]
    every += ["host-resolver-rules=MAP * ~NOTFOUND", "enable-logging=stderr"]
    every += [f"user-data-dir={folder / 'user'}", *flags]
    done = run([CHROMIUM, *(f"--{flag}" for flag in every), address])
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr
