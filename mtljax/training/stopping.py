"""Early end of training: on SIGTERM, with the state saved, or because training has failed."""

import contextlib
import gc
import math
import signal
import threading
from collections.abc import Iterator, Mapping
from types import FrameType

import jax
import numpy as np

from mtljax.utils.peers import mark

LARGE_WEIGHT = 1e10
"""With a weight of this size the gradient overflows."""
LATER = 0.05
"""Seconds after which an interruption is tried again."""


class Stopped(Exception):
    """Training ended early, with a message for the user and the program's exit status."""

    def __init__(self, message: str, status: int = 1):
        super().__init__(message)
        self.status = status


def failure_cause(
    balancer: str, losses: Mapping[str, float], weights: Mapping[str, float] | None
) -> str:
    """Returns the cause of an update that was not finite, and what to do: one line.

    Args:
      balancer: Text of the balancer, as in an experiment.
      losses, weights: Task -> loss and weight in that update; None for a balancer without weights.
    """
    values = ", ".join(f"{task} {loss:.4g}" for task, loss in losses.items())
    broken = [task for task, loss in losses.items() if not math.isfinite(loss)]
    if broken:
        return (
            f"the loss of task {broken[0]!r} is {losses[broken[0]]} (losses: {values}); lower "
            "learning_rate, set clip_norm, or check its labels and the images for NaN"
        )
    lowest, largest = min(losses, key=losses.__getitem__), max(losses, key=losses.__getitem__)
    has_broken_weights = any(not abs(x) < LARGE_WEIGHT for x in (weights or {}).values())
    if losses[lowest] < 0 and (has_broken_weights or weights is None):
        return (
            f"balancer {balancer} gave no finite direction at the negative loss of task {lowest!r} "
            f"(losses: {values}); use a balancer that takes negative losses, such as ew, or a loss "
            ">= 0"
        )
    if has_broken_weights:
        given = ", ".join(f"{task} {weight:.4g}" for task, weight in (weights or {}).items())
        return (
            f"balancer {balancer} gave the weights {given} at the losses {values}, of which that "
            f"of task {largest!r} is too large for it; scale this loss (a regression by center and "
            "scale), lower learning_rate or use another balancer"
        )
    return (
        f"the gradient is not finite at the losses {values}, of which that of task {largest!r} is "
        "the largest; lower learning_rate, set clip_norm, or check the data for NaN"
    )


class Interrupted(BaseException):
    """SIGTERM was received in a block that need not be completed.

    Not an `Exception`, so that no handler of errors takes it for one.
    """


class StopSignal:
    """Record of SIGTERM; without a handler (see `stop_signal`), of a signal that is never set.

    Attributes:
      was_received: True once this process has received the signal; reading it uses no device.
    """

    def __init__(self) -> None:
        self.was_received, self._may_interrupt, self._is_collecting = False, False, False

    def receive(self, frame: FrameType | None = None) -> None:
        """Records the signal; raises `Interrupted` inside a block that is `interruptible`.

        Args:
          frame: Frame that the signal interrupts, if any.
        """
        self.was_received = True
        if not self._may_interrupt:
            return
        if self._is_collecting or _ignores_exceptions(frame):
            threading.Timer(LATER, self._receive_again).start()
            return
        self._may_interrupt = False  # once: what the exception unwinds is completed
        raise Interrupted

    def watch(self, phase: str, info: Mapping[str, int]) -> None:
        """Records if garbage is collected, a callback of `gc`: weak references have others."""
        self._is_collecting = phase == "start"

    def _receive_again(self) -> None:
        main = threading.main_thread().ident
        if self._may_interrupt and main is not None and hasattr(signal, "pthread_kill"):
            signal.pthread_kill(main, signal.SIGTERM)  # also ends a sleep

    def is_pending(self) -> bool:
        """Returns True if the signal was received, in a program of one process."""
        return self.was_received and jax.process_count() == 1

    def is_received(self) -> bool:
        """Returns True if any process received the signal; all must call this at the same step."""
        if jax.process_count() == 1:
            return self.was_received
        from jax.experimental.multihost_utils import process_allgather

        mark()
        return bool(np.any(process_allgather(np.asarray(self.was_received))))

    @contextlib.contextmanager
    def interruptible(self) -> Iterator[None]:
        """Context that the signal ends with `Interrupted`, unless there are other processes.

        For work that takes long and leaves no trace if it is not completed.
        """
        if jax.process_count() > 1:
            yield
            return
        if self.was_received:
            raise Interrupted
        self._may_interrupt = True
        try:
            yield
        finally:
            self._may_interrupt = False


def _ignores_exceptions(frame: FrameType | None) -> bool:
    """Returns True in a callback of the garbage collector, such as JAX's, and in a finalizer.

    Python prints their exceptions and continues.
    """
    callbacks = [getattr(callback, "__code__", None) for callback in gc.callbacks]
    while frame is not None:
        if frame.f_code in callbacks or frame.f_code.co_name == "__del__":
            return True
        frame = frame.f_back
    return False


_outer: StopSignal | None = None
"""Record of the `stop_signal` that is active, if any."""


@contextlib.contextmanager
def stop_signal() -> Iterator[StopSignal]:
    """Records SIGTERM instead of ending the process, so that the loop can save.

    Inside another such context, its record is used.
    """
    global _outer
    if _outer is not None:
        yield _outer
        return
    stop = StopSignal()
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(ValueError):  # Python allows handlers in the main thread only
            previous = signal.signal(signal.SIGTERM, lambda _, frame: stop.receive(frame))
            stack.callback(signal.signal, signal.SIGTERM, previous)
        gc.callbacks.append(stop.watch)
        stack.callback(gc.callbacks.remove, stop.watch)
        _outer = stop
        try:
            yield stop
        finally:
            _outer = None
