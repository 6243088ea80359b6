"""Distributed runs whose processes are terminated, killed and stopped, and started again."""

import contextlib
import dataclasses
import os
import re
import signal
import time

from support.cli import SMALL, finish, start, wait_until
from support.processes import free_port

from mtljax.runs.checkpoints import saved_steps
from mtljax.utils.peers import LOST, REMEDY

KINDS = (signal.SIGTERM, signal.SIGKILL, signal.SIGSTOP)
TIMEOUT = 15
"""Seconds without a heartbeat after which a process is lost."""
BOUND = 60
"""Seconds after which no process may wait any more."""


@dataclasses.dataclass(frozen=True)
class Fault:
    """A signal to a process, some seconds after the start or after the first new record."""

    kind: signal.Signals
    victim: int
    delay: float = 0.0
    in_setup: bool = False


def random_fault(rng, count):
    """A fault of any kind, of any process, at any time: one in four before the first step."""
    in_setup = rng.random() < 0.25
    delay = rng.uniform(0, 8) if in_setup else rng.uniform(0, 1.5)
    return Fault(rng.choice(KINDS), rng.randrange(count), delay, in_setup)


class Job:
    """Processes that train in one folder until the run is done."""

    def __init__(self, folder, count, *, steps, cache, devices=1, flags=(), variables=None):
        self.folder, self.count = folder, count
        self.settings = {"cache": cache, "devices": devices}
        self.variables = variables or {}
        often = ("--steps", steps, "--log-every", 10, "--eval-every", 50, *flags)
        self.flags = (*SMALL, *often, "--workdir", folder, "--timeout-minutes", TIMEOUT / 60)
        self.saved = 0
        """Step that the next start must not fall behind."""

    def start(self, variables=lambda index: {}):
        """Starts the processes, with the environment variables of each."""
        if self.count == 1:
            return [start(*self.flags, **self.settings, variables=self.variables)]
        address = f"127.0.0.1:{free_port()}"
        flags = (*self.flags, "--coordinator", address, "--num-processes", self.count)
        of = lambda index: {**self.variables, **variables(index)}
        return [
            start(*flags, "--process-id", i, **self.settings, variables=of(i))
            for i in range(self.count)
        ]

    def finish(self):
        """Starts the processes and waits until the run is done."""
        self._check_done(list(map(finish, self.start())))

    def suffer(self, fault):
        """Starts the processes, which a fault ends; returns False if the run was done before.

        Those that can go on end in time, with one line and the same status.
        """
        processes = self.start()
        self._wait_for(fault, processes)
        if any(process.poll() is not None for process in processes):
            self._check_done(list(map(finish, processes)))
            return False
        saved = max(saved_steps(self.folder), default=0)
        victim = processes[fault.victim]
        send(victim, fault.kind)
        remaining = [p for p in processes if fault.kind == signal.SIGTERM or p is not victim]
        done = {process: finish(process, timeout=BOUND) for process in remaining}
        send(victim, signal.SIGKILL)
        done.setdefault(victim, None)
        done[victim] = done[victim] or finish(victim)
        _, out, err = done[processes[0]]
        self._check_start(out)
        self.saved = max(saved, *map(int, re.findall(r"stopped at step (\d+) and saved", err)), 0)
        self._check_ends(fault, [done[process][::2] for process in remaining])
        return True

    def _wait_for(self, fault, processes):
        records, before = self.folder / "metrics.jsonl", None
        if records.exists():
            before = records.stat().st_ino
        rewritten = []

        def has_new_record():
            with contextlib.suppress(FileNotFoundError):
                found = records.stat()
                if found.st_ino != before:
                    rewritten.append(found.st_size)
            return bool(rewritten) and rewritten[-1] > rewritten[0]

        if not fault.in_setup:
            wait_until(has_new_record, *processes)
        end = time.monotonic() + fault.delay
        wait_until(lambda: time.monotonic() > end, *processes)

    def _check_start(self, out):
        """No step beyond the last checkpoint was lost, if the process came so far."""
        if resumed := re.search(r"resuming from step (\d+)", out):
            assert int(resumed[1]) >= self.saved
        elif "first step done" in out:
            assert self.saved == 0

    def _check_done(self, done):
        assert [status for status, _, _ in done] == [0] * self.count, done
        self._check_start(done[0][1])

    def _check_ends(self, fault, ends):
        is_done = (self.folder / "result.json").exists()
        allowed = {0} if is_done else set()
        allowed |= {128 + signal.SIGTERM} if fault.kind == signal.SIGTERM else {LOST}
        if fault.kind == signal.SIGTERM and fault.in_setup:  # before SIGTERM is recorded
            allowed |= {LOST}
        statuses = {status for status, _ in ends}
        assert statuses <= allowed, (fault, ends)
        assert len(statuses) == 1 or fault.in_setup, (fault, ends)
        for status, err in ends:
            # Compiled code of the cache that jax 0.10.0 finds unusual for this machine.
            lines = [line for line in err.splitlines() if "cpu_aot_loader" not in line]
            assert len(lines) <= 1, ends
            assert all(line.startswith("mtljax: ") for line in lines), ends
            assert status != LOST or lines[0].endswith(REMEDY), ends


def send(process, kind):
    """Sends a signal to a process; kill and stop reach the processes that it started as well."""
    with contextlib.suppress(ProcessLookupError):
        if kind == signal.SIGTERM:
            process.send_signal(kind)
        else:
            os.killpg(process.pid, kind)
