"""The engine of audits: walking, reading, judging and writing overlap on one machine; or a cluster judges (`cluster`).

Whatever the number of inputs, memory holds the rows of unfinished shards, one batch, and the inputs that are read ahead.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from treering_verify.audit.batcher import Batcher
from treering_verify.audit.chance import chance_of
from treering_verify.audit.inputs.plan import Plan
from treering_verify.audit.inputs.reader_pool import ReaderPool, Task
from treering_verify.audit.inputs.sources import Inputs
from treering_verify.audit.judge import AuditJudge, shape_of
from treering_verify.audit.options import Options
from treering_verify.audit.output import cache as cache_module
from treering_verify.audit.output.cache import Cache
from treering_verify.audit.output.feature_sample import FeatureSample
from treering_verify.audit.output.open_shards import OpenShards, Tally
from treering_verify.audit.output.rows import Row
from treering_verify.audit.output.store import Store
from treering_verify.audit.settings import facts_of, settings_id_of, settings_of, summary_of
from treering_verify.audit.sketches import Sketcher, Sketches
from treering_verify.detection.exhibits import FOLDER, Kept, KeptFolder
from treering_verify.errors import UsageError
from treering_verify.models import makes_videos

LOG = logging.getLogger("treering_verify.audit")
_PATIENCE = 2.0  # seconds without a reading after which a batch is judged that is not full


def run_audit(
    inputs: Inputs,
    judge: AuditJudge,
    output: Path,
    options: Options | None = None,
    watch: Callable[[Tally], None] = lambda tally: None,
    stop: threading.Event | None = None,
    with_chance: bool = True,
    publish: Callable[[], None] = lambda: None,
) -> Generator[int, None, None]:
    """Audit inputs into a folder of results, or continue an audit there that was interrupted.

    Parameters
    ----------
    inputs : Inputs
    judge : AuditJudge
    output : Path
        Folder of results; see `store.Store`.
    options : Options, optional
    watch : callable
        Called often with the progress so far.
    stop : threading.Event, optional
        Once set, the audit ends at the next batch with KeyboardInterrupt; what is judged is written.
    with_chance : bool
        Whether the summary says what chance alone would detect; see `chance.chance_of`.
    publish : callable
        Called now and then, from the first rows on, when the rows and the summary on disk have changed.

    Yields
    ------
    int
        The number of a shard that is on disk now, or was there already. Shards may be finished out of order.

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
        earlier = store.summary()
        before = earlier.get("seconds", 0.0)
        tally, sketcher = Tally(), Sketcher.of(judge.indexes)

        def summarise(finished: bool, chance: dict[str, Any] | None = None) -> None:
            seconds = before + time.perf_counter() - started
            content = summary_of(settings, inputs, judge, tally.counts, seconds, finished, options.q_values)
            store.write_summary(content | (chance or {}))

        def written() -> None:
            summarise(False)
            publish()

        summarise(False)  # so that no older summary calls the audit finished if this run is killed
        LOG.info("settings %s, output %s", judge.settings_id, output)
        shards: OpenShards | None = None
        try:
            with Plan(store.state, inputs, options.shard_rows, store.folder, makes_videos(judge.model)) as plan:
                shards = OpenShards(store, plan, tally, watch, stop, options.retry_errors, written)
                if options.engine == "ray":
                    from treering_verify.audit.cluster.run import ClusterRun

                    yield from ClusterRun(judge, options, shards, store.state).shards()
                else:
                    digest, folder = sketcher.digest, KeptFolder(store.state / FOLDER, judge.settings_id)
                    with Cache(store.state, judge.settings_id) as cache, FeatureSample(store.state, digest) as sample:
                        sketches = Sketches(sketcher, judge.settings_id, sample.add) if with_chance else None
                        keeping = replace(judge, sketches=sketches, kept=Kept(judge.settings_id, folder.put))
                        yield from _Run(keeping, options, shards, cache).shards()
                store.forget_beyond(len(plan.chunks))
            if options.q_values:
                store.add_q_values()
            cache_module.remove(store.state)
            summarise(True, chance_of(store, judge, sketcher.digest, tally, earlier) if with_chance else None)
        except BaseException as error:
            LOG.info("ended early: %s", type(error).__name__)
            for _ in range(2):  # the interrupt that ended the batch may come while this is written, once
                with contextlib.suppress(UsageError, KeyboardInterrupt):
                    if shards:
                        shards.write_parts()
                    summarise(False)
                    break
            raise
        LOG.info("finished: %s", tally.counts)


class _Run:
    """One run on this machine. The readers' thread takes the tasks; everything else happens in the caller's thread."""

    def __init__(self, judge: AuditJudge, options: Options, shards: OpenShards, cache: Cache) -> None:
        self._limits, self._shape, self._shards = options.limits, shape_of(judge.model), shards
        self._pages = bool(judge.judge.targets)
        self._tasks: deque[Task] = deque()
        self._batcher = Batcher(
            judge,
            options.batch_size,
            lambda pairs: [cache.find(reading) for _, reading in pairs],
            lambda rows: cache.add(row for row in rows if row.status == "ok"),
        )

    def shards(self) -> Iterator[int]:
        """Audit all inputs, and yield the numbers of finished shards; see `run_audit`."""
        with ReaderPool(self._next_task, self._shape, self._limits, self._pages) as readers:
            for found in readers.results(self._shards.tick, _PATIENCE):
                yield from self._shards.resumed()
                yield from self._settle(self._batcher.take(*found) if found else self._batcher.drain())
                readers.ahead = 2 * self._batcher.batch_size + 2 * self._limits.processes
            yield from self._settle(self._batcher.drain())
        yield from self._shards.resumed()
        self._shards.tick()

    def _next_task(self) -> Task | None:
        while not self._tasks:
            tasks = self._shards.next_tasks()
            if tasks is None:
                return None
            self._tasks.extend(tasks)
        return self._tasks.popleft()

    def _settle(self, rows: Iterator[tuple[Task, Row]]) -> Iterator[int]:
        for task, row in rows:
            yield from self._shards.settle(task, row)
