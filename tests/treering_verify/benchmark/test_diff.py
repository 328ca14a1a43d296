"""Two folders of results are compared: noise is not reported, a method that was made worse is."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from click.testing import CliRunner
from helpers.progress import silent

import treering_verify
from treering_verify.benchmark import Scope, compare, format_comparison, run
from treering_verify.benchmark.harness import laboratory
from treering_verify.benchmark.paper import ablation
from treering_verify.benchmark.published_figures import ABLATION
from treering_verify.cli.main import main
from treering_verify.errors import UsageError
from treering_verify.models import LatentModel

Rows = list[dict[str, Any]]


def store(folder: Path, rows: Rows, name: str = "noise", **facts: Any) -> Path:
    folder.mkdir(exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), folder / f"{name}.parquet")
    whole = {"seeds": "1", "weights": "w", "hardware": "h", "partial": "", **facts}
    (folder / f"{name}.json").write_text(json.dumps({"facts": whole}))
    return folder


def rows_of(errors: dict[str, Any], **columns: Any) -> Rows:
    return [
        {"method": method, "image": i, "error_db": float(error), **columns}
        for method, values in errors.items()
        for i, error in enumerate(values)
    ]


def reported(old: Path, new: Path) -> list[tuple[str, str, int]]:
    return [(d.group, d.value, d.better) for d in compare(old, new).differences if d.counts]


def test_two_runs_report_nothing_and_a_method_that_was_made_worse_is_named(
    tiny_model: LatentModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    some = {label: ABLATION[label] for label in ("forward-step", "inertial-km")}
    monkeypatch.setattr(ablation, "ABLATION", some)
    monkeypatch.setattr(laboratory, "QUICK_STEPS", 3)
    scope = Scope(silent, quick=True, count=10)
    for folder in ("one", "two"):
        run("ablation", tiny_model, tmp_path / folder, scope)
    same = compare(tmp_path / "one", tmp_path / "two")
    assert len(same.differences) == len(some) and not any(one.counts for one in same.differences)
    worse = tmp_path / "worse"
    shutil.copytree(tmp_path / "one", worse)
    table = pyarrow.parquet.read_table(worse / "ablation.parquet")
    rows = [row | {"nmse_db": row["nmse_db"] + (row["optimiser"] == "inertial-km")} for row in table.to_pylist()]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows, schema=table.schema), worse / "ablation.parquet")
    found = reported(tmp_path / "one", worse)
    assert {(group.split(",")[0], better) for group, _, better in found} == {("inertial-km", -1)}
    text = format_comparison(compare(worse, tmp_path / "one"))
    assert text.startswith("Better") and "inertial-km" in text and "10 pairs" in text


def git(folder: Path, *arguments: str) -> None:
    who = ("-c", "user.name=tests", "-c", "user.email=tests@localhost", "-c", "commit.gpgsign=false")
    subprocess.run(["git", *who, *arguments], cwd=folder, check=True, capture_output=True)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_of_two_commits_one_of_which_was_made_worse_that_method_is_named(tiny_folder: Path, tmp_path: Path) -> None:
    code, package = tmp_path / "code", Path(treering_verify.__file__).parent
    shutil.copytree(package, code / package.name, ignore=shutil.ignore_patterns("__pycache__"))
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(code), *sys.path])}
    git(code, "init")
    for commit, file, old, new in (
        ("good", "benchmark/harness/laboratory.py", "QUICK_STEPS = 20", "QUICK_STEPS = 3"),
        ("worse", "inversion/decoder/baselines.py", "z = y - rho * r", "z = 2 * (y - rho * r)"),
    ):
        edited = code / package.name / file
        text = edited.read_text()
        assert text.count(old) == 1
        edited.write_text(text.replace(old, new))
        git(code, "add", ".")
        git(code, "commit", "-m", commit)
        options = ["--quick", "--count", "10", "--model", str(tiny_folder), "--output", str(tmp_path / commit)]
        command = [sys.executable, "-m", "treering_verify", "benchmark", "ablation", *options]
        subprocess.run(command, cwd=code, env=environment, check=True, capture_output=True)
    facts = [json.loads((tmp_path / name / "ablation.json").read_text())["facts"] for name in ("good", "worse")]
    assert facts[0]["commit"] != facts[1]["commit"] != "" and not any(one["changed"] for one in facts)
    found = reported(tmp_path / "good", tmp_path / "worse")
    assert {(group.split(",")[0], better) for group, _, better in found} == {("inertial-km", -1)}


@pytest.mark.parametrize(("shift", "sign"), [(3.0, -1), (-3.0, 1), (0.0, 0)])
def test_numbers_of_the_same_images_are_compared_in_pairs(tmp_path: Path, shift: float, sign: int) -> None:
    rng = np.random.default_rng(1)
    base, noise = 20 * rng.standard_normal(20), rng.standard_normal(20)
    old = store(tmp_path / "old", rows_of({"a": base, "b": base}))
    new = store(tmp_path / "new", rows_of({"a": base + shift + noise, "b": base + noise[::-1]}))
    assert reported(old, new) == ([("a", "error_db", sign)] if sign else [])
    (first, _) = compare(old, new).differences
    assert first.paired and first.count == 20


def test_other_images_are_not_paired(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    old = store(tmp_path / "old", rows_of({"a": rng.standard_normal(20)}))
    new = store(tmp_path / "new", rows_of({"a": rng.standard_normal(20) + 3}), seeds="2")
    (one,) = compare(old, new).differences
    assert not one.paired and one.counts and one.better == -1


@pytest.mark.parametrize(("truth", "better"), [("marked", 1), ("unmarked", -1)])
def test_what_is_found_more_often_is_better_only_where_there_is_a_mark(tmp_path: Path, truth: str, better: int) -> None:
    folders = []
    for name, found in (("old", 0), ("new", 12)):
        rows = [{"truth": truth, "image": i, "verdict": "detected" if i < found else "no evidence"} for i in range(20)]
        folders.append(store(tmp_path / name, rows))
    (one,) = compare(*folders).differences
    assert one.counts and one.better == better and one.change in ("12 gained, 0 lost", "12 gained, 0 lost")


def test_small_p_values_of_unmarked_images_count_and_their_size_does_not(tmp_path: Path) -> None:
    folders = []
    for p in (-0.1, -1.5, -2.5):
        folders.append(
            store(tmp_path / str(p), [{"truth": "unmarked", "image": i, "log10_pvalue": p} for i in range(20)])
        )
    assert reported(*folders[:2]) == []
    assert reported(folders[0], folders[2]) == [("unmarked", "false positive: p <= 0.01", -1)]


@pytest.mark.parametrize(
    ("ratio", "reference", "better"), [(1.1, 1.0, 0), (2.0, 1.0, -1), (0.5, 1.0, 1), (2.0, 2.0, 0), (1.0, 2.0, 1)]
)
def test_times_count_by_their_ratio_to_the_reference_of_each_run(
    tmp_path: Path, ratio: float, reference: float, better: int
) -> None:
    times = 1 + 0.01 * np.arange(10)
    folders = []
    for name, scale, speed in (("old", 1.0, 1.0), ("new", ratio, reference)):
        rows = [{"method": "a", "image": i, "seconds": float(s * scale)} for i, s in enumerate(times)]
        folders.append(store(tmp_path / name, rows, reference_ms=[speed, 1.01 * speed, 1.02 * speed]))
    assert reported(*folders) == ([("a", "seconds", better)] if better else [])


def test_one_time_of_a_whole_batch_is_no_sample(tmp_path: Path) -> None:
    folders = [store(tmp_path / str(s), rows_of({"a": range(5)}, seconds=s)) for s in (1.0, 9.0)]
    assert [one.value for one in compare(*folders).differences] == ["error_db"]


def test_many_comparisons_are_corrected_together(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    noise = {f"m{i}": rng.standard_normal(10) for i in range(200)}
    other = {name: values + rng.standard_normal(10) for name, values in noise.items()}
    folders = store(tmp_path / "old", rows_of(noise)), store(tmp_path / "new", rows_of(other))
    assert reported(*folders) == []


def test_the_command_names_partial_results_other_weights_and_what_only_one_folder_has(tmp_path: Path) -> None:
    old = store(tmp_path / "old", rows_of({"a": range(5)}))
    new = store(tmp_path / "new", rows_of({"a": range(5)}), partial="interrupted at images 2 of 4", weights="x")
    store(new, [], "editing")
    result = CliRunner().invoke(main, ["benchmark", "diff", str(old), str(new)])
    assert result.exit_code == 0, result.output
    assert "0 of 1 differences are beyond noise" in result.output
    for said in (
        "is partial: interrupted at images 2 of 4",
        "noise: weights differ: w and x",
        f"only in {new}: editing",
    ):
        assert said in result.output


def test_folders_without_a_common_result_are_an_error(tmp_path: Path) -> None:
    old, new = store(tmp_path / "old", [], "noise"), store(tmp_path / "new", [], "editing")
    with pytest.raises(UsageError, match="no result in common"):
        compare(old, new)
