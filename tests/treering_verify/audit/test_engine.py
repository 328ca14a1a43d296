"""An audit as a whole: every input has one row, and what is finished is not done again."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
from helpers.audits import KEY, audited, essence, fill, stored, summary

import treering_verify as tv
from treering_verify.audit.inputs.plan import Plan
from treering_verify.audit.inputs.sources import Inputs
from treering_verify.audit.judge import judge_batch
from treering_verify.audit.output import store as shards
from treering_verify.audit.output.rows import schema
from treering_verify.benchmark.speed.null_model import NullModel
from treering_verify.errors import UsageError

LEDGER = Path("state") / "shards.jsonl"


@pytest.fixture
def judged(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the list, kept up to date, of the paths that went through the model."""
    seen: list[str] = []

    def counting(judge: Any, readings: Any) -> Any:
        seen.extend(reading.path for reading in readings)
        return judge_batch(judge, readings)

    monkeypatch.setattr("treering_verify.audit.judge.judge_batch", counting)
    return seen


def test_every_input_has_one_row_in_order_and_the_summary_counts_them(tmp_path: Path) -> None:
    paths = fill(tmp_path / "in", 7)
    (tmp_path / "in" / "note.txt").write_text("no image")
    (tmp_path / "in" / "torn.png").write_bytes(Path(paths[0]).read_bytes()[:200])
    (tmp_path / "in" / "link").symlink_to(paths[0])
    (tmp_path / "in" / "cafe\udce9.png").write_bytes(Path(paths[1]).read_bytes())
    output = tmp_path / "out"
    rows = audited(tmp_path / "in", output, shard_rows=4)
    names = [os.path.basename(row.path) for row in rows]
    assert names == [*(os.path.basename(p) for p in paths), "cafe\udce9.png", "link", "note.txt", "torn.png"]
    assert [row.status for row in rows] == ["ok"] * 8 + ["skipped"] * 2 + ["error"]
    assert [p.name for p in shards.shard_files(output)] == [f"rows-00000{i}.parquet" for i in range(3)]
    assert stored(output) == rows
    found = summary(output)
    assert found["finished"] and found["files"] == 11
    assert found["status"] == {"error": 1, "ok": 8, "skipped": 2} and found["verdict"] == {"no evidence": 8}
    assert found["code"] == {"cut_short": 1, "not_an_image": 1, "symlink": 1}
    assert found["expected_false_positives"] == pytest.approx(8e-6)
    assert found["keys"] == [{"name": KEY.name, "fingerprint": KEY.fingerprint}]
    assert {row.settings_id for row in rows} == {found["settings_id"]}
    for path in shards.shard_files(output):
        assert pyarrow.parquet.read_schema(path).remove_metadata().equals(schema())


def test_the_package_offers_it() -> None:
    from treering_verify.audit.folder import audit_folder

    assert tv.audit.audit_folder is audit_folder


def test_without_an_output_nothing_is_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    fill(tmp_path / "in", 3)
    assert len(audited(tmp_path / "in")) == 3
    assert os.listdir(tmp_path / "temporary") == []


def test_images_of_the_same_content_are_judged_once(tmp_path: Path, judged: list[str]) -> None:
    first = fill(tmp_path / "in", 2)
    for i in range(40):
        shutil.copy(first[i % 2], tmp_path / "in" / f"copy-{i:02d}.png")
    rows = audited(tmp_path / "in", tmp_path / "out", shard_rows=5)
    assert judged == first and len(rows) == 42
    assert len({row.sha256 for row in rows}) == len({row.log10_pvalue for row in rows}) == 2


