"""Batches of readings: cached answers are looked up, images of equal content are judged once, and batches are filled.

Every engine has a batcher where its model is: the local one in its process, a cluster's in each worker.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from treering_verify.audit.inputs.reader_pool import Task
from treering_verify.audit.inputs.reading import Reading
from treering_verify.audit.judge import AuditJudge, Batching, row_of
from treering_verify.audit.output.cache import row_of_twin
from treering_verify.audit.output.rows import Row
from treering_verify.models import makes_videos

_WAITING = 4  # batches' worth of inputs that may wait for one batch, most of them repeated images
Pair = tuple[Task, Reading]


class Batcher:
    """Turns readings into rows, each with its task.

    Parameters
    ----------
    judge : AuditJudge
    batch_size : int, optional
        Found by trying if None; videos are judged one by one.
    find : callable
        Returns for each of some readings its cached row, or None if its content has to be judged.
    add : callable
        Receives the rows that were judged, whatever their status.
    """

    def __init__(
        self,
        judge: AuditJudge,
        batch_size: int | None,
        find: Callable[[Sequence[Pair]], Sequence[Row | None]],
        add: Callable[[Sequence[Row]], None],
    ) -> None:
        self._judge, self._find, self._add = judge, find, add
        self._batching = Batching(batch_size or (1 if makes_videos(judge.model) else None))
        self._waiting: dict[str, list[Pair]] = {}  # by SHA-256: the first is judged, the others get its row
        self._unasked: list[str] = []

    @property
    def batch_size(self) -> int:
        """The batch size in use now."""
        return self._batching.size

    def take(self, task: Task, reading: Reading) -> Iterator[tuple[Task, Row]]:
        """Accept a reading, and yield the rows that are ready now: none, its own, or a batch's."""
        if reading.pixels is None or reading.sha256 is None:
            yield task, row_of(self._judge, reading)
            return
        if reading.sha256 in self._waiting:
            self._waiting[reading.sha256].append((task, replace(reading, pixels=None, page=None)))
        else:
            self._waiting[reading.sha256] = [(task, reading)]
            self._unasked.append(reading.sha256)
        if self._is_full():
            yield from self._look_up()
            if self._is_full():
                yield from self._batch()

    def drain(self) -> Iterator[tuple[Task, Row]]:
        """Judge all that waits, and yield the rows."""
        yield from self._look_up()
        while self._waiting:
            yield from self._batch()

    def _is_full(self) -> bool:
        size = self._batching.size
        return len(self._waiting) >= size or sum(map(len, self._waiting.values())) >= _WAITING * size

    def _look_up(self) -> Iterator[tuple[Task, Row]]:
        digests, self._unasked = self._unasked, []
        if not digests:
            return
        for digest, row in zip(digests, self._find([self._waiting[d][0] for d in digests]), strict=True):
            if row:
                for task, reading in self._waiting.pop(digest):
                    yield task, row_of_twin(reading, row)

    def _batch(self) -> Iterator[tuple[Task, Row]]:
        groups = [self._waiting.pop(digest) for digest in list(self._waiting)[: self._batching.size]]
        judged = self._batching.judge(self._judge, [group[0][1] for group in groups])
        self._add(judged)
        for group, row in zip(groups, judged, strict=True):
            yield group[0][0], row
            for task, reading in group[1:]:
                yield task, row_of_twin(reading, row)
