"""Pace of a run: how many steps are dispatched before the device has computed them."""

import collections
import dataclasses
import time

import jax
from jaxtyping import PyTree

from mtljax.training.stopping import StopSignal
from mtljax.utils.terminal import announce, seconds_since_line


@dataclasses.dataclass
class Part:
    """Steps that were dispatched together.

    Attributes:
      logs: Their logs: of one step, or with a leading axis of at least `count` steps.
      count: Their number.
      finished: Time at which it was known that they are computed, if they were waited for.
    """

    logs: PyTree
    count: int = 1
    finished: float | None = None


class Pace:
    """Limit of the work that is dispatched ahead, so that a signal to stop is soon acted on.

    Steps that take longer than `AHEAD` are waited for one by one, which has no measurable cost;
    of short ones, as many as take `AHEAD` are in flight.
    """

    AHEAD = 0.2
    """Seconds of work in flight."""
    WORTH_STOPPING = 1.0
    """Seconds to the end of a chunk above which a signal ends it before."""
    LINE_EVERY = 60.0
    """Seconds without a line after which the number of steps is announced."""

    def __init__(self) -> None:
        self._measured: list[float] = []
        self._in_flight: collections.deque[Part] = collections.deque()
        self._steps_in_flight = 0

    @property
    def _steps_ahead(self) -> int:
        return int(self.AHEAD / max(min(self._measured), 1e-6))

    def size(self, remaining: int) -> int:
        """Returns the number of steps to dispatch in one program; 1 to measure their time."""
        if jax.process_count() > 1:  # all processes must run the same programs
            return remaining
        if len(self._measured) < 2:
            return 1
        return max(1, min(remaining, self._steps_ahead))

    def must_stop(self, stop: StopSignal, remaining: int) -> bool:
        """Returns True if the rest of a chunk is to be left out because of the signal."""
        if not stop.is_pending():
            return False
        return not self._measured or remaining * min(self._measured) > self.WORTH_STOPPING

    def dispatched(self, part: Part, start: float, step: int) -> None:
        """Waits until few enough steps are in flight.

        Args:
          part: The steps that were just dispatched.
          start: Time before they were dispatched, from `time.perf_counter`.
          step: Number of steps taken, these included.
        """
        self._in_flight.append(part)
        self._steps_in_flight += part.count
        limit = self._steps_ahead if len(self._measured) > 1 else 0
        while self._steps_in_flight > limit:
            earliest = self._in_flight.popleft()
            jax.block_until_ready(earliest.logs)
            earliest.finished = time.perf_counter()
            self._steps_in_flight -= earliest.count
        is_first = not self._measured
        if part.finished is not None:
            self._measured = [*self._measured[-1:], (part.finished - start) / part.count]
        if is_first:
            announce(f"first step done in {self._measured[0]:.2g} s, after compilation")
        elif seconds_since_line() > self.LINE_EVERY:
            announce(f"step {step}")
