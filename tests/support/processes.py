"""Runs of several processes, for tests of distributed training and of clusters."""

import contextlib
import json
import socket
from pathlib import Path

from support.cli import start


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def start_two(*flags, cache):
    """Two processes with two devices each."""
    together = ("--coordinator", f"127.0.0.1:{free_port()}", "--num-processes", 2)
    return [start(*flags, *together, "--process-id", i, cache=cache, devices=2) for i in range(2)]


def lines(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def descendants(pid):
    """{process id: command line} of the processes that a process has started, and theirs."""
    parents, commands = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended
            after_name = (folder / "stat").read_text().rpartition(")")[2]
            parents[int(folder.name)] = int(after_name.split()[1])
            commands[int(folder.name)] = (folder / "cmdline").read_bytes().decode(errors="replace")
    found = {pid}
    while new := {child for child, parent in parents.items() if parent in found} - found:
        found |= new
    return {child: commands[child] for child in found - {pid}}
