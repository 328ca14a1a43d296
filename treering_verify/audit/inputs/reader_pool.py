"""The pool of reader processes: each reads one file at a time, under a limit of time and of memory.

A file that crashes a decoder crashes that process only. A file that ends its reader, hangs it or exceeds its memory is
tried once more in a new process, and given up after the second strike. A thread feeds the readers while the caller is busy
with the model; it reads a bounded number of inputs ahead, so memory stays bounded.
"""

from __future__ import annotations

import logging
import math
import os
import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from typing import TYPE_CHECKING, Any, NamedTuple

from treering_verify.audit.inputs.reading import PAGE_PIXELS, Reading, refused
from treering_verify.audit.inputs.sources import Entry
from treering_verify.audit.inputs.urls import Access
from treering_verify.errors import TreeringError, UsageError
from treering_verify.files import printable
from treering_verify.media.animations import MOST_FRAMES
from treering_verify.media.isolation.child_process import HUB_TOKENS, ChildProcess
from treering_verify.media.isolation.decoding import MEMORY, SECONDS

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

LOG = logging.getLogger("treering_verify.audit")
STRIKES = 2
_BEGIN_SECONDS = 120.0  # to start a process on a slow disk
_TICK = 0.05
_MODULE = "treering_verify.audit.inputs.reader_process"


@dataclass(frozen=True)
class Limits:
    """Limits of reading one file.

    Attributes
    ----------
    time_limit : float
        Wall-clock time for reading and decoding. A file is tried twice before it is given up.
    reader_memory : int
        Address space of a reader process, in MiB.
    readers : int
        Count of processes; 0: one per processor, at most 4.
    access : Access
        What URLs may reach.
    """

    time_limit: float = SECONDS
    reader_memory: int = MEMORY
    readers: int = 0
    access: Access = field(default_factory=Access)

    def __post_init__(self) -> None:
        if not (self.time_limit > 0 and self.reader_memory >= 256 and self.readers >= 0):
            raise UsageError("give a reader a time limit above 0 and 256 MiB of memory or more, and 0 or more readers")

    @property
    def processes(self) -> int:
        """Count of reader processes to start."""
        return self.readers or min(4, os.cpu_count() or 1)


class Task(NamedTuple):
    """An input to read: the number of its chunk, its place there, and its entry."""

    chunk: int
    place: int
    entry: Entry


class Pending(Exception):
    """Raised when there is no task yet, but there will be."""


