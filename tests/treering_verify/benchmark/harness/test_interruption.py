"""Benchmarks that are interrupted report what they have measured, and resume."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow.parquet
import pytest
from click.testing import CliRunner
from helpers.progress import silent

import treering_verify.benchmark
import treering_verify.models
from treering_verify.benchmark import BENCHMARKS, DOCS, BenchmarkInterrupted, Scope, Shown, run
from treering_verify.benchmark.harness.interruption import findings_of_rows
from treering_verify.cli.main import main
from treering_verify.models import LatentModel, load_model
from treering_verify.report.findings import Findings


class Interrupting:
    """A progress in whose block Ctrl-C comes after a number of steps."""

    def __init__(self, after: int) -> None:
        self.left, self.said = after, list[str]()

    @contextmanager
    def __call__(self, what: str, total: int) -> Iterator[Callable[[], None]]:
        self.said.append(f"{what} {total}")

        def advance() -> None:
            self.left -= 1
            if not self.left:
                raise KeyboardInterrupt

        yield advance


def later(name: str, after: int, folder: Path, tmp_path: Path) -> str:
    with pytest.raises(BenchmarkInterrupted) as stopped:
        run(name, load_model(folder), tmp_path, Scope(Interrupting(after), quick=True, count=4))
    return stopped.value.summary


# How many steps come before there is something to report; the first two in every run of the tests, the others in long ones.
STEPS = {"cocoercivity": 2, "agreement": 9}
MORE = {
    "ablation": 3,
    "heldout": 6,
    "noise": 4,
    "editing": 3,
    "readout": 14,
    "detection": 14,
    "coverage": 12,
    "shared": 10,
}
MORE |= {"classifier": 60, "identification": 9, "patterns": 3, "annulus-pareto": 2, "quality": 4, "throughput": 2}
MORE |= {"screening": 1}


@pytest.mark.parametrize(
    ("name", "after"), [*STEPS.items(), *(pytest.param(*case, marks=pytest.mark.slow) for case in MORE.items())]
)
def test_an_interrupted_benchmark_reports_what_it_has(name: str, after: int, tiny_folder: Path, tmp_path: Path) -> None:
    summary = later(name, after, tiny_folder, tmp_path)
    assert "\npartial: interrupted at " in summary
    assert pyarrow.parquet.read_table(tmp_path / f"{name}.parquet").num_rows > 0
    record = json.loads((tmp_path / f"{name}.json").read_text())
    assert record["facts"]["partial"] and any(table["rows"] for table in record["tables"])
    assert "PARTIAL: interrupted at" in (tmp_path / f"{name}.md").read_text()


def test_what_was_measured_before_an_interruption_is_not_measured_again(
    tiny_model: LatentModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[int] = []

    def measure(model: LatentModel, scope: Scope) -> Findings:
        with scope.progress("Images", 4) as advance:
            for i in range(4):
                scope.keep(
                    scope.cached("one", i, lambda i=i: measured.append(i) or [{"text": "a", "image": i, "x": 2.0 * i}])
                )
                advance()
        return findings_of_rows("noise", "?", scope.rows)

    monkeypatch.setattr(type(BENCHMARKS["noise"]), "measure", lambda self, model, scope: measure(model, scope))
    with pytest.raises(BenchmarkInterrupted):
        run("noise", tiny_model, tmp_path, Scope(Interrupting(2)))
    assert pyarrow.parquet.read_table(tmp_path / "noise.parquet")["image"].to_pylist() == [0, 1]
    assert "partial" not in run("noise", tiny_model, tmp_path, Scope(Interrupting(9)))
    assert measured == [0, 1, 2, 3]
    assert pyarrow.parquet.read_table(tmp_path / "noise.parquet").to_pylist()[3] == {"text": "a", "image": 3, "x": 6.0}


def test_cached_measurements_of_other_code_are_not_used(
    tiny_model: LatentModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from treering_verify.benchmark.harness import code_digests

    with pytest.raises(BenchmarkInterrupted):
        run("agreement", tiny_model, tmp_path, Scope(Interrupting(9), quick=True, count=2))
    (first,) = (tmp_path / "cache").iterdir()
    monkeypatch.setattr(code_digests, "code_digests", lambda names: {"inversion.noise": "another"})
    with pytest.raises(BenchmarkInterrupted):
        run("agreement", tiny_model, tmp_path, Scope(Interrupting(9), quick=True, count=2))
    folders = set((tmp_path / "cache").iterdir())
    assert len(folders) == 2 and len({len(list(folder.glob("*.npz"))) for folder in folders}) == 1 and first in folders


def test_an_interruption_before_anything_is_measured_leaves_no_report(tiny_model: LatentModel, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt) as stopped:
        run("detection", tiny_model, tmp_path, Scope(Interrupting(1), quick=True, count=2))
    assert not isinstance(stopped.value, BenchmarkInterrupted) and not list(tmp_path.glob("detection.*"))


def test_an_error_is_not_taken_for_an_interruption(
    tiny_model: LatentModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: object, model: LatentModel, scope: Scope) -> Findings:
        scope.keep([{"a": 1}])
        raise ZeroDivisionError

    monkeypatch.setattr(type(BENCHMARKS["noise"]), "measure", fail)
    with pytest.raises(ZeroDivisionError):
        run("noise", tiny_model, tmp_path, Scope(Interrupting(9)))


def test_rows_alone_become_a_table_of_means() -> None:
    rows = [{"method": "a", "image": i, "error": float(i), "found": i > 0} for i in range(3)]
    (table,) = findings_of_rows("noise", "?", rows).tables
    assert table.header == ("method", "rows", "error", "found")
    (line,) = table.rows
    assert line[:2] == ("a", 3) and str(line[2]).startswith("1.00") and str(line[3]).startswith("0.67")


# --- the command ------------------------------------------------------------------------------------------------------


def test_the_command_prints_the_partial_report_and_ends_with_130(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*arguments: object) -> str:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)
        raise AssertionError

    def stopped(*arguments: object) -> str:
        try:
            return stop()
        except KeyboardInterrupt:
            raise BenchmarkInterrupted("what there is") from None

    monkeypatch.setattr(treering_verify.models, "load_model", lambda source: object())
    monkeypatch.setattr(treering_verify.benchmark, "run", stopped)
    result = CliRunner().invoke(main, ["benchmark", "noise", "--output", str(tmp_path)])
    assert result.exit_code == 130 and "what there is\n" in result.output and "Interrupted." in result.output


def test_the_preset_says_how_long_it_takes_and_leaves_finished_benchmarks_alone(
    tiny_model: LatentModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[tuple[str, int | None, bool]] = []
    monkeypatch.setattr(treering_verify.models, "load_model", lambda source: tiny_model)
    monkeypatch.setitem(DOCS, "agreement", Shown(2, 1.0))
    monkeypatch.setitem(DOCS, "quality", Shown(3, 61.0, quick=True))
    for name in set(DOCS) - {"agreement", "quality"}:
        monkeypatch.delitem(DOCS, name)
    run("agreement", tiny_model, tmp_path, Scope(silent, count=2))
    monkeypatch.setattr(
        treering_verify.benchmark, "run", lambda name, m, o, scope: ran.append((name, scope.count, scope.quick)) or ""
    )
    asked = ["benchmark", "all", "--preset", "docs", "--output", str(tmp_path)]
    result = CliRunner().invoke(main, asked)
    assert ran == [("quality", 3, True)]
    assert "finished already: agreement. To run: quality 61 min; together 61 min of one processor." in result.output
    monkeypatch.setitem(DOCS, "agreement", Shown(4, 1.0))
    assert CliRunner().invoke(main, asked).exit_code == 0 and ran[1:] == [("agreement", 4, False), ("quality", 3, True)]
    monkeypatch.setitem(DOCS, "agreement", Shown(2, 1.0, quick=True))
    assert "To run: agreement" in CliRunner().invoke(main, asked).output, "the result there is not of the quick form"
    refused = CliRunner().invoke(main, [*asked, "--quick"])
    assert refused.exit_code == 2 and "--preset sets the number of images" in refused.output
