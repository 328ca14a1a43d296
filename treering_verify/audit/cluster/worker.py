"""A worker of a cluster: it reads in reader processes of its own, and judges, one block of inputs after another.

It knows nothing of Ray. A block comes as a table of inputs and goes as one text, the rows in JSON.
"""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from treering_verify.audit.batcher import Flow, Pair
from treering_verify.audit.cluster.coordinator import TWIN, Desk, Standing
from treering_verify.audit.inputs.read import Reading, refused
from treering_verify.audit.inputs.reader_pool import STRIKES, Limits, Pending, Readers, Task
from treering_verify.audit.inputs.sources import Entry
from treering_verify.audit.judge import AuditJudge, row_of, shape_of
from treering_verify.audit.output.rows import Row
from treering_verify.errors import ModelError, TreeringError, UsageError
from treering_verify.files import printable
from treering_verify.models import movable
from treering_verify.version import __version__

if TYPE_CHECKING:
    import pyarrow


@dataclass(frozen=True)
class Duty:
    """What a worker is told, beside the judge and the desk.

    Attributes
    ----------
    limits : Limits
    batch_size : int, optional
    folder : str
        Where relative paths begin.
    version : str
        The driver's.
    """

    limits: Limits
    batch_size: int | None = None
    folder: str = ""
    version: str = __version__


class Worker:
    """Judges blocks.

    Parameters
    ----------
    judge : callable
        Gives the judge, once: a model is moved to its device here.
    desk : Desk
        Or what passes calls on to it.
    duty : Duty
    """

    def __init__(self, judge: Callable[[], AuditJudge], desk: Desk, duty: Duty) -> None:
        self._judge, self._desk, self._duty = on_its_device(judge()), desk, duty
        self._readers: Readers | None = None  # once started, for as long as the worker lives: they end when it does
        self._begin_anew()

    def _begin_anew(self) -> None:
        self.close()
        self._tasks: deque[Task] = deque()
        self._flow = Flow(self._judge, self._duty.batch_size, self._claim, self._desk.add)

    def close(self) -> None:
        """End the reader processes."""
        if self._readers:
            self._readers.__exit__()
            self._readers = None

    def __call__(self, block: pyarrow.Table) -> dict[str, list[str]]:
        """AuditJudge a block; `rows_of_answer` reads what comes out."""
        try:
            answer: Any = [[task[:2], asdict(row)] for task, row in self._rows(tasks_of(block))]
        except TreeringError as error:  # as a value: Ray would wrap the exception, and print it at length
            self._begin_anew()
            answer = {"model" if isinstance(error, ModelError) else "usage": str(error)}
        return {"answer": [json.dumps(answer)]}

    def _rows(self, tasks: Sequence[Task]) -> Iterable[tuple[Task, Row]]:
        self._settle_in(tasks)
        unstruck: list[Task] = []
        suspects: list[Task] = []
        for task, standing in zip(tasks, self._desk.enter([task[:2] for task in tasks]), strict=True):
            if standing.strikes >= STRIKES:
                yield task, self._given_up(task, standing)
            else:
                (suspects if standing.strikes else unstruck).append(task)
        for group in [unstruck, *([task] for task in suspects)]:  # suspects one by one, to see which it was
            if group:
                self._desk.begin([task[:2] for task in group])
                yield from self._judged(group)
                self._desk.end([task[:2] for task in group])

    def _given_up(self, task: Task, standing: Standing) -> Row:
        row = row_of(self._judge, refused(task.entry.path, "worker_died", sha256=standing.sha256))
        self._desk.add([row])
        return row

    def _judged(self, group: Sequence[Task]) -> Iterable[tuple[Task, Row]]:
        if self._readers is None:
            self._readers = Readers(self._next_task, shape_of(self._judge.model), self._duty.limits)
            self._readers.__enter__()
        self._tasks.extend(group)
        readings = self._readers.results(lambda: None)
        for _ in group:
            yield from self._flow.take(*next(readings))
            self._readers.ahead = 2 * self._flow.batch_size + 2 * self._duty.limits.processes
        yield from self._flow.drain()

    def _next_task(self) -> Task:
        try:
            return self._tasks.popleft()
        except IndexError:
            raise Pending from None

    def _claim(self, pairs: Sequence[Pair]) -> list[Row | None]:
        images = [(task[:2], replace(reading, pixels=None)) for task, reading in pairs]
        found = self._desk.claim(images)
        return [
            row_of(self._judge, reading, code=TWIN) if row == TWIN else row
            for (_, reading), row in zip(pairs, found, strict=True)
        ]

    def _settle_in(self, tasks: Sequence[Task]) -> None:
        """Check that this machine can do what the driver's could."""
        if self._duty.version != __version__:
            raise UsageError(
                f"a node has treering-verify {__version__}, not {self._duty.version}: install the same on all"
            )
        folder = Path(self._duty.folder)
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
    """Table of inputs; paths as the bytes that the file system has."""
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
    """Give the inputs of a table."""
    return [
        Task(item["chunk"], item["place"], Entry(os.fsdecode(item["path"]), item["url"], item["code"]))
        for item in block.to_pylist()
    ]


def rows_of_answer(answer: str) -> list[tuple[tuple[int, int], Row]]:
    """Rows of a block by their places; those of status "ok" and code `desk.TWIN` are judged for another input.

    Raises
    ------
    ModelError, UsageError
        What ended the worker's work.
    """
    found = json.loads(answer)
    if isinstance(found, dict):
        ((kind, message),) = found.items()
        raise (ModelError if kind == "model" else UsageError)(message)
    return [((chunk, place), Row(**fields)) for (chunk, place), fields in found]


def reading_of(row: Row) -> Reading:
    """Make the reading that a row was made from, without pixels."""
    names = ("path", "status", "sha256", "bytes", "width", "height", "mode", "seconds")
    return Reading(**{name: getattr(row, name) for name in names})