class ReaderPool:
    """Processes that read the inputs of tasks; a context that ends them when it is left.

    Parameters
    ----------
    next_task : callable
        Returns the next task, None after the last; raises `Pending` if it has to be called again. Called by one thread.
    shape : (height, width) or (frames, height, width)
    limits : Limits
    pages : bool
        Whether images are handed over at their own size too.
    """

    def __init__(
        self, next_task: Callable[[], Task | None], shape: tuple[int, ...], limits: Limits, pages: bool = False
    ) -> None:
        access = limits.access
        self._facts = [
            list(shape),
            limits.time_limit,
            limits.reader_memory,
            list(access.allow_protocols),
            access.allow_private,
            pages,
        ]
        self._next_task = next_task
        self._shape, self._limits = shape, limits
        self.ahead = 2 * limits.processes + 16
        self._results: queue.Queue[tuple[Task, Reading] | BaseException | None] = queue.Queue()
        self._busy: dict[Any, _Reader] = {}
        self._idle: list[_Reader] = []
        self._again: list[Task] = []
        self._strikes: dict[tuple[int, int], int] = {}
        self._stopped, self._taken = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._feed, name="audit readers", daemon=True)

    def __enter__(self) -> ReaderPool:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()
        for reader in [*self._busy.values(), *self._idle]:
            reader.child.kill()

    def results(self, tick: Callable[[], None], patience: float = math.inf) -> Iterator[tuple[Task, Reading] | None]:
        """Yield readings as they arrive, until all tasks are read; `tick` is called meanwhile, and may raise.

        None stands for `patience` seconds without a reading.
        """
        waited = time.monotonic()
        while True:
            tick()
            try:
                result = self._results.get(timeout=0.2)
            except queue.Empty:
                if time.monotonic() - waited > patience:
                    yield None
                    waited = time.monotonic()
                continue
            if result is None:
                return
            if isinstance(result, BaseException):
                raise result
            self._taken.set()
            yield result
            waited = time.monotonic()

    def _feed(self) -> None:
        try:
            while not self._stopped.is_set() and self._round():
                pass
            self._results.put(None)
        except BaseException as error:  # for the caller's thread
            self._results.put(error)

    def _round(self) -> bool:
        """Hand out tasks and collect readings; return False when no task is left."""
        pending = False
        while len(self._busy) < self._limits.processes and len(self._busy) + self._results.qsize() < self.ahead:
            try:
                task = self._again.pop() if self._again else self._next_task()
            except Pending:
                pending = True
                break
            if task is None:
                if not self._busy:
                    return False
                break
            if task.entry.code:
                self._results.put((task, refused(task.entry.path, task.entry.code)))
            else:
                self._assign(task)
        if not self._busy:
            self._taken.wait(_TICK)
            self._taken.clear()
            return True
        now = time.monotonic()
        soonest = min(reader.deadline for reader in self._busy.values())
        room = len(self._busy) < self._limits.processes
        timeout = max(0.0, min(soonest - now, _TICK if pending or room else 0.5))
        for ready in wait(list(self._busy), timeout):
            self._take(self._busy.pop(ready))
        now = time.monotonic()
        for connection, reader in list(self._busy.items()):
            if now > reader.deadline:
                del self._busy[connection]
                self._strike(reader, "reader_timeout")
        return True

    def _assign(self, task: Task) -> None:
        while True:
            # Buckets are opened with the credentials of the environment.
            reader = self._idle.pop() if self._idle else _Reader(ChildProcess(_MODULE, self._facts, hidden=HUB_TOKENS))
            try:
                reader.assign(task, self._limits.time_limit)
                self._busy[reader.child.connection] = reader
                return
            except OSError:  # it died while idle, so no file is to blame
                if not reader.ready:
                    raise self._broken() from None
                reader.child.kill()

    def _take(self, reader: _Reader) -> None:
        try:
            answer = reader.child.receive()
            if answer == "ready":
                reader.begin(self._limits.time_limit)
                self._busy[reader.child.connection] = reader
                return
            if answer == "reader_memory":
                self._strike(reader, answer)
                return
            reading = reader.reading(answer, self._shape)
        except (EOFError, OSError, ValueError, TypeError, KeyError):
            self._strike(reader, "reader_crashed")
            return
        assert reader.task is not None
        self._strikes.pop(reader.task[:2], None)
        self._results.put((reader.task, reading))
        self._idle.append(reader)

    def _strike(self, reader: _Reader, code: str) -> None:
        reader.child.kill()
        if not reader.ready:
            raise self._broken()
        task = reader.task
        assert task is not None
        strikes = self._strikes.get(task[:2], 0) + 1
        LOG.warning("%s, strike %d: %s", code, strikes, printable(task.entry.path))
        if strikes < STRIKES:
            self._strikes[task[:2]] = strikes
            self._again.append(task)
        else:
            self._strikes.pop(task[:2], None)
            self._results.put((task, refused(task.entry.path, code)))

    def _broken(self) -> TreeringError:
        memory = self._limits.reader_memory
        return UsageError(
            f"reader processes cannot start with {memory} MiB of address space: give --reader-memory more"
        )


class _Reader:
    """A reader process with its current task."""

    def __init__(self, child: ChildProcess) -> None:
        self.child = child
        self.task: Task | None = None
        self.ready = False
        self.deadline = time.monotonic() + _BEGIN_SECONDS

    def assign(self, task: Task, seconds: float) -> None:
        self.task = task
        self.child.send([task.entry.path, task.entry.url])
        if self.ready:
            self.deadline = time.monotonic() + seconds

    def begin(self, seconds: float) -> None:
        """Start the time limit of the waiting task, now that the process is ready."""
        self.ready = True
        self.deadline = time.monotonic() + seconds

    def reading(self, answer: Any, shape: tuple[int, ...]) -> Reading:
        """Return the reading of an answer, with the pixels that follow an "ok"."""
        import numpy as np

        def received(shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
            data = self.child.connection.recv_bytes(math.prod(shape))
            return np.frombuffer(data, np.uint8).reshape(shape)

        height, width = (answer.pop("page_shape") or (0, 0, 3))[:2]
        frames = tuple(answer.pop("frames"))
        if len(frames) > MOST_FRAMES:  # a reader that a hostile file took over is not believed
            raise ValueError(f"a reader sent {len(frames)} frames")
        axes = (len(frames),) if frames else ()
        pixels = received((*axes, *shape, 3)) if answer["status"] == "ok" else None
        if not 0 <= height * width <= PAGE_PIXELS:
            raise ValueError(f"a reader sent a page of {width} x {height} pixels")
        page = received((height, width, 3)) if pixels is not None and height * width else None
        assert self.task is not None
        return Reading(**{**answer, "path": self.task.entry.path, "pixels": pixels, "page": page, "frames": frames})
