"""The shards that an engine works on: handed out as tasks, filled with rows in any order, written when they are whole."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from treering_verify.audit.inputs.plan import Chunk, Plan
from treering_verify.audit.inputs.reader_pool import Pending, Task
from treering_verify.audit.output.rows import Row, count
from treering_verify.audit.output.store import Store, read_shard

LOG = logging.getLogger("treering_verify.audit")
_ERRORS = "status:error"  # in `rows.count`


@dataclass
class Tally:
    """How far an audit is.

    Attributes
    ----------
    total : int
        Inputs known so far; all of them once `walked`.
    counts : dict
        Inputs with a row, by what it says (`rows.count`).
    resumed : int
        Of these, rows of shards that were finished before.
    """

    total: int = 0
    walked: bool = False
    counts: dict[str, int] = field(default_factory=dict)
    resumed: int = 0

    @property
    def done(self) -> int:
        """Inputs that have a row."""
        return sum(n for label, n in self.counts.items() if label.startswith("status:"))

    def add(self, counts: dict[str, int]) -> None:
        """Count more rows."""
        for label, n in counts.items():
            self.counts[label] = self.counts.get(label, 0) + n


@dataclass
class _Shard:
    chunk: Chunk
    rows: list[Row | None]
    missing: int


class OpenShards:
    """A plan's chunks on their way to shards.

    Parameters
    ----------
    store, plan
    tally : Tally
        Kept up to date.
    watch : callable
        Told how far the audit is, at every `tick`.
    stop : threading.Event, optional
        Once set, `tick` raises KeyboardInterrupt.
    retry_errors : bool
        Open finished shards again for their rows of status "error".
    """

    def __init__(
        self,
        store: Store,
        plan: Plan,
        tally: Tally,
        watch: Callable[[Tally], None],
        stop: threading.Event | None,
        retry_errors: bool = False,
    ) -> None:
        self._store, self._plan, self._tally, self._watch, self._stop = store, plan, tally, watch, stop
        self._retry_errors = retry_errors
        self._open: dict[int, _Shard] = {}
        self._finished: deque[tuple[int, dict[str, int]]] = deque()

    def next_tasks(self) -> list[Task] | None:
        """Tasks of the next chunk for which its shard has no row yet; None after the last chunk.

        Raises
        ------
        Pending
            If the walk has not come to it yet.
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
            kept = [row for row in rows if row is not None]
            self._tally.add(count(kept))
            self._tally.resumed += len(kept)
        self._open[number] = _Shard(chunk, rows, rows.count(None))
        entries = self._plan.read(chunk)
        return [Task(number, place, entries[place]) for place, row in enumerate(rows) if row is None]

    def tick(self) -> None:
        """Tell how far the audit is; KeyboardInterrupt if it is to stop."""
        if self._stop and self._stop.is_set():
            raise KeyboardInterrupt
        self._tally.total, self._tally.walked = self._plan.total, self._plan.complete
        self._watch(self._tally)

    def resumed(self) -> Iterator[int]:
        """Count the shards that were found finished, and yield their numbers."""
        while self._finished:
            number, counts = self._finished.popleft()
            done = self._tally.done
            self._tally.add(counts)
            self._tally.resumed += self._tally.done - done
            yield number

    def settle(self, task: Task, row: Row) -> Iterator[int]:
        """Take the row of a task; yield the number of its shard if that is now written."""
        self._tally.add(count([row]))
        shard = self._open[task.chunk]
        assert shard.rows[task.place] is None
        shard.rows[task.place] = row
        shard.missing -= 1
        if not shard.missing:
            del self._open[task.chunk]
            rows = [row for row in shard.rows if row is not None]
            self._store.write(task.chunk, shard.chunk, rows)
            LOG.info("shard %d: %s", task.chunk, count(rows))
            yield task.chunk
