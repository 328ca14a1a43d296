"""One run on a cluster: Ray Data deals blocks of inputs out to workers, and this process puts their rows into shards.

Shards are written, and audits continued, as by the local engine (`open_shards`, `store`). Ray's part is small: blocks of
inputs go to an autoscaling pool of actors, and a block whose actor died is handed out again. The `coordinator` counts which
inputs end workers, because Ray would try them without end.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from treering_verify.audit.cluster.coordinator import TWIN, Coordinator
from treering_verify.audit.cluster.ray_session import Remote, Stream, connected, quiet, reported
from treering_verify.audit.cluster.worker import Worker, WorkerOptions, block_of, reading_of, rows_of_answer
from treering_verify.audit.inputs.reader_pool import Pending, Task
from treering_verify.audit.judge import AuditJudge
from treering_verify.audit.output.cache import row_of_twin
from treering_verify.audit.output.open_shards import OpenShards
from treering_verify.audit.output.rows import Row
from treering_verify.audit.sketches import Sketcher

if TYPE_CHECKING:
    from treering_verify.audit.options import Options

LOG = logging.getLogger("treering_verify.audit")
_ROUND = 50_000  # inputs dealt out at a time; memory holds their names and the rows of unfinished shards
_BLOCKS = (16, 256)  # fewest and most inputs in a block, which a worker gets at a time and repeats if it dies
_BLOCKS_EACH = 4  # for each worker in a round, so that all end at about the same time
_TICK = 0.05


class ClusterRun:
    """One run on the cluster that this process is connected to, or RAY_ADDRESS names, or on a new local one.

    Parameters
    ----------
    judge : AuditJudge
    options : Options
    shards : OpenShards
    state : Path
        Folder of the cached answers, on this machine; workers need no access to it.
    """

    def __init__(self, judge: AuditJudge, options: Options, shards: OpenShards, state: Path) -> None:
        self._judge, self._options, self._shards, self._state = judge, options, shards, state
        self._twins: list[tuple[Task, Row]] = []  # their images are being judged for other inputs

    def shards(self) -> Iterator[int]:
        """Audit all inputs, and yield the numbers of finished shards; see `engine.run_audit`."""
        tasks = yield from self._next_round()
        if tasks:
            with connected(), reported(), quiet():
                self._set_up()
                while tasks:
                    yield from self._round(tasks)
                    again = [task for task, _ in self._twins]  # the equal image has no row: its file was replaced
                    self._twins = []
                    self._coordinator.release()
                    tasks = again or (yield from self._next_round())
                self._coordinator.close()
        self._shards.tick()

    def _next_round(self) -> Generator[int, None, list[Task]]:
        tasks: list[Task] = []
        while len(tasks) < _ROUND:
            self._shards.tick()
            try:
                more = self._shards.next_tasks()
            except Pending:
                time.sleep(_TICK)
                continue
            yield from self._shards.resumed()
            if more is None:
                break
            tasks += more
        return tasks

    def _set_up(self) -> None:
        """Start the coordinator on this machine, and put the judge into Ray's object store."""
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        actor = ray.remote(num_cpus=0, scheduling_strategy=here)(Coordinator)
        made_by = Sketcher.of(self._judge.indexes).digest
        self._coordinator: Any = Remote(actor.remote(str(self._state.absolute()), self._judge.settings_id, made_by))
        resources = ray.cluster_resources()
        self._gpus = int(resources.get("GPU", 0))
        self._slots = self._gpus or max(1, int(resources.get("CPU", 1)) // self._options.worker_cpus)
        self._judge_reference = ray.put(replace(self._judge, device="cuda" if self._gpus else "cpu"))
        LOG.info("cluster: %s", {name: n for name, n in sorted(resources.items()) if name in ("CPU", "GPU")})

    def _round(self, tasks: Sequence[Task]) -> Iterator[int]:
        by_place = {task[:2]: task for task in tasks}
        for answer in self._answers(tasks):
            for place, row in rows_of_answer(answer):
                task = by_place.pop(place)
                if row.status == "ok" and row.code == TWIN:
                    self._twins.append((task, row))
                else:
                    yield from self._shards.settle(task, row)
            yield from self._settle_twins()
        assert not by_place

    def _settle_twins(self) -> Iterator[int]:
        if not self._twins:
            return
        twins, self._twins = self._twins, []
        found = self._coordinator.answers([reading_of(row) for _, row in twins])
        for (task, row), answer in zip(twins, found, strict=True):
            if answer:
                yield from self._shards.settle(task, row_of_twin(reading_of(row), answer))
            else:
                self._twins.append((task, row))

    def _answers(self, tasks: Sequence[Task]) -> Iterator[str]:
        """Deal inputs out, and yield the workers' answers as they arrive."""
        import ray.data

        fewest, most = _BLOCKS
        size = min(most, max(fewest, -(-len(tasks) // (_BLOCKS_EACH * self._slots))))
        blocks = [block_of(tasks[i : i + size]) for i in range(0, len(tasks), size)]
        limits = self._options.limits
        if not (limits.readers or self._gpus):
            limits = replace(limits, readers=1)  # the pool has a worker for each processor
        judge_reference, coordinator = self._judge_reference, self._coordinator
        worker_options = WorkerOptions(limits, self._options.batch_size, os.getcwd())
        answers = ray.data.from_arrow(blocks).map_batches(
            RayWorker,
            fn_constructor_args=([judge_reference], coordinator, worker_options),
            batch_size=None,
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(min_size=1),
            num_cpus=self._options.worker_cpus,
            num_gpus=1 if self._gpus else None,
        )
        batches = answers.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)
        with Stream(lambda: batches, coordinator.halt) as stream:
            for batch in stream.batches(self._shards.tick):
                yield from batch.column("answer").to_pylist()


class RayWorker(Worker):
    """A worker that is a Ray actor. It fetches its judge from Ray's object store.

    The judge's reference comes in a list, because Ray replaces a reference that is an argument itself by its object.
    """

    def __init__(self, judge_reference: list[Any], coordinator: Coordinator, worker_options: WorkerOptions) -> None:
        import ray

        super().__init__(lambda: ray.get(judge_reference[0]), coordinator, worker_options)
