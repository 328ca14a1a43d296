"""Share a long measurement among processes: each works through the steps that no other is at, and keeps what it found.

The processes need know nothing of each other but the folder: they may be started together (`--workers`), or one after
another, also on machines that share a file system with locks.
"""

from __future__ import annotations

import logging
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from pathlib import Path

LOG = logging.getLogger(__name__)
_LOCK = "lock"
_SKIPPING: ContextVar[bool] = ContextVar("_SKIPPING", default=False)


class Taken(Exception):
    """Another process measures this just now."""


class Helped(Exception):
    """A helper has done its share, and what it all amounts to is for the one whom it helps."""


@dataclass(frozen=True)
class Share:
    """Which of the processes that share a measurement this is, of how many; number 0 is the one that reports.

    Each begins at a place of its own, so that they seldom meet.
    """

    number: int
    of: int

    def work(self, steps: Iterable[Callable[[], object]], advance: Callable[[], None]) -> None:
        """Do every step that no other process does.

        Parameters
        ----------
        steps : iterable of callables
            In an order in which neighbours have something in common; each keeps what it finds (`kept`).
        advance : callable
            Is told of each step.

        Raises
        ------
        Helped
            When all is done, or in others' hands, if this is a helper.
        """
        queue = deque(steps)
        queue.rotate(-(self.number * len(queue) // self.of))
        token = _SKIPPING.set(True)
        try:
            while queue:
                with suppress(Taken):
                    queue.popleft()()  # and lets go of the images that only it needed
                advance()
        finally:
            _SKIPPING.reset(token)
        if self.number:
            raise Helped


def end_with_parent() -> None:
    """End this process, at once, when the one that started it ends in whatever way: killed, it can end nobody itself."""
    import multiprocessing
    from multiprocessing.connection import wait

    if (parent := multiprocessing.parent_process()) is None:
        return

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@contextmanager
def claimed(folder: Path, number: int) -> Iterator[None]:
    """Hold a number (0 to 2^62 - 1) of a folder against other processes, until the end of the block or of the process.

    Where another process holds it: wait, or, in a `Share`'s work, raise `Taken`. Where the system or the file system knows
    no locks, nothing is held.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    held = _lock_file(folder)
    try:
        fcntl.lockf(held, fcntl.LOCK_EX | (fcntl.LOCK_NB if _SKIPPING.get() else 0), 1, number)
    except BlockingIOError:
        raise Taken from None
    except OSError as error:
        LOG.warning(
            "%s knows no locks (%s): processes that share it may measure the same twice", folder, error.strerror
        )
        yield
        return
    try:
        yield
    finally:
        fcntl.lockf(held, fcntl.LOCK_UN, 1, number)


@cache
def _lock_file(folder: Path) -> int:
    """Open a folder's lock file for the life of the process: closing any descriptor of it would free all that is held."""
    folder.mkdir(parents=True, exist_ok=True)
    return os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o644)
