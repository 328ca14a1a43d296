"""Several processes share a measurement: nothing is measured twice or left out, and killed processes release their locks."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from helpers.progress import silent
from helpers.stored import check_stored

from treering_verify.benchmark import Scope, run, run_shared
from treering_verify.benchmark.harness.cache import cached
from treering_verify.benchmark.harness.unmarked_images import UnmarkedImages, draw_unmarked
from treering_verify.benchmark.harness.workers import Helped, Share, Taken, claimed, end_with_parent
from treering_verify.cli.main import main
from treering_verify.models import LatentModel, ModelSource

SPAWN = multiprocessing.get_context("spawn")


def hold(folder: Path, held: Any, done: Any) -> None:
    """Measure what is called `x`, slowly."""

    def measure() -> dict[str, Any]:
        held.set()
        done.wait(60)
        return {"by": np.array([os.getpid()])}

    cached(folder, "x", 1, measure)


def help_for_long(folder: Path, held: Any) -> None:
    """Hold number 1 of the folder, as a helper does."""
    end_with_parent()
    with claimed(folder, 1):
        held.set()
        time.sleep(60)
        (folder / "slept").touch()


def lead(folder: Path, held: Any) -> None:
    """Start a helper, and wait for it."""
    helper = SPAWN.Process(target=help_for_long, args=(folder, held))
    helper.start()
    helper.join()


def mine() -> dict[str, Any]:
    return {"by": np.array([os.getpid()])}


@pytest.fixture
def other(tmp_path: Path) -> Any:
    """Another process that measures `x` in the folder, its event to let it end, and the folder."""
    held, done = SPAWN.Event(), SPAWN.Event()
    process = SPAWN.Process(target=hold, args=(tmp_path, held, done), daemon=True)
    process.start()
    assert held.wait(60)
    yield process, done, tmp_path
    process.kill()
    process.join()


def steps_of(folder: Path, said: list[str]) -> list[Callable[[], object]]:
    def step(name: str) -> Callable[[], object]:
        def work() -> None:
            cached(folder, name, 1, mine)
            said.append(name)

        return work

    return [step(name) for name in ("w", "x", "y", "z")]


def test_what_another_process_measures_is_skipped_and_later_waited_for(other: Any) -> None:
    process, done, folder = other
    said: list[str] = []
    Share(0, 2).work(steps_of(folder, said), lambda: None)
    assert said == ["w", "y", "z"]
    with claimed(folder, 3):  # numbers are held one by one
        done.set()
        assert cached(folder, "x", 1, mine)["by"] == process.pid  # waits, now that nothing else is left
    assert cached(folder, "w", 1, lambda: {})["by"] == os.getpid()


def test_what_a_killed_process_was_measuring_is_measured_by_another(other: Any) -> None:
    process, _, folder = other
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert cached(folder, "x", 1, mine)["by"] == os.getpid()
    assert not list(folder.glob("*.tmp*"))


def test_a_helper_ends_when_the_process_that_started_it_is_killed(tmp_path: Path) -> None:
    held = SPAWN.Event()
    leader = SPAWN.Process(target=lead, args=(tmp_path, held))
    leader.start()
    assert held.wait(60)
    assert leader.pid is not None
    os.kill(leader.pid, signal.SIGKILL)
    with claimed(tmp_path, 1):  # waits for the helper
        assert not (tmp_path / "slept").exists()


def test_each_process_begins_at_another_step_and_a_helper_reports_nothing(tmp_path: Path) -> None:
    said: list[str] = []
    with pytest.raises(Helped):
        Share(1, 2).work(steps_of(tmp_path, said), lambda: None)
    assert said == ["y", "z", "w", "x"]

    def taken() -> None:
        raise Taken

    advanced: list[int] = []
    Share(0, 2).work([taken, taken], lambda: advanced.append(1))
    assert len(advanced) == 2


def test_a_shared_benchmark_finds_what_one_process_finds(
    tiny_model: LatentModel, tiny_folder: Path, tmp_path: Path
) -> None:
    scope = Scope(silent, quick=True, count=2)
    together = run_shared("annulus-pareto", ModelSource(str(tiny_folder)), tmp_path, scope, 2)
    assert " 2 x " in together and "--workers 2" in together
    found, shown = pq.read_table(tmp_path / "annulus-pareto.parquet"), (tmp_path / "cache").stat().st_mtime_ns
    assert found["pattern"].to_pylist() == ["unmarked", "random", "rings"] and found["judged"].to_pylist() == [0, 2, 2]
    alone = run("annulus-pareto", tiny_model, tmp_path, scope)
    assert "--workers" not in alone and (tmp_path / "cache").stat().st_mtime_ns == shown  # nothing was left to measure
    assert pq.read_table(tmp_path / "annulus-pareto.parquet").equals(found)
    check_stored("annulus-pareto", tmp_path)


def test_what_cannot_be_shared_is_refused_before_anything_is_measured(tmp_path: Path) -> None:
    asked = [
        "benchmark",
        "annulus-pareto",
        "throughput",
        "--quick",
        "--workers",
        "2",
        "--output",
        str(tmp_path / "out"),
    ]
    result = CliRunner().invoke(main, asked)
    assert result.exit_code == 2 and "throughput cannot be shared among processes" in result.output
    assert not (tmp_path / "out").exists()


def test_unmarked_images_can_be_drawn_in_any_order(tiny_model: LatentModel) -> None:
    everyone = list(draw_unmarked(tiny_model, 24, 7, attacked=False))
    crowd = UnmarkedImages(tiny_model, 24, 7)
    for which in (range(16, 24), range(3), range(0, 16)):
        some = crowd.some(which)
        assert [one.kind for one in some] == [one.kind for one in everyone[which.start : which.stop]]
        assert [one.image.tobytes() for one in some] == [
            one.image.tobytes() for one in everyone[which.start : which.stop]
        ]
    assert len(crowd.some(range(20, 40))) == 4  # as many as there are
