"""A worker of a cluster: it reads in reader processes of its own, and judges, one block of inputs after another.

It knows nothing of Ray. A block arrives as a table of inputs; the answer is one text, the rows in JSON.
"""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from treering_verify.audit.batcher import Batcher, Pair
from treering_verify.audit.cluster.coordinator import TWIN, Attempts, Coordinator
from treering_verify.audit.inputs.reader_pool import STRIKES, Limits, Pending, ReaderPool, Task
from treering_verify.audit.inputs.reading import Reading, refused
from treering_verify.audit.inputs.sources import Entry
from treering_verify.audit.judge import AuditJudge, row_of, shape_of
from treering_verify.audit.output.rows import Row
from treering_verify.audit.sketches import Sketcher, Sketches
from treering_verify.detection.exhibits import Kept
from treering_verify.errors import ModelError, TreeringError, UsageError
from treering_verify.files import printable
from treering_verify.models import movable
from treering_verify.version import __version__

if TYPE_CHECKING:
    import pyarrow


@dataclass(frozen=True)
class WorkerOptions:
    """Options of a worker, beside its judge and its coordinator.

    Attributes
    ----------
    limits : Limits
    batch_size : int, optional
    folder : str
        Folder where relative paths begin.
    version : str
        Version of this package on the machine that started the audit.
    """

    limits: Limits
    batch_size: int | None = None
    folder: str = ""
    version: str = __version__


class Worker:
    """Judges one block of inputs after another.

    Parameters
    ----------
    judge : callable
        Returns the judge; its model is then moved to its device.
    coordinator : Coordinator
        The coordinator, or a proxy of it.
    worker_options : WorkerOptions
    """

    def __init__(
        self, judge: Callable[[], AuditJudge], coordinator: Coordinator, worker_options: WorkerOptions
    ) -> None:
        self._coordinator, self._options = coordinator, worker_options
        own = on_its_device(judge())
        sketches = Sketches(Sketcher.of(own.indexes), own.settings_id, coordinator.sample)
        self._judge = replace(own, sketches=sketches, kept=Kept(own.settings_id, coordinator.keep))
        self._readers: ReaderPool | None = None  # started once; they end with the worker
        self._restart()

    def _restart(self) -> None:
        self.close()
        self._tasks: deque[Task] = deque()
        self._batcher = Batcher(self._judge, self._options.batch_size, self._claim, self._coordinator.add)

    def close(self) -> None:
        """End the reader processes."""
        if self._readers:
            self._readers.__exit__()
            self._readers = None

    def __call__(self, block: pyarrow.Table) -> dict[str, list[str]]:
        """Judge a block, and return the answer, which `rows_of_answer` reads."""
        try:
            answer: Any = [[task[:2], asdict(row)] for task, row in self._rows(tasks_of(block))]
        except TreeringError as error:  # as a value, because Ray would wrap and print an exception
            self._restart()
            answer = {"model" if isinstance(error, ModelError) else "usage": str(error)}
        return {"answer": [json.dumps(answer)]}

    def _rows(self, tasks: Sequence[Task]) -> Iterable[tuple[Task, Row]]:
        self._check_machine(tasks)
        unsuspected: list[Task] = []
        suspects: list[Task] = []
        for task, attempts in zip(tasks, self._coordinator.enter([task[:2] for task in tasks]), strict=True):
            if attempts.strikes >= STRIKES:
                yield task, self._given_up(task, attempts)
            else:
                (suspects if attempts.strikes else unsuspected).append(task)
        for group in [unsuspected, *([task] for task in suspects)]:  # suspects one by one, to see which it was
            if group:
                self._coordinator.begin([task[:2] for task in group])
                yield from self._judged(group)
                self._coordinator.end([task[:2] for task in group])

    def _given_up(self, task: Task, attempts: Attempts) -> Row:
        row = row_of(self._judge, refused(task.entry.path, "worker_died", sha256=attempts.sha256))
        self._coordinator.add([row])
        return row

    def _judged(self, group: Sequence[Task]) -> Iterable[tuple[Task, Row]]:
        if self._readers is None:
            shape, pages = shape_of(self._judge.model), bool(self._judge.judge.targets)
            self._readers = ReaderPool(self._next_task, shape, self._options.limits, pages)
            self._readers.__enter__()
        self._tasks.extend(group)
        readings = self._readers.results(lambda: None)
        for _ in group:
            found = next(readings)
            assert found is not None  # its patience has no end
            yield from self._batcher.take(*found)
            self._readers.ahead = 2 * self._batcher.batch_size + 2 * self._options.limits.processes
        yield from self._batcher.drain()

    def _next_task(self) -> Task:
        try:
            return self._tasks.popleft()
        except IndexError:
            raise Pending from None

    def _claim(self, pairs: Sequence[Pair]) -> list[Row | None]:
        images = [(task[:2], replace(reading, pixels=None, page=None)) for task, reading in pairs]
        found = self._coordinator.claim(images)
        return [
            row_of(self._judge, reading, code=TWIN) if row == TWIN else row
            for (_, reading), row in zip(pairs, found, strict=True)
        ]

    def _check_machine(self, tasks: Sequence[Task]) -> None:
        """Raise UsageError if this machine lacks the version or the folder of the one that started the audit."""
        if self._options.version != __version__:
            raise UsageError(
                f"a node has treering-verify {__version__}, not {self._options.version}: install the same on all"
            )
        folder = Path(self._options.folder)
        if Path.cwd() != folder and not all(task.entry.url or os.path.isabs(task.entry.path) for task in tasks):
            try:
                os.chdir(folder)
            except OSError as error:
                raise UsageError(
                    f"a node has no folder {printable(str(folder))}, where relative paths begin: name inputs by absolute "
                    "paths on a file system that all nodes share, or by URLs"
                ) from error


