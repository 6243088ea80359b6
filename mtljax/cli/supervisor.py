"""Parent process of one process of a distributed run: one line instead of an abort inside JAX.

When a process of a run is killed, XLA, gloo and the coordination service of JAX abort the others
from threads of theirs, with stack traces, before Python can act. The parent, which does not import
JAX, passes on signals and output, and turns such an end into one line and status 75.
"""

import os
import re
import signal
import subprocess
import sys
from typing import Any

from mtljax.cli.arguments import value_of
from mtljax.utils.peers import LOST, PARENT, REMEDY

FATAL = re.compile(
    r"[EF]\d{4} .*\b(coordination_service\w*\.cc|client\.h|preemption_sync_manager\.cc|"
    r"rendezvous\.cc):\d+\]|W\d{4} .*\bpreemption_sync_manager\.cc:\d+\]|"
    r"terminate called after throwing an instance of 'gloo"
)
"""Start of the last output of a process that JAX aborts because it lost another one."""
UNHEALTHY = re.compile(r"unhealthy \(stopped sending heartbeats\):\s*(\d[\d\s,]*)")
"""Message of JAX on processes that were lost."""
WITHOUT_SERVICE = ("Socket closed", "Failed to send RPC", "Connection reset", "Stream removed")
"""Signs in messages of JAX that the first process was lost."""
EXPECTED = (0, 2, LOST, 128 + signal.SIGTERM, 130)
"""Statuses after which what FATAL held back is no news."""


def is_needed(arguments: list[str]) -> bool:
    """Returns True for a process of a distributed run that has no such parent yet."""
    is_child = os.environ.get(PARENT) == str(os.getppid())
    return value_of(arguments, "--coordinator") is not None and not is_child


def supervise(arguments: list[str]) -> int:
    """Runs the command line in a child process and returns its exit status.

    The child ends when this process is killed, at the next heartbeat.
    """
    command = [sys.executable, *sys.orig_argv[1:]]
    environment = os.environ | {PARENT: str(os.getpid())}
    child = subprocess.Popen(
        command, env=environment, stderr=subprocess.PIPE, text=True, errors="replace"
    )
    signal.signal(signal.SIGTERM, lambda *_: child.send_signal(signal.SIGTERM))
    signal.signal(signal.SIGINT, lambda *_: None)  # the terminal sends it to the child as well
    held = _relay(child.stderr)
    status = child.wait()
    if status == -signal.SIGABRT and held:
        index, count = (value_of(arguments, f"--{x}") for x in ("process-id", "num-processes"))
        print(f"mtljax: {_lost_line(held, index, count)}", file=sys.stderr)
        print_held, status = False, LOST
    else:
        status = 128 - status if status < 0 else status
        print_held = status not in EXPECTED
    if print_held or os.environ.get("MTLJAX_TRACEBACK"):
        sys.stderr.write(held)
    if status == 128 + signal.SIGKILL:
        print(
            "mtljax: the process was killed by SIGKILL, perhaps by the system for its memory "
            "(see dmesg)",
            file=sys.stderr,
        )
    return status


def _relay(lines: Any) -> str:
    """Copies lines to standard error, and returns those from a fatal one on."""
    held: list[str] = []
    for line in lines:
        if line.startswith("mtljax: ") or not (held or FATAL.match(line)):
            sys.stderr.write(line)
            sys.stderr.flush()
        else:
            held.append(line)
    return "".join(held)


def _lost_line(text: str, index: str | None, count: str | None) -> str:
    of_count = "" if count is None else f" of {count}"
    if "RegisterTask" in text:
        return f"the other processes did not start within --timeout-minutes; {REMEDY}"
    lost = "another process"
    if match := UNHEALTHY.search(text):
        lost = f"process {', '.join(re.findall('[0-9]+', match[1]))}{of_count}"
    elif index not in (None, "0") and any(sign in text for sign in WITHOUT_SERVICE):
        lost = f"process 0{of_count}"
    return f"{lost} ended or cannot be reached; {REMEDY}"
