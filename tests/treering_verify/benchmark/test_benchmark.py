"""Every benchmark in its quick form on a tiny model with real files, the list of benchmarks, and parts of single ones."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec
from itertools import pairwise, product
from pathlib import Path

import pyarrow.parquet
import pytest
import torch
from click.testing import CliRunner
from helpers.progress import silent
from helpers.stored import check_stored
from treering_detectors import Rate

from treering_verify.benchmark import BENCHMARKS, GROUPS, SHARED, Scope, run, runner
from treering_verify.benchmark.harness import laboratory
from treering_verify.benchmark.harness.memory import peak_memory
from treering_verify.benchmark.harness.scope import SEEDS, truth
from treering_verify.benchmark.paper import classification, heldout
from treering_verify.benchmark.paper.baseline import released_gradient
from treering_verify.benchmark.paper.pareto import area_between
from treering_verify.benchmark.speed import audit, screening
from treering_verify.cli.main import main
from treering_verify.detection.screening import default_screen
from treering_verify.generation.generator import initial_noise
from treering_verify.inversion.decoder import DEFAULTS, invert, unstopped
from treering_verify.inversion.recovery import problem_of
from treering_verify.models import LatentModel, load_model
from treering_verify.report.findings import Findings, Table

# paper/test_page.py tries the parts of the first, "shared" what the second judges by. Other tests measure and store the
# quick forms of the next line, and those of the last with a method of one's own (test_own_methods.py).
SLOW = (
    *("paper", "search-parts"),
    *("peers", "robustness", "survival", "annulus-pareto", "forgery"),
    *("editing", "pareto", "heldout", "detection"),
)
NAMES = [pytest.param(n, marks=pytest.mark.slow) if n in SLOW else n for n in BENCHMARKS if n != "throughput"]


@pytest.mark.parametrize("name", NAMES)
def test_every_benchmark_stores_rows_summary_and_report(
    name: str, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A cluster takes its time to begin: engines are compared on the one that test_audit_cluster.py has.
    monkeypatch.setattr(audit, "has_ray", lambda: False)
    monkeypatch.setattr(laboratory, "QUICK_STEPS", 3)
    groups = classification.paper_groups
    monkeypatch.setattr(classification, "paper_groups", lambda model, each, first: groups(model, 1, first))
    model = load_model(tiny_folder)
    # Enough images for fitting a line and telling keys apart; one where each image is judged many times.
    least = {"cocoercivity": 4, "classification": 4, "shared": 1, "search-parts": 1}
    summary = run(name, model, tmp_path, Scope(silent, quick=True, count=least.get(name, 2)))
    rows = pyarrow.parquet.read_table(tmp_path / f"{name}.parquet")
    assert rows.schema.metadata[b"treering.repeat"].startswith(f"treering benchmark {name} --quick".encode())
    assert (tmp_path / f"{name}.txt").read_text() == summary + "\n"
    for word in ("hardware", "versions", "seeds", "images", "repeat", "model"):
        assert f"\n{word}: " in summary
    check_stored(name, tmp_path)


def test_the_default_screening_pass_judges_all_marked_images_and_the_others_some(
    tiny_model: LatentModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(screening, "_ATTACKS", ("clean", "jpeg:quality=50"))
    monkeypatch.setattr(screening, "_IN_DETAIL", 2)
    monkeypatch.setattr(screening, "_BATCH", 3)
    found = screening.measure(tiny_model, Scope(silent, count=5))
    chosen = default_screen(tiny_model)
    for case in product({row["pass"] for row in found.rows}, ("marked", "unmarked"), ("clean", "jpeg:quality=50")):
        images = [row["image"] for row in found.rows if (row["pass"], row["truth"], row["attack"]) == case]
        assert images == ([0, 1, 2, 3, 4] if case[:2] == (chosen, "marked") else [0, 1])
    of_chosen, of_another = (
        next(line for line in found.tables[0].rows if line[0] == name) for name in (chosen, "inverted")
    )
    trials = [[cell.trials for cell in line if isinstance(cell, Rate)] for line in (of_chosen, of_another)]
    assert (trials[0][0], trials[0][-1], trials[1][0], trials[1][-1]) == (10, 4, 4, 4)


def test_the_provenance_names_the_model_that_was_measured(
    tiny_model: LatentModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = Table("t", ("a",), (("1",),))
    found = Findings("heldout", "?", ({"a": 1},), (line,), model="another", answer="It does.")
    monkeypatch.setattr(heldout, "measure", lambda model, scope: found)
    assert "\nmodel: another\n" in run("heldout", tiny_model, tmp_path, Scope(silent))
    monkeypatch.setattr(heldout, "measure", lambda model, scope: replace(found, model=""))
    assert f"\nmodel: {tiny_model.name}\n" in run("heldout", tiny_model, tmp_path, Scope(silent))


def test_listing_the_benchmarks_imports_none_of_them() -> None:
    modules = {f"treering_verify.benchmark.{benchmark.module}" for benchmark in BENCHMARKS.values()}
    code = "import sys, treering_verify.benchmark as b; b.BENCHMARKS; print(*sys.modules)"
    imported = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "treering_verify.benchmark.catalogue" in imported and not modules & set(imported)


def test_every_benchmark_has_a_module_of_its_own_a_group_and_a_question() -> None:
    assert len({benchmark.module for benchmark in BENCHMARKS.values()}) == len(BENCHMARKS)
    assert {benchmark.group for benchmark in BENCHMARKS.values()} == set(GROUPS)
    assert all(benchmark.question.endswith("?") for benchmark in BENCHMARKS.values())
    assert all(find_spec(f"treering_verify.benchmark.{benchmark.module}") for benchmark in BENCHMARKS.values())
    assert set(SHARED) <= BENCHMARKS.keys()


def test_the_list_shows_each_benchmark_once_with_its_question_and_needs_no_other_option() -> None:
    result = CliRunner().invoke(main, ["benchmark", "--list"])
    assert result.exit_code == 0, result.output
    for name, benchmark in BENCHMARKS.items():
        (line,) = (line for line in result.output.splitlines() if line.startswith(f"  {name} "))
        facts = result.output.splitlines()[result.output.splitlines().index(line) + 1]
        assert benchmark.question in line and benchmark.published in facts and facts.strip().startswith("--quick: ")
    assert "Minutes are those of one processor" in result.output.splitlines()[-1]


def test_no_two_benchmarks_fits_or_calibrations_share_an_image() -> None:
    starts = sorted(SEEDS.values())
    assert all(b - a >= 1 << 24 for a, b in pairwise(starts))
    # torch takes the lower 32 bits of a seed: all of them lie there, above those of users and of what was trained.
    assert starts[0] >= 1 << 31 and starts[-1] + (1 << 24) <= 1 << 32
    noise = initial_noise((1, 4, 4), [start + 5 for start in starts] + [5, (17 << 32) + 5])
    assert len({one.numpy().tobytes() for one in noise}) == len(starts) + 1, "the last two are one"


# --- memory -----------------------------------------------------------------------------------------------------------


def test_peak_memory_sees_what_a_method_holds(tiny_folder: Path) -> None:
    pixels = torch.zeros(1, 3, 128, 128)
    encoder, forward, gradient = (
        peak_memory(str(tiny_folder), pixels, method, DEFAULTS[method])
        for method in ("encoder", "forward-step", "gradient")
    )
    image = 128 * 128 * 4 / 2**20  # of one channel
    assert encoder.tensors > 8 * image  # at least one layer of eight channels at full resolution
    assert forward.tensors < 2 * encoder.tensors + 16 * image
    assert gradient.tensors > 2.5 * forward.tensors  # all activations at once
    assert multiprocessing.active_children() == [] or all(not p.is_alive() for p in multiprocessing.active_children())


# --- the baseline as released -----------------------------------------------------------------------------------------


def test_the_released_baseline_finds_the_same_latent_and_leaves_the_model_alone(tiny_model: LatentModel) -> None:
    pixels = truth(tiny_model, None, [3], steps=2).pixels()
    settings = replace(unstopped(DEFAULTS["gradient"]), iterations=6, step=0.05)
    fair = invert(problem_of(tiny_model, pixels), "gradient", settings)
    assert fair.iterations.tolist() == [6]  # the best iterate is the last, so both answer with the same point
    released = released_gradient(tiny_model, pixels, 6, 0.05)
    torch.testing.assert_close(released, fair.latent, rtol=1e-3, atol=1e-4)
    parts = [part for part in vars(tiny_model).values() if isinstance(part, torch.nn.Module)]
    assert parts and not any(p.requires_grad or p.grad is not None for part in parts for p in part.parameters())


# --- pareto -----------------------------------------------------------------------------------------------------------


def test_the_area_between_curves_is_the_mean_difference_over_log_time() -> None:
    better, worse = [(1.0, -10.0), (10.0, -20.0)], [(1.0, -8.0), (10.0, -12.0), (100.0, -20.0)]
    area, low, high = area_between(better, worse)
    assert (low, high) == pytest.approx((1.0, 100.0))
    assert area == pytest.approx((2 + 8) / 2, abs=0.02)  # 2 dB for one decade, 8 for the next
    back, _, _ = area_between(worse, better)
    assert back == pytest.approx(-area)


def test_an_error_that_rises_again_counts_as_the_lowest_so_far() -> None:
    area, _, _ = area_between([(1.0, -10.0), (2.0, -5.0), (100.0, -5.0)], [(1.0, -10.0), (100.0, -10.0)])
    assert area == pytest.approx(0.0)


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs /proc")
def test_the_time_of_processes_that_still_run_counts() -> None:
    busy = "import time\nwhile time.process_time() < 0.5: pass\nprint(flush=True)\ninput()"
    before = runner._processor_seconds()
    with subprocess.Popen([sys.executable, "-c", busy], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        assert runner._processor_seconds() - before > 0.4
        child.communicate(b"\n")
    assert runner._processor_seconds() - before > 0.4
