"""Unfinished shards: handed out as tasks, filled with rows in any order, and written when they are whole."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from treering_verify.audit.inputs.plan import Chunk, Plan
from treering_verify.audit.inputs.reader_pool import Pending, Task
from treering_verify.audit.output.rows import Row, count
from treering_verify.audit.output.store import Store, read_shard

LOG = logging.getLogger("treering_verify.audit")
_ERRORS = "status:error"  # in `rows.count`
_SOON, _SELDOM = 2.0, 30.0  # seconds between two writings of unfinished shards, at first and later
_COST = 20  # at least so many times what a writing takes lies between it and the next


@dataclass
class Tally:
    """Progress of an audit.

    Attributes
    ----------
    total : int
        Count of inputs known so far; of all inputs once `walked`.
    counts : dict
        Count of inputs with a row, by label (`rows.count`).
    resumed : int
        Count of these rows that an earlier run had finished.
    """

    total: int = 0
    walked: bool = False
    counts: dict[str, int] = field(default_factory=dict)
    resumed: int = 0

    @property
    def done(self) -> int:
        """Count of inputs that have a row."""
        return sum(n for label, n in self.counts.items() if label.startswith("status:"))

    def add(self, counts: dict[str, int]) -> None:
        """Add the counts of more rows."""
        for label, n in counts.items():
            self.counts[label] = self.counts.get(label, 0) + n


@dataclass
class _Shard:
    chunk: Chunk
    rows: list[Row | None]
    missing: int


class OpenShards:
    """The chunks of a plan that are becoming shards.

    Parameters
    ----------
    store, plan
    tally : Tally
        Updated here.
    watch : callable
        Called with the progress at every `tick`.
    stop : threading.Event, optional
        Once set, `tick` raises KeyboardInterrupt.
    retry_errors : bool
        Reopen finished shards to judge their rows of status "error" again.
    publish : callable
        Called after the rows of unfinished shards were written: soon after the first row, and then every half a minute.
    """

    def __init__(
        self,
        store: Store,
        plan: Plan,
        tally: Tally,
        watch: Callable[[Tally], None],
        stop: threading.Event | None,
        retry_errors: bool = False,
        publish: Callable[[], None] = lambda: None,
    ) -> None:
        self._store, self._plan, self._tally, self._watch, self._stop = store, plan, tally, watch, stop
        self._retry_errors, self._publish = retry_errors, publish
        self._changed: set[int] = set()
        self._news = False
        self._interval, self._due = _SOON, 0.0
        self._open: dict[int, _Shard] = {}
        self._finished: deque[tuple[int, dict[str, int]]] = deque()

    def next_tasks(self) -> list[Task] | None:
        """Return the tasks of the next chunk that have no row yet; None after the last chunk.

        Raises
        ------
        Pending
            If the walk has not reached that chunk yet.
        """
        found = self._plan.next_chunk()
        if found is None:
            if self._plan.complete:
                return None
            raise Pending
        number, chunk = found
        counts = self._store.finished(number, chunk)
        rows: list[Row | None] = [None] * chunk.rows
        if counts is not None:
            if not (self._retry_errors and counts.get(_ERRORS)):
                self._finished.append((number, counts))
                return []
            rows = [None if row.status == "error" else row for row in read_shard(self._store.folder, number)]
            reused = [row for row in rows if row is not None]
            self._tally.add(count(reused))
            self._tally.resumed += len(reused)
        self._open[number] = _Shard(chunk, rows, rows.count(None))
        entries = self._plan.read(chunk)
        return [Task(number, place, entries[place]) for place, row in enumerate(rows) if row is None]

    def tick(self) -> None:
        """Report the progress, and write what is new if it is time to; KeyboardInterrupt if the audit is to stop."""
        if self._stop and self._stop.is_set():
            raise KeyboardInterrupt
        self._tally.total, self._tally.walked = self._plan.total, self._plan.complete
        self._watch(self._tally)
        started = time.monotonic()
        if self._news and started >= self._due:
            self.write_parts()
            self._publish()
            ended = time.monotonic()
            self._due = ended + max(self._interval, _COST * (ended - started))
            self._interval = min(_SELDOM, 2 * self._interval)

    def write_parts(self) -> None:
        """Write the rows that unfinished shards have so far.

        Raises
        ------
        UsageError
            If the folder is not writable.
        """
        for number in sorted(self._changed & self._open.keys()):
            self._store.write_part(number, [row for row in self._open[number].rows if row is not None])
            self._changed.discard(number)
        self._news = False

    def resumed(self) -> Iterator[int]:
        """Count the shards that an earlier run had finished, and yield their numbers."""
        while self._finished:
            number, counts = self._finished.popleft()
            done = self._tally.done
            self._tally.add(counts)
            self._tally.resumed += self._tally.done - done
            self._news = True
            yield number

    def settle(self, task: Task, row: Row) -> Iterator[int]:
        """Accept the row of a task; yield the number of its shard if that is written by it."""
        self._tally.add(count([row]))
        shard = self._open[task.chunk]
        assert shard.rows[task.place] is None
        shard.rows[task.place] = row
        shard.missing -= 1
        self._changed.add(task.chunk)
        self._news = True
        if not shard.missing:
            del self._open[task.chunk]
            self._changed.discard(task.chunk)
            rows = [row for row in shard.rows if row is not None]
            self._store.write(task.chunk, shard.chunk, rows)
            LOG.info("shard %d: %s", task.chunk, count(rows))
            yield task.chunk
