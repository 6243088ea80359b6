"""Disks that are full."""

import contextlib
import os
import subprocess

import pytest


@contextlib.contextmanager
def mounted(folder, megabytes):
    """A new folder that is a disk of its own; skips the test where none can be mounted."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", folder]
    try:
        mounts = subprocess.run(command, capture_output=True).returncode == 0
    except OSError:
        mounts = False
    if not mounts:
        pytest.skip("only root can mount a disk")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def fill(disk, left=0):
    """Fills a disk up to some bytes, and returns the file to delete."""
    free = os.statvfs(disk)
    file = disk / "filler"
    file.write_bytes(b"x" * max(free.f_bavail * free.f_bsize - left, 0))
    return file