def test_an_empty_folder_is_an_audit_of_nothing(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    assert audited(tmp_path / "in", tmp_path / "out", q_values=True) == []
    assert summary(tmp_path / "out")["files"] == 0 and summary(tmp_path / "out")["finished"]


def test_a_finished_audit_is_not_done_again(tmp_path: Path, judged: list[str]) -> None:
    fill(tmp_path / "in", 5)
    first = audited(tmp_path / "in", tmp_path / "out", shard_rows=2)
    before = {p: p.stat().st_mtime_ns for p in shards.shard_files(tmp_path / "out")}
    judged.clear()
    assert audited(tmp_path / "in", tmp_path / "out", shard_rows=2) == first
    assert judged == [] and {p: p.stat().st_mtime_ns for p in shards.shard_files(tmp_path / "out")} == before


@pytest.mark.parametrize("damage", ["flipped", "cut", "gone", "foreign", "ledger"])
def test_a_damaged_shard_is_done_again_and_no_other(tmp_path: Path, judged: list[str], damage: str) -> None:
    paths = fill(tmp_path / "in", 6)
    output = tmp_path / "out"
    first = audited(tmp_path / "in", output, shard_rows=2)
    victim = output / "rows-000001.parquet"
    data = victim.read_bytes()
    if damage == "flipped":
        victim.write_bytes(data[:100] + bytes([data[100] ^ 1]) + data[101:])
    elif damage == "cut":
        victim.write_bytes(data[:-50])
    elif damage == "gone":
        victim.unlink()
    elif damage == "foreign":
        shutil.copy(output / "rows-000000.parquet", victim)
    else:
        lines = (output / LEDGER).read_bytes().split(b"\n\n")
        (output / LEDGER).write_bytes(b"\n\n".join([lines[0], lines[1][:40], lines[2]]))
    judged.clear()
    assert essence(audited(tmp_path / "in", output, shard_rows=2)) == essence(stored(output)) == essence(first)
    assert sorted(judged) == paths[2:4]


@pytest.mark.parametrize("q_values", [False, True])
def test_errors_are_tried_again_on_request_only_and_nothing_else_is(
    tmp_path: Path, judged: list[str], q_values: bool
) -> None:
    paths = fill(tmp_path / "in", 6)
    whole = Path(paths[3]).read_bytes()
    Path(paths[3]).write_bytes(whole[:200])
    Path(paths[5]).write_bytes(b"no image")  # skipped, which is no error
    output = tmp_path / "out"
    before = audited(tmp_path / "in", output, shard_rows=2, q_values=q_values)
    assert [row.status for row in before] == ["ok", "ok", "ok", "error", "ok", "skipped"]
    times = {p.name: p.stat().st_mtime_ns for p in shards.shard_files(output)}
    Path(paths[3]).write_bytes(whole)
    Path(paths[5]).write_bytes(whole)
    judged.clear()
    unasked = audited(tmp_path / "in", output, shard_rows=2, q_values=q_values)
    assert [replace(row, q_value=None) for row in unasked] == before and judged == []
    again = audited(tmp_path / "in", output, shard_rows=2, q_values=q_values, retry_errors=True)
    again = [replace(row, q_value=None) for row in again]
    assert judged == paths[3:4] and [row.status for row in again] == ["ok"] * 5 + ["skipped"]
    assert [row for row in again if row.path != paths[3]] == [row for row in before if row.path != paths[3]]
    found, kept = summary(output), shards.shard_files(output)
    assert found["status"] == {"ok": 5, "skipped": 1} and found["files"] == 6 and "error" not in found["code"]
    changed = [p.name for p in kept if p.stat().st_mtime_ns != times[p.name]]
    assert changed == ([p.name for p in kept] if q_values else ["rows-000001.parquet"])
    judged.clear()
    assert len(audited(tmp_path / "in", output, shard_rows=2, retry_errors=True)) == 6 and judged == []  # none is left
    if q_values:
        assert all((row.q_value is None) == (row.status != "ok") for row in stored(output))


def test_other_settings_are_refused_by_name_and_overwritten_on_request_only(tmp_path: Path) -> None:
    fill(tmp_path / "in", 2)
    output = tmp_path / "out"
    first = audited(tmp_path / "in", output)
    with pytest.raises(UsageError, match="shard_rows was 1000 and is 5"):
        audited(tmp_path / "in", output, shard_rows=5)
    with pytest.raises(UsageError, match=r"inputs\.paths was .* and is .*--overwrite"):
        audited(tmp_path, output)
    with pytest.raises(UsageError, match=r"alpha was 1e-06 and is 0\.001"):
        list(tv.audit.audit_folder(tmp_path / "in", KEY, model=NullModel(), alpha=1e-3, output=output))
    assert stored(output) == first
    assert len(audited(tmp_path / "in", output, shard_rows=1, overwrite=True)) == 2
    assert len(shards.shard_files(output)) == 2


def test_a_folder_of_something_else_is_never_written_to(tmp_path: Path) -> None:
    fill(tmp_path / "in", 1)
    for overwrite in (False, True):
        with pytest.raises(UsageError, match="something else"):
            audited(tmp_path / "in", tmp_path / "in", overwrite=overwrite)
    assert os.listdir(tmp_path / "in") == ["000000.png"]


def test_the_output_may_lie_in_the_folder(tmp_path: Path) -> None:
    fill(tmp_path / "in", 2)
    for _ in range(2):
        assert len(audited(tmp_path / "in", tmp_path / "in" / "out")) == 2


def test_two_audits_on_one_output_refuse_each_other(tmp_path: Path) -> None:
    with shards.Store(tmp_path / "out", {"a": 1}, "s"), pytest.raises(UsageError, match="another audit"):
        shards.Store(tmp_path / "out", {"a": 1}, "s", overwrite=True)
    with shards.Store(tmp_path / "out", {"a": 1}, "s"):
        pass


def test_q_values_are_those_of_benjamini_and_hochberg(tmp_path: Path, judged: list[str]) -> None:
    fill(tmp_path / "in", 9)
    (tmp_path / "in" / "text").write_text("no image")
    audited(tmp_path / "in", tmp_path / "out", shard_rows=4)
    judged.clear()
    for _ in range(2):
        audited(tmp_path / "in", tmp_path / "out", shard_rows=4, q_values=True)
    rows = stored(tmp_path / "out")
    assert judged == [] and rows[-1].q_value is None
    pvalues = np.array([row.pvalue_adjusted for row in rows[:-1]])
    order = np.argsort(pvalues)
    steps = pvalues[order] * len(pvalues) / np.arange(1, len(pvalues) + 1)
    expected = np.empty_like(pvalues)
    expected[order] = np.minimum(1, np.minimum.accumulate(steps[::-1])[::-1])
    assert [row.q_value for row in rows[:-1]] == pytest.approx(expected)
    assert pyarrow.parquet.read_schema(tmp_path / "out" / "rows-000000.parquet").remove_metadata().equals(schema(True))


# --- what changes between two runs ------------------------------------------------------------------------------------


def test_a_complete_plan_is_frozen_new_files_wait_and_lost_files_get_a_row(tmp_path: Path) -> None:
    paths = fill(tmp_path / "in", 4)
    output = tmp_path / "out"
    audited(tmp_path / "in", output, shard_rows=2)
    shards.shard_files(output)[1].unlink()
    fill(tmp_path / "in", 1, first=99)
    Path(paths[3]).unlink()
    rows = audited(tmp_path / "in", output, shard_rows=2)
    assert [(row.path, row.code) for row in rows] == [*((p, "") for p in paths[:3]), (paths[3], "not_found")]


def test_a_walk_that_was_cut_short_keeps_the_shards_whose_inputs_are_the_same(
    tmp_path: Path, judged: list[str]
) -> None:
    paths = fill(tmp_path / "in", 9)
    output = tmp_path / "out"
    audited(tmp_path / "in", output, shard_rows=3)
    (output / "state" / "plan.json").unlink()  # as if killed during the walk
    for path in paths[4:]:
        Path(path).unlink()
    judged.clear()
    rows = audited(tmp_path / "in", output, shard_rows=3)
    assert [row.path for row in rows] == paths[:4] and judged == paths[3:4]
    assert len(shards.shard_files(output)) == 2  # the third is of inputs that are no more


def test_a_damaged_plan_is_refused(tmp_path: Path) -> None:
    fill(tmp_path / "in", 2)
    audited(tmp_path / "in", tmp_path / "out")
    plan = tmp_path / "out" / "state" / "plan"
    plan.write_bytes(b"x" * plan.stat().st_size)
    shards.shard_files(tmp_path / "out")[0].unlink()
    with pytest.raises(UsageError, match="plan is damaged"):
        audited(tmp_path / "in", tmp_path / "out")


def test_inputs_that_cannot_be_listed_are_refused_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot read the list"):
        audited(Inputs(files_from=(str(tmp_path / "none"),)), tmp_path / "out")


def test_a_plan_says_what_it_holds_while_it_is_made(tmp_path: Path) -> None:
    paths = fill(tmp_path / "in", 5)
    (tmp_path / "state" / "scratch").mkdir(parents=True)
    for _ in range(2):  # made, then read
        with Plan(tmp_path / "state", Inputs((str(tmp_path / "in"),)), 2) as plan:
            found: list[str] = []
            while True:
                if chunk := plan.next_chunk():
                    found += [entry.path for entry in plan.read(chunk[1])]
                elif plan.complete:
                    break
            assert found == paths and plan.total == 5
