"""Runs of several processes, for tests of distributed training."""

import json
import socket

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
