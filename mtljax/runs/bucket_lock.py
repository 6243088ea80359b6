"""Lock of a run folder in a bucket: a file with the owner's name that changes while it lives.

Object stores have no locks. This one keeps runs apart that start one after the other, also if
clocks differ. Two that start in the same second are kept apart if the store can refuse to replace a
file, as S3 and Google Cloud Storage can, or else if it shows what was written last.
"""

import _thread
import contextlib
import json
import signal
import socket
import threading
import time
import uuid

from mtljax.runs.bucket import Bucket
from mtljax.runs.lock import LOCK
from mtljax.utils.terminal import print_line

HEARTBEAT = 10.0
"""Seconds between two changes of the file by its owner."""
SILENCE = 45.0
"""Seconds without a change after which the owner has ended."""
SETTLE = 2.0
"""Seconds to wait, after taking the lock of another owner, for one that does the same."""


class BucketLock:
    """Lock of a URL.

    Attributes:
      owner: Random name of this lock.
      is_lost: True once another process has taken it, as this one gave no sign of life for long.
    """

    def __init__(self, bucket: Bucket):
        self.owner, self.is_lost = uuid.uuid4().hex, False
        self._bucket, self._ended, self._beats = bucket, threading.Event(), 0
        self._thread = threading.Thread(target=self._live, daemon=True, name="bucket-lock")

    def acquire(self, *, former: str | None) -> bool:
        """Takes the lock, and renews it until `release` or `leave`.

        Args:
          former: Owner that is known to have ended, if any.

        Returns:
          True if nobody has had the lock since that owner.

        Raises:
          ValueError: Another run has the lock.
          OSError: The URL cannot be written.
        """
        before = self._content()
        is_former = former is not None and _owner(before) == former
        if before is not None and not is_former:
            self._require_ended(before)
        with contextlib.suppress(FileExistsError):  # by whom, is checked below
            self._write(is_new=before is None)
        time.sleep(SETTLE if before is not None and not is_former else 0)
        if _owner(self._content()) != self.owner:
            raise self._in_use()
        self._thread.start()
        return is_former

    def _require_ended(self, before: bytes) -> None:
        print_line(
            f"{self._bucket.url} is locked; checking for {SILENCE:.0f} s whether that run is alive"
        )
        end = time.monotonic() + SILENCE
        while time.monotonic() < end:
            time.sleep(min(1.0, SILENCE / 10))
            content = self._content()
            if content is None:
                return
            if content != before:
                raise self._in_use()

    def _in_use(self) -> ValueError:
        try:
            host = json.loads(self._content() or b"{}").get("host", "another machine")
        except ValueError:
            host = "another machine"
        return ValueError(
            f"another run (on {host}) is writing to {self._bucket.url}; choose another --workdir"
        )

    def _content(self) -> bytes | None:
        return self._bucket.read(LOCK)

    def _write(self, *, is_new: bool = False) -> None:
        self._beats += 1
        content = {"owner": self.owner, "host": socket.gethostname(), "beat": self._beats}
        self._bucket.write(LOCK, json.dumps(content).encode(), is_new=is_new)

    def _live(self) -> None:
        while not self._ended.wait(HEARTBEAT):
            with contextlib.suppress(OSError):  # the network; tried again at the next beat
                if _owner(self._content()) not in (None, self.owner):
                    self.is_lost = True
                    _thread.interrupt_main(signal.SIGTERM)  # if it is handled: training stops
                    return
                self._write()

    def leave(self) -> None:
        """Ends the renewal and leaves the file, from which `acquire` knows this owner."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()

    def release(self) -> None:
        """Ends the renewal and deletes the file, unless it is another owner's."""
        self.leave()
        if not self.is_lost and _owner(self._content()) == self.owner:
            self._bucket.delete(LOCK)


def _owner(content: bytes | None) -> str | None:
    """Returns the owner in the file, "" if it is damaged, None if there is no file."""
    if content is None:
        return None
    try:
        return str(json.loads(content)["owner"])
    except (ValueError, KeyError, TypeError):
        return ""
