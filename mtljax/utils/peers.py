"""Detection of processes of a distributed run that have ended or stalled.

A collective operation waits for all processes, on some platforms for ever. Therefore a thread of
each process publishes a heartbeat and the progress of its main thread in the coordination service
of JAX, reads those of the other processes, and ends its process with one line if the run cannot
continue.
"""

import contextlib
import dataclasses
import itertools
import json
import os
import sys
import threading
import time
from typing import Any, NoReturn

LOST = 75
"""Exit status if the run can be started again: `EX_TEMPFAIL` of sysexits.h."""
HEARTBEAT = 100.0
"""Seconds without a heartbeat after which a process is lost, or the time-out if it is shorter."""
SLACK = 30
"""Seconds by which JAX's own detection, which aborts the process, is later."""
PARENT = "MTLJAX_SUPERVISOR"
"""Environment variable with the id of the parent process without which this one ends."""
REMEDY = "start all processes again with the same --workdir to resume from the last checkpoint"
"""What to do after a process was lost, for messages."""
FOLDER, VERDICT = "mtljax/peers/", "verdict"
"""Keys of entries in the store of `jax.distributed`."""

_progress = itertools.count(1)
_marks = 0


def mark() -> None:
    """Records progress: call it before an operation that waits for all processes."""
    global _marks
    _marks = next(_progress)


@dataclasses.dataclass
class _Process:
    """Last message of a process: when its heartbeat and its progress changed."""

    beat: int = -1
    marks: int = -1
    beat_at: float = 0.0
    marks_at: float = 0.0


class Watch:
    """Watch of the other processes, by two threads.

    One talks to the coordination service, which may block; the other judges.
    """

    def __init__(self, client: Any, index: int, count: int, *, timeout: float):
        """Initializes the watch.

        Args:
          client: Client of JAX's coordination service.
          index, count: Index of this process, and number of processes.
          timeout: Seconds without progress after which a process that is waited for is lost.
        """
        self._client, self._index, self._count = client, index, count
        self._timeout, self._silence = timeout, min(timeout, HEARTBEAT)
        self._period = min(max(timeout / 20, 0.25), 2.0) + count / 500
        now = time.monotonic()
        self._processes = [_Process(beat_at=now, marks_at=now) for _ in range(count)]
        self._verdict: tuple[int, str] | None = None
        self._ended, self._lock = threading.Event(), threading.Lock()

    def start(self) -> None:
        """Starts the threads."""
        for run in (self._exchange, self._judge):
            threading.Thread(target=run, daemon=True, name=f"peers{run.__name__}").start()

    def stop(self) -> None:
        """Ends the watch, before the coordination service is shut down."""
        self._ended.set()

    def expect_loss(self) -> None:
        """Waits, after an error in communication, until the process that caused it is known."""
        self._silence = min(self._silence, 4 * self._period + 1)
        time.sleep(2 * self._silence + 4 * self._period)

    def fail(self, status: int, message: str, *, output: str = "") -> NoReturn:
        """Ends this process, which has failed, and the others with the same status.

        If the watch is already ending this process because another one is lost, nothing is
        printed here: that one is the cause.

        Args:
          status: Exit status.
          message: Cause, for the other processes.
          output: Text for the standard error of this process.
        """
        with self._lock:
            self.stop()
            sys.stderr.write(output)
            line = f"process {self._index} of {self._count} failed: {message}"
            self._publish(status, line, patience=self._silence)
            self._leave(status)

    def _exchange(self) -> None:
        for beat in itertools.count():
            try:
                mine = json.dumps([beat, _marks])
                self._client.key_value_set(f"{FOLDER}{self._index}", mine, allow_overwrite=True)
                entries = self._client.key_value_dir_get(FOLDER)
            except Exception:  # the process with the service has ended
                if not self._ended.wait(self._period):
                    self._conclude(LOST, f"{self._name([0])} cannot be reached")
                return
            for key, text in entries:
                self._read(key.rpartition("/")[2], json.loads(text))
            if self._ended.wait(self._period):
                return

    def _read(self, name: str, value: Any) -> None:
        now = time.monotonic()
        if name == VERDICT:
            self._verdict = value
            return
        process, (beat, marks) = self._processes[int(name)], value
        if beat != process.beat:
            process.beat, process.beat_at = beat, now
        if marks != process.marks:
            process.marks, process.marks_at = marks, now

    def _judge(self) -> None:
        parent, before = os.environ.get(PARENT), time.monotonic()
        while not self._ended.wait(self._period):
            now = time.monotonic()
            if parent is not None and str(os.getppid()) != parent:
                os._exit(LOST)
            if now - before > self._silence / 2:  # this process was stopped meanwhile
                for process in self._processes:
                    process.beat_at = process.marks_at = now
            before = now
            if self._verdict is not None:
                self._end(*self._verdict)
            self._check(now)

    def _check(self, now: float) -> None:
        watched = [i for i in range(self._count) if i != self._index]
        if (
            now - self._processes[self._index].beat_at > self._silence
        ):  # the service does not answer
            watched = [0] if self._index else []
        silent = [i for i in watched if now - self._processes[i].beat_at > self._silence]
        if silent:
            seconds = now - min(self._processes[i].beat_at for i in silent)
            self._conclude(
                LOST,
                f"{self._name(silent)} did not respond for {seconds:.0f} s: killed, stopped or cut "
                "off",
            )
        marks = [process.marks for process in self._processes]
        since = now - max(process.marks_at for process in self._processes)
        if min(marks) < max(marks) and since > self._timeout:
            late = [i for i, mark in enumerate(marks) if mark == min(marks)]
            self._conclude(
                LOST,
                f"{self._name(late)} made no progress for {since:.0f} s while others wait "
                "(--timeout-minutes)",
            )

    def _name(self, indices: list[int]) -> str:
        plural = "es" if len(indices) > 1 else ""
        return f"process{plural} {', '.join(map(str, indices))} of {self._count}"

    def _conclude(self, status: int, message: str) -> NoReturn:
        """Ends all processes; the first conclusion counts."""
        message += f"; {REMEDY}"
        self._publish(status, message, patience=self._period)
        self._end(status, message)

    def _publish(self, status: int, message: str, *, patience: float) -> None:
        """Tells the other processes, within `patience` seconds: the service may not answer."""
        verdict = json.dumps([status, message])

        def publish() -> None:
            with contextlib.suppress(Exception):
                self._client.key_value_set(FOLDER + VERDICT, verdict)

        thread = threading.Thread(target=publish, daemon=True)
        thread.start()
        thread.join(patience)

    def _end(self, status: int, message: str) -> NoReturn:
        with self._lock:  # retained until the process ends: one line
            print(f"mtljax: {message}", file=sys.stderr, flush=True)
            self._leave(status)

    def _leave(self, status: int) -> NoReturn:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        if self._index == 0:  # the others read the verdict from the service of this process
            time.sleep(3 * self._period)
        os._exit(status)
