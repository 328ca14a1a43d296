"""Signals that stop a command: at once, or when what is being judged is judged."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

import click

_STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # the last comes when a terminal is closed
_GRACE = 5.0  # seconds of processor time, of all threads, that the batch in work may take after a signal
_PATIENCE = 30.0  # the same by the clock: a process that waits for a disk uses no processor


class Stop:
    """Whether a signal asked to stop.

    Attributes
    ----------
    event : threading.Event
        Set by the first signal.
    """

    def __init__(self) -> None:
        self.event = threading.Event()
        self._graceful = False

    @contextmanager
    def after_the_batch(self) -> Iterator[None]:
        """Let a signal in the block set the event; the block is interrupted if it goes on for too long after that."""
        self._graceful = True
        try:
            yield
        finally:
            self._graceful = False
            self._disarm()

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Receive a signal that asks to stop: outside the block, and for the second time, it interrupts at once."""
        again = self.event.is_set()
        self.event.set()
        if again or not self._graceful:
            self._disarm()
            raise KeyboardInterrupt
        signal.setitimer(signal.ITIMER_PROF, _GRACE)
        signal.setitimer(signal.ITIMER_REAL, _PATIENCE)
        with suppress(OSError):  # of a terminal that was closed
            click.echo("Stopping after this batch; once more to stop at once.", err=True)

    def hurry(self, number: int, frame: FrameType | None) -> None:
        """Receive the signal of a timer: the time of the batch in work is up."""
        if self._graceful:
            self._disarm()
            raise KeyboardInterrupt

    @staticmethod
    def _disarm() -> None:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)


@contextmanager
def stopped_by_signals() -> Iterator[Stop]:
    """Yield what says whether SIGINT, SIGTERM or SIGHUP has come; see `Stop`. SIGHUP that nohup ignores stays ignored."""
    stop = Stop()
    stops = [number for number in _STOPS if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN]
    handlers = {**dict.fromkeys(stops, stop.handle), signal.SIGPROF: stop.hurry, signal.SIGALRM: stop.hurry}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
