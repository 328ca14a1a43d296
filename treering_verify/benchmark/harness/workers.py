"""Share a long measurement among processes: each does the steps that no other process is doing, and caches the results.

The processes share nothing but the cache folder. They may be started together (`--workers`) or one after another, also on
several machines with a shared file system that supports locks.
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
    """Another process is measuring this now."""


class Helped(Exception):
    """A helper process has finished; the process that it helps reports the result."""


@dataclass(frozen=True)
class Share:
    """The number of this process among those that share a measurement, and how many there are; number 0 reports.

    Each process begins at another step, so that two seldom want the same one.
    """

    number: int
    of: int

    def work(self, steps: Iterable[Callable[[], object]], advance: Callable[[], None]) -> None:
        """Do every step that no other process is doing.

        Parameters
        ----------
        steps : iterable of callables
            Each caches its result (`cached`); neighbours in the order share inputs.
        advance : callable
            Called after each step.

        Raises
        ------
        Helped
            In a helper process, when every step is done or taken.
        """
        queue = deque(steps)
        queue.rotate(-(self.number * len(queue) // self.of))
        token = _SKIPPING.set(True)
        try:
            while queue:
                with suppress(Taken):
                    queue.popleft()()  # releases the images that only this step needed
                advance()
        finally:
            _SKIPPING.reset(token)
        if self.number:
            raise Helped


def end_with_parent() -> None:
    """End this process as soon as its parent ends, even if the parent is killed and cannot end it."""
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
    """Lock a number (0 to 2^62 - 1) of a folder against other processes, until the end of the block or of the process.

    If another process holds the lock, wait for it; inside `Share.work` raise `Taken` instead. Where the system or the file
    system has no locks, nothing is locked.
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
            "%s has no file locks (%s): processes that share it may measure the same twice", folder, error.strerror
        )
        yield
        return
    try:
        yield
    finally:
        fcntl.lockf(held, fcntl.LOCK_UN, 1, number)


@cache
def _lock_file(folder: Path) -> int:
    """Open a folder's lock file for the life of the process: closing any descriptor of it would release all its locks."""
    folder.mkdir(parents=True, exist_ok=True)
    return os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o644)
