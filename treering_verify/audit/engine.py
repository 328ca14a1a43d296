"""The local engine: walking, reading, judging and writing overlap, on one machine.

Only one chunk of rows per shard in work, one batch, and what is read ahead are in memory, whatever the number of inputs.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from treering_verify.audit import cache as cache_module
from treering_verify.audit.cache import Cache, row_of_twin
from treering_verify.audit.judging import Batching, Judge, row_of
from treering_verify.audit.plan import Chunk, Plan
from treering_verify.audit.readers import Limits, Pending, Readers, Task
from treering_verify.audit.reading import Reading
from treering_verify.audit.rows import Row, count
from treering_verify.audit.settings import facts_of, settings_id_of, settings_of, summary_of
from treering_verify.audit.shards import Store
from treering_verify.audit.sources import Inputs
from treering_verify.errors import UsageError

LOG = logging.getLogger("treering_verify.audit")
_WAITING = 4  # batches' worth of inputs that may wait for one batch, most of them repeated pictures


@dataclass(frozen=True)
class Options:
    """How an audit is run; none of it changes a verdict.

    Attributes
    ----------
    limits : Limits
    batch_size : int, optional
        Found by trying where it is None.
    shard_rows : int
        Rows in a shard; must be the same when an audit goes on.
    q_values : bool
        Benjamini-Hochberg over files, as a second pass at the end.
    overwrite : bool
        Throw away what an earlier audit left in the output.
    """

    limits: Limits = field(default_factory=Limits)
    batch_size: int | None = None
    shard_rows: int = 1000
    q_values: bool = False
    overwrite: bool = False

    def __post_init__(self) -> None:
        if self.shard_rows < 1 or (self.batch_size is not None and self.batch_size < 1):
            raise UsageError("a shard has 1 row or more, and a batch 1 image or more")


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


def run_audit(
    inputs: Inputs,
    judge: Judge,
    output: Path,
    options: Options | None = None,
    watch: Callable[[Tally], None] = lambda tally: None,
    stop: threading.Event | None = None,
) -> Generator[int, None, None]:
    """Audit inputs into a folder of results, and go on where an earlier run was ended.

    Parameters
    ----------
    inputs : Inputs
    judge : Judge
    output : Path
        See `shards.Store`.
    options : Options, optional
    watch : callable
        Told how far the audit is, often.
    stop : threading.Event, optional
        Once set, the audit ends at the next batch with KeyboardInterrupt; what is finished is kept.

    Yields
    ------
    int
        The number of a shard, once it is on disk or found to be there. Shards may be finished out of order.

    Raises
    ------
    UsageError
        If the output cannot be used or written, or the inputs cannot be listed.
    ModelError
        If the model fails on one image after another.
    KeyboardInterrupt
        If it was stopped.
    """
    options = options or Options()
    settings = settings_of(judge)
    judge = replace(judge, settings_id=settings_id_of(settings))
    started = time.perf_counter()
    with Store(output, facts_of(settings, inputs, options.shard_rows), judge.settings_id, options.overwrite) as store:
        before = store.summary().get("seconds", 0.0)
        tally = Tally()

        def summarise(finished: bool) -> None:
            seconds = before + time.perf_counter() - started
            store.write_summary(summary_of(settings, inputs, judge, tally.counts, seconds, finished, options.q_values))

        summarise(False)  # a run that is killed leaves no older claim that all is finished
        LOG.info("settings %s, output %s", judge.settings_id, output)
        try:
            with Plan(store.state, inputs, options.shard_rows, store.folder) as plan:
                with Cache(store.state, judge.settings_id) as cache:
                    yield from _Run(judge, options, store, plan, cache, tally, watch, stop).shards()
                store.forget_beyond(len(plan.chunks))
            if options.q_values:
                store.add_q_values()
            cache_module.remove(store.state)
            summarise(True)
        except BaseException as error:
            LOG.info("ended early: %s", type(error).__name__)
            with contextlib.suppress(UsageError):
                summarise(False)
            raise
        LOG.info("finished: %s", tally.counts)


class _Run:
    """One run over a plan. Tasks are taken by the readers' thread, everything else happens in the caller's."""

    def __init__(
        self,
        judge: Judge,
        options: Options,
        store: Store,
        plan: Plan,
        cache: Cache,
        tally: Tally,
        watch: Callable[[Tally], None],
        stop: threading.Event | None,
    ) -> None:
        self._judge, self._options, self._store, self._plan = judge, options, store, plan
        self._cache, self._tally, self._watch, self._stop = cache, tally, watch, stop
        self._tasks: deque[Task] = deque()
        self._open: dict[int, _Shard] = {}
        self._finished: deque[tuple[int, dict[str, int]]] = deque()
        self._waiting: dict[
            str, list[tuple[Task, Reading]]
        ] = {}  # by content: the first is judged, the others take its row
        self._batching = Batching(options.batch_size)

    def shards(self) -> Iterator[int]:
        """Do the work; see `run_audit`."""
        with Readers(self._next_task, self._judge.model.image_size, self._options.limits) as readers:
            for task, reading in readers.results(self._tick):
                yield from self._resumed()
                yield from self._take(task, reading)
                size = self._batching.size
                if len(self._waiting) >= size or sum(map(len, self._waiting.values())) >= _WAITING * size:
                    yield from self._flush()
                    readers.ahead = 2 * self._batching.size + 2 * self._options.limits.processes
            while self._waiting:
                yield from self._flush()
        yield from self._resumed()
        self._tick()

    def _next_task(self) -> Task | None:
        while not self._tasks:
            found = self._plan.next_chunk()
            if found is None:
                if self._plan.complete:
                    return None
                raise Pending
            number, chunk = found
            counts = self._store.finished(number, chunk)
            if counts is not None:
                self._finished.append((number, counts))
                continue
            self._open[number] = _Shard(chunk, [None] * chunk.rows, chunk.rows)
            self._tasks.extend(Task(number, place, entry) for place, entry in enumerate(self._plan.read(chunk)))
        return self._tasks.popleft()

    def _tick(self) -> None:
        if self._stop and self._stop.is_set():
            raise KeyboardInterrupt
        self._tally.total, self._tally.walked = self._plan.total, self._plan.complete
        self._watch(self._tally)

    def _resumed(self) -> Iterator[int]:
        while self._finished:
            number, counts = self._finished.popleft()
            done = self._tally.done
            self._tally.add(counts)
            self._tally.resumed += self._tally.done - done
            yield number

    def _take(self, task: Task, reading: Reading) -> Iterator[int]:
        if reading.pixels is None or reading.sha256 is None:
            yield from self._settle(task, row_of(self._judge, reading))
        elif reading.sha256 in self._waiting:
            self._waiting[reading.sha256].append((task, replace(reading, pixels=None)))
        elif known := self._cache.find(reading):
            yield from self._settle(task, known)
        else:
            self._waiting[reading.sha256] = [(task, reading)]

    def _flush(self) -> Iterator[int]:
        """Judge one batch of what waits."""
        size = self._batching.size
        groups = [self._waiting.pop(digest) for digest in list(self._waiting)[:size]]
        judged = self._batching.judge(self._judge, [group[0][1] for group in groups])
        self._cache.add(row for row in judged if row.status == "ok")
        for group, row in zip(groups, judged, strict=True):
            yield from self._settle(group[0][0], row)
            for task, reading in group[1:]:
                yield from self._settle(task, row_of_twin(reading, row))
        self._tick()

    def _settle(self, task: Task, row: Row) -> Iterator[int]:
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
