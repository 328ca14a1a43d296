"""What a cluster's workers do with their blocks, and what they know of each other; without Ray."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from helpers.audits import KEY, audited, essence, fill

from treering_verify.audit import engine, options
from treering_verify.audit import judge as judging
from treering_verify.audit.cluster.coordinator import TWIN, Coordinator
from treering_verify.audit.cluster.worker import Worker, WorkerOptions, block_of, reading_of, rows_of_answer, tasks_of
from treering_verify.audit.inputs.reader_pool import Limits, Task
from treering_verify.audit.inputs.reading import Reading
from treering_verify.audit.inputs.sources import Entry
from treering_verify.audit.judge import AuditJudge, row_of
from treering_verify.audit.output.rows import Row
from treering_verify.benchmark.speed.null_model import NULL_INVERSION, NullModel
from treering_verify.detection.exhibits import FOLDER, MOST, Rank
from treering_verify.errors import ModelError, UsageError

JUDGE = AuditJudge.of(KEY, NullModel(), 1e-6, NULL_INVERSION, search="auto")  # as `audited` has it
OPTIONS = WorkerOptions(Limits(readers=1), 4, os.getcwd())


@pytest.fixture
def coordinator(tmp_path: Path) -> Iterator[Coordinator]:
    (tmp_path / "state").mkdir()
    coordinator = Coordinator(tmp_path / "state", "settings")
    yield coordinator
    coordinator.close()


@pytest.fixture
def workers() -> Iterator[list[Worker]]:
    """Return a list; the readers of what is put there are ended."""
    made: list[Worker] = []
    yield made
    for worker in made:
        worker.close()


def reading(content: str) -> Reading:
    return Reading(content, "ok", sha256=hashlib.sha256(content.encode()).hexdigest(), bytes=1)


def row(content: str, **facts: Any) -> Row:
    return row_of(JUDGE, reading(content), **facts)


def tasks(paths: Sequence[str]) -> list[Task]:
    return [Task(3, place, Entry(path)) for place, path in enumerate(paths)]


def judged(worker: Worker, some: Sequence[Task]) -> dict[str, Row]:
    (answer,) = worker(block_of(some))["answer"]
    rows = dict(rows_of_answer(answer))
    assert len(rows) == len(some)
    return {task.entry.path: rows[task[:2]] for task in some}


# --- the coordinator --------------------------------------------------------------------------------------------------


def test_what_was_begun_and_not_ended_has_a_strike(coordinator: Coordinator) -> None:
    places = [(0, 0), (0, 1), (1, 0)]
    assert [s.strikes for s in coordinator.enter(places)] == [0, 0, 0]
    coordinator.begin(places)
    coordinator.end(places[:1])
    assert [s.strikes for s in coordinator.enter(places)] == [0, 1, 1]
    coordinator.begin(places[1:2])
    assert [s.strikes for s in coordinator.enter(places)] == [0, 2, 1]


def test_a_content_is_judged_for_one_input_and_then_known_to_all(coordinator: Coordinator) -> None:
    assert coordinator.claim([((0, 0), reading("a")), ((0, 1), reading("b"))]) == [None, None]
    assert coordinator.claim([((5, 0), reading("a"))]) == [TWIN]
    assert coordinator.claim([((0, 0), reading("a"))]) == [None]  # the same input again: its worker died
    coordinator.add([row("a", statistic=0.25)])
    assert coordinator.claim([((5, 0), replace(reading("a"), path="twin"))]) == [
        replace(row("a", statistic=0.25), path="twin", settings_id="settings")
    ]


def test_what_failed_is_known_too_and_is_not_cached_for_another_run(coordinator: Coordinator, tmp_path: Path) -> None:
    coordinator.claim([((0, 0), reading("a"))])
    coordinator.add([row("a", status="error", code="model_failed")])
    (found,) = coordinator.claim([((5, 0), reading("a"))])
    assert isinstance(found, Row) and found.code == "model_failed"
    coordinator.close()
    with closing(Coordinator(tmp_path / "state", "settings")) as another:
        assert another.claim([((5, 0), reading("a"))]) == [None]


def test_claims_can_be_dropped(coordinator: Coordinator) -> None:
    coordinator.claim([((0, 0), reading("a"))])
    coordinator.release()
    assert coordinator.claim([((5, 0), reading("a"))]) == [None]


def test_after_a_halt_no_worker_gets_anything(coordinator: Coordinator) -> None:
    coordinator.halt()
    for call in (lambda: coordinator.enter([(0, 0)]), lambda: coordinator.claim([((0, 0), reading("a"))])):
        with pytest.raises(UsageError, match="stopped"):
            call()
    coordinator.add([row("a")])  # rows of current batches are stored


def test_of_detected_images_the_strongest_and_the_weakest_are_kept(coordinator: Coordinator, tmp_path: Path) -> None:
    """More than reports show are offered, in any order; a worker hears what need not be sent."""
    ranks = [Rank(-float(n), -float(n), f"{n:064x}") for n in range(1, MOST + 7)]
    for rank in (ranks[i] for i in range(len(ranks) // 2)):
        assert coordinator.keep(rank, b"content") is None
    for rank in reversed(ranks[len(ranks) // 2 :]):
        gap = coordinator.keep(rank, b"content")
    left = {path.stem for path in (tmp_path / "state" / FOLDER).iterdir()}
    half = MOST // 2
    assert left == {rank.sha256 for rank in (*ranks[:half], *ranks[-half:])}
    assert gap == (ranks[-half], ranks[half - 1])


# --- a worker ---------------------------------------------------------------------------------------------------------


def test_a_block_survives_the_journey() -> None:
    some = [
        Task(1, 2, Entry("/a/cafe\udce9.png")),
        Task(1, 3, Entry("s3://b/c", True)),
        Task(9, 0, Entry("x", code="y")),
    ]
    assert tasks_of(block_of(some)) == some


def test_a_reading_survives_in_its_row() -> None:
    assert asdict(reading_of(row("a"))) == asdict(reading("a"))


def test_a_worker_gives_the_rows_of_the_local_engine(
    tmp_path: Path, coordinator: Coordinator, workers: list[Worker]
) -> None:
    paths = fill(tmp_path / "in", 9)
    shutil.copy(paths[0], tmp_path / "in" / "copy.png")
    (tmp_path / "in" / "torn.png").write_bytes(Path(paths[0]).read_bytes()[:200])
    (tmp_path / "in" / "zz").write_text("no image")
    local = audited(tmp_path / "in")
    workers.append(Worker(lambda: JUDGE, coordinator, OPTIONS))
    some = tasks([row.path for row in local])
    for _ in range(2):  # the second time the answers are known
        found = judged(workers[0], some)
        rows = [replace(found[row.path], settings_id=row.settings_id) for row in local]
        assert essence(rows) == essence(local)


def test_an_image_that_another_worker_judges_is_left_to_it(
    tmp_path: Path, coordinator: Coordinator, workers: list[Worker]
) -> None:
    paths = fill(tmp_path / "in", 2)
    shutil.copy(paths[0], tmp_path / "in" / "copy.png")
    copy = Task(7, 0, Entry(str(tmp_path / "in" / "copy.png")))
    workers += [Worker(lambda: JUDGE, coordinator, OPTIONS), Worker(lambda: JUDGE, coordinator, OPTIONS)]
    digest = hashlib.sha256(Path(paths[0]).read_bytes()).hexdigest()
    coordinator.claim([((3, 0), Reading(paths[0], "ok", sha256=digest))])
    twin = judged(workers[1], [copy])[copy.entry.path]
    assert (twin.status, twin.code, twin.sha256, twin.path) == ("ok", TWIN, digest, copy.entry.path)
    assert coordinator.answers([reading_of(twin)]) == [None]
    first = judged(workers[0], tasks(paths))[paths[0]]
    (answer,) = coordinator.answers([reading_of(twin)])
    assert answer is not None and (answer.log10_pvalue, answer.path) == (first.log10_pvalue, copy.entry.path)


def test_an_input_that_ended_two_workers_is_left_alone_and_no_other(
    tmp_path: Path, coordinator: Coordinator, workers: list[Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = fill(tmp_path / "in", 6)
    deadly, groups = paths[4], []
    judge_batch = judging.judge_batch

    def dying(judge: AuditJudge, readings: Sequence[Reading]) -> list[Row]:
        groups.append([reading.path for reading in readings])
        if deadly in groups[-1]:
            raise SystemExit  # where the process would have ended
        return judge_batch(judge, readings)

    monkeypatch.setattr(judging, "judge_batch", dying)
    some = tasks(paths)
    for _ in range(2):
        workers.append(Worker(lambda: JUDGE, coordinator, OPTIONS))
        with pytest.raises(SystemExit):
            judged(workers[-1], some)
    workers.append(Worker(lambda: JUDGE, coordinator, OPTIONS))
    rows = judged(workers[-1], some)
    assert {path: row.code for path, row in rows.items() if row.status != "ok"} == {deadly: "worker_died"}
    assert [group for group in groups if deadly in group][1:] == [[deadly]]  # in company once, then alone, then no more
    copy = Task(7, 0, Entry(shutil.copy(deadly, tmp_path / "copy.png")))
    assert judged(workers[-1], [copy])[copy.entry.path].code == "worker_died"  # its content is known


def test_what_ends_an_audit_comes_back_as_it_was_raised(
    tmp_path: Path, coordinator: Coordinator, workers: list[Worker]
) -> None:
    some = tasks(fill(tmp_path / "in", 1))
    workers.append(Worker(lambda: JUDGE, coordinator, replace(OPTIONS, version="0")))
    with pytest.raises(UsageError, match="install the same"):
        judged(workers[-1], some)
    workers.append(Worker(lambda: JUDGE, coordinator, replace(OPTIONS, folder=str(tmp_path / "none"))))
    assert judged(workers[-1], some)[some[0].entry.path].status == "ok"
    with pytest.raises(UsageError, match="absolute"):
        judged(workers[-1], tasks(["relative.png"]))
    with pytest.raises(ModelError, match="why"):
        rows_of_answer('{"model": "why"}')


# --- the option -------------------------------------------------------------------------------------------------------


def test_without_ray_the_engine_is_refused_with_the_way_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(options, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pip install 'treering-verify\[ray\]'"):
        engine.Options(engine="ray")
    with pytest.raises(UsageError, match="choose one of local, ray"):
        engine.Options(engine="spark")