def on_its_device(judge: AuditJudge) -> AuditJudge:
    """Move the networks of a judge's model to the judge's device."""
    if movable(judge.model) and judge.model.device != judge.device:
        judge.model.to(judge.device)
    return judge


def block_of(tasks: Sequence[Task]) -> pyarrow.Table:
    """Return inputs as a table, with paths as the bytes of the file system."""
    import pyarrow as pa

    return pa.table(
        {
            "chunk": pa.array([task.chunk for task in tasks], pa.int64()),
            "place": pa.array([task.place for task in tasks], pa.int64()),
            "path": pa.array([os.fsencode(task.entry.path) for task in tasks], pa.binary()),
            "url": pa.array([task.entry.url for task in tasks], pa.bool_()),
            "code": pa.array([task.entry.code for task in tasks], pa.string()),
        }
    )


def tasks_of(block: pyarrow.Table) -> list[Task]:
    """Return the inputs of a table."""
    return [
        Task(item["chunk"], item["place"], Entry(os.fsdecode(item["path"]), item["url"], item["code"]))
        for item in block.to_pylist()
    ]


def rows_of_answer(answer: str) -> list[tuple[tuple[int, int], Row]]:
    """Return the rows of a block with their places.

    A row of status "ok" and code `coordinator.TWIN` stands for an image that is judged for another input with equal content.

    Raises
    ------
    ModelError, UsageError
        The error that ended the worker's work.
    """
    found = json.loads(answer)
    if isinstance(found, dict):
        ((kind, message),) = found.items()
        raise (ModelError if kind == "model" else UsageError)(message)
    return [((chunk, place), Row(**fields)) for (chunk, place), fields in found]


def reading_of(row: Row) -> Reading:
    """Return the reading that a row was made from, without pixels."""
    names = ("path", "status", "sha256", "bytes", "width", "height", "mode", "seconds")
    return Reading(**{name: getattr(row, name) for name in names})
