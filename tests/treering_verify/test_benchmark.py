"""Every benchmark in its quick form on a tiny model with real files, and the parts that its figures rest on."""

from __future__ import annotations

import importlib
import json
import math
import multiprocessing
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from html import escape
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
import torch

from detectors import Mean, Rate
from treering_verify.benchmark import BENCHMARKS, Scope, run
from treering_verify.benchmark.baseline import released_gradient
from treering_verify.benchmark.classification import _paper_groups
from treering_verify.benchmark.inversion import _attacked
from treering_verify.benchmark.kept import kept
from treering_verify.benchmark.laboratory import Clock, Laboratory
from treering_verify.benchmark.memory import peak_memory
from treering_verify.benchmark.pareto import area_between
from treering_verify.benchmark.paths import Path as Followed
from treering_verify.benchmark.paths import decibels, follow
from treering_verify.benchmark.scope import SEEDS, truth
from treering_verify.benchmark.variants import Variant, attacked, own, published
from treering_verify.decoder_inversion import DEFAULTS, default_method, invert, unstopped
from treering_verify.findings import Cloud, Curve, Curves, Figure, Findings, Matrix, Table
from treering_verify.first_pass import default_look
from treering_verify.models import LatentModel, load_model
from treering_verify.models.refiner import Refiner
from treering_verify.models.weights import fingerprint
from treering_verify.recovery import problem_of
from treering_verify.report import Provenance, draw_figure, format_cell, store_findings
from treering_verify.report.pictures import _draw_curves

PROVENANCE = Provenance("treering benchmark x --output DIR", "tiny", "a machine", "some versions", "2026-01-01")


@contextmanager
def silent(what: str, total: int) -> Iterator[Callable[[], None]]:
    """Progress that counts, and holds a benchmark to what it announced."""
    done = 0

    def advance() -> None:
        nonlocal done
        done += 1

    yield advance
    assert done == total, f"{what}: announced {total}, advanced {done}"


@pytest.mark.parametrize("name", [n for n in BENCHMARKS if n != "throughput"])
def test_every_benchmark_stores_rows_summary_and_report(name: str, tiny_folder: Path, tmp_path: Path) -> None:
    model = load_model(tiny_folder)
    least = {"cocoercivity": 4, "classification": 4}  # images for a line to be fitted, and for keys to be told apart
    summary = run(name, model, tmp_path, Scope(silent, quick=True, count=least.get(name, 2)))
    rows = pyarrow.parquet.read_table(tmp_path / f"{name}.parquet")
    assert rows.num_rows > 0
    assert rows.schema.metadata[b"treering.repeat"].startswith(f"treering benchmark {name} --quick".encode())
    assert (tmp_path / f"{name}.txt").read_text() == summary + "\n"
    for word in ("hardware", "versions", "seeds", "images", "repeat", "model"):
        assert f"\n{word}: " in summary
    html = (tmp_path / "report.html").read_text()
    for row in json.loads((tmp_path / f"{name}.section.json").read_text())["tables"]:
        assert row["header"] and all(len(line) == len(row["header"]) for line in row["rows"])
        assert f"<h3>{escape(row['title']).replace('&#x27;', '&#39;')}</h3>" in html
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]


def test_the_chosen_first_pass_reads_all_marked_images_and_the_others_a_share(
    tiny_model: LatentModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = importlib.import_module("treering_verify.benchmark.passes")
    monkeypatch.setattr(module, "_ATTACKS", ("clean", "jpeg:quality=50"))
    monkeypatch.setattr(module, "_SHARE", 2)
    monkeypatch.setattr(module, "_BATCH", 3)
    found = BENCHMARKS["passes"](tiny_model, Scope(silent, count=5))
    chosen = default_look(tiny_model)
    for case in product({row["pass"] for row in found.rows}, ("marked", "unmarked"), ("clean", "jpeg:quality=50")):
        images = [row["image"] for row in found.rows if (row["pass"], row["truth"], row["attack"]) == case]
        assert images == ([0, 1, 2, 3, 4] if case[:2] == (chosen, "marked") else [0, 1])
    of_chosen, of_another = (
        next(line for line in found.tables[0].rows if line[0] == look) for look in (chosen, "inverted")
    )
    trials = [[cell.trials for cell in line if isinstance(cell, Rate)] for line in (of_chosen, of_another)]
    assert (trials[0][0], trials[0][-1], trials[1][0], trials[1][-1]) == (10, 4, 4, 4)


def test_the_provenance_names_the_model_that_was_measured(
    tiny_model: LatentModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = Table("t", ("a",), (("1",),))
    found = Findings("heldout", "?", ({"a": 1},), (line,), model="another")
    monkeypatch.setitem(BENCHMARKS, "heldout", lambda model, scope: found)
    assert "\nmodel: another\n" in run("heldout", tiny_model, tmp_path, Scope(silent))
    monkeypatch.setitem(BENCHMARKS, "heldout", lambda model, scope: replace(found, model=""))
    assert f"\nmodel: {tiny_model.name}\n" in run("heldout", tiny_model, tmp_path, Scope(silent))


def test_no_two_benchmarks_share_a_seed() -> None:
    starts = sorted(SEEDS.values())
    assert all(b - a >= 1 << 32 for a, b in pairwise(starts))
    assert starts[0] >= 1 << 32  # those below are the users'


# --- paths ------------------------------------------------------------------------------------------------------------


def test_a_path_reports_what_each_budget_would_have_returned(tiny_model: LatentModel) -> None:
    known = truth(tiny_model, None, range(5), steps=2)
    pixels = known.pixels()
    settings = replace(unstopped(DEFAULTS["forward-step"]), iterations=6)
    path = follow(tiny_model, pixels, known.latent, "forward-step", settings, budgets=(0, 2, 6), batch=3)
    assert path.error.shape == (7, 5) and path.seconds.shape == (7,)
    assert (path.seconds.diff() > 0).all()
    for n in (0, 2, 6):
        # In the same batches: along six steps a random network amplifies what rounding differs between batch sizes.
        few = replace(settings, iterations=n)
        parts = [invert(problem_of(tiny_model, part), "forward-step", few).latent for part in pixels.split(3)]
        alone = torch.cat(parts)
        torch.testing.assert_close(path.latents[n], alone, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(path.error[n], decibels(alone, known.latent), rtol=1e-3, atol=1e-2)


def test_a_path_that_stops_stays_where_it_is(tiny_model: LatentModel) -> None:
    known = truth(tiny_model, None, range(4), steps=2)
    settings = replace(DEFAULTS["forward-step"], iterations=20, stagnation=0.5)
    path = follow(tiny_model, known.pixels(), known.latent, "forward-step", settings, batch=2)
    final = torch.cat(
        [invert(problem_of(tiny_model, p), "forward-step", settings).latent for p in known.pixels().split(2)]
    )
    assert len(path.error) < 21
    torch.testing.assert_close(path.error[-1], decibels(final, known.latent), rtol=1e-4, atol=1e-3)


def test_the_error_is_in_decibels_of_energy() -> None:
    z = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    assert decibels(z * 0.9, z).tolist() == pytest.approx([-20.0, -20.0], abs=1e-4)


def test_the_published_families_run_without_stops_and_to_every_budget() -> None:
    for variant in [*published(100), *own(20, refined=True)]:
        assert max(variant.budgets) == max(1, variant.settings.iterations) or variant.method == "encoder"
        if variant.family in ("gradient", "gradient-free"):
            assert not variant.settings.rehearse and variant.settings.stagnation == -math.inf


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


# --- the report -------------------------------------------------------------------------------------------------------


def example(**changes: Any) -> Findings:
    values: dict[str, Any] = {
        "name": "example",
        "question": "Is <this> escaped & safe?",
        "rows": ({"a": 1, "b": float("nan")}, {"a": 2, "b": 0.5}),
        "tables": (Table("A table", ("method", "value"), (("x <y>", Rate(3, 4)), ("z", Mean(1.0, 0.25, 9)))),),
        "figures": (
            Figure(
                "All kinds",
                (
                    Curves("c", "x", "y", (Curve("one", (1.0, 10.0), (0.0, 1.0), (0.1, 0.2)),), log_x=True),
                    Cloud("d", "x", "y", (0.0, 1.0), (1.0, 0.0), (0.2, 0.4), "colour", (-1.0, 1.0)),
                    Matrix("m", ("a", "b"), ((3, 1), (0, 4))),
                ),
            ),
        ),
    }
    return Findings(**{**values, **changes})


def test_the_report_holds_every_section_of_its_folder_and_escapes_text(tmp_path: Path) -> None:
    store_findings(example(), PROVENANCE, tmp_path)
    store_findings(example(name="second", figures=()), PROVENANCE, tmp_path)
    html = (tmp_path / "report.html").read_text()
    assert re.findall(r'<section id="(\w+)">', html) == ["example", "second"]
    assert "Is &lt;this&gt; escaped &amp; safe?" in html and "x &lt;y&gt;" in html
    assert "3/4 = 75.0 % [19.4, 99.4]" in html and "1.00 +- 0.25" in html
    assert html.count("<svg") == 1
    assert "<script" not in html and "http-equiv" not in html


def test_rows_keep_their_types_and_have_no_nan(tmp_path: Path) -> None:
    store_findings(example(), PROVENANCE, tmp_path)
    table = pyarrow.parquet.read_table(tmp_path / "example.parquet")
    assert table.to_pylist() == [{"a": 1, "b": None}, {"a": 2, "b": 0.5}]
    assert table.schema.metadata[b"treering.model"] == b"tiny"


def test_no_two_of_many_curves_look_alike() -> None:
    from matplotlib.figure import Figure as Sheet

    axis = Sheet().add_subplot()
    _draw_curves(axis, Curves("c", "x", "y", tuple(Curve(str(i), (1.0,), (float(i),)) for i in range(30))))
    assert len({(line.get_color(), line.get_marker()) for line in axis.get_lines()}) == 30


def test_equal_figures_are_equal_files() -> None:
    figure = example().figures[0]
    assert draw_figure(figure) == draw_figure(figure)
    assert draw_figure(figure).count("<svg") == 1


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, ""),
        (3, "3"),
        (0.123456, "0.1235"),
        (math.nan, "n/a"),
        ("x", "x"),
        (Rate(0, 2), "0/2 = 0.0 % [0.0, 84.2]"),
    ],
)
def test_cells_are_written_as_people_read_them(value: Any, text: str) -> None:
    assert format_cell(value) == text


# --- the laboratory ---------------------------------------------------------------------------------------------------


def test_what_was_kept_is_not_measured_again_and_another_question_is(tmp_path: Path) -> None:
    asked: list[str] = []

    def measure(answer: float) -> Callable[[], dict[str, Any]]:
        def work() -> dict[str, Any]:
            asked.append(str(answer))
            return {"numbers": np.array([answer, np.nan])}

        return work

    first = kept(tmp_path, "x", ("facts", 1), measure(1.0))
    again = kept(tmp_path, "x", ("facts", 1), measure(2.0))
    other = kept(tmp_path, "x", ("facts", 2), measure(3.0))
    np.testing.assert_array_equal(first["numbers"], again["numbers"])
    assert other["numbers"][0] == 3.0 and asked == ["1.0", "3.0"]
    assert kept(None, "x", ("facts", 1), measure(4.0))["numbers"][0] == 4.0
    assert len(list(tmp_path.iterdir())) == 2  # and nothing half-written


def test_an_interrupted_benchmark_goes_on_where_it_was(tiny_folder: Path, tmp_path: Path) -> None:
    scope = Scope(silent, quick=True, folder=tmp_path)
    model = load_model(tiny_folder)
    variant = attacked(3, refined=True)[2]
    lab = Laboratory.open(model, scope, 3)
    path = lab.path(variant)
    passes = 0

    class Counting:
        def __getattr__(self, name: str) -> Any:
            nonlocal passes
            passes += name in ("encode", "decode", "denoise")
            return getattr(model, name)

    again = Laboratory.open(Counting(), scope, 3)  # type: ignore[arg-type]
    # The same weights would give the same answer; a model without weights in sight is another one.
    assert passes > 0 and again.weights != lab.weights
    passes = 0
    resumed = replace(again, weights=lab.weights, known=lab.known).path(variant)
    assert passes == 0
    assert torch.equal(resumed.error, path.error) and torch.equal(resumed.steps, path.steps)
    assert all(torch.equal(resumed.latents[n], path.latents[n]) for n in variant.budgets)


def test_other_weights_have_another_fingerprint(tiny_folder: Path) -> None:
    a, b = load_model(tiny_folder), load_model(tiny_folder)
    assert fingerprint(a) == fingerprint(b)
    with torch.no_grad():
        part = next(part for part in vars(b).values() if isinstance(part, torch.nn.Module))
        next(part.parameters()).mul_(1.001)
    assert fingerprint(a) != fingerprint(b)


def test_a_clock_counts_steps_of_equal_cost_beyond_the_last_that_was_run() -> None:
    clock = Clock((1.0, 3.0, 5.0))
    assert [clock.at(k) for k in (0, 1, 2, 3, 10)] == [1.0, 3.0, 5.0, 7.0, 21.0]
    assert Clock((0.5,)).at(7) == 0.5  # the encoder


def test_every_variant_is_timed_once_a_round_also_those_of_one_label(tiny_folder: Path) -> None:
    lab = Laboratory.open(load_model(tiny_folder), Scope(silent, quick=True), 2)
    free = unstopped(DEFAULTS["forward-step"])
    variants = [Variant("x", "gradient-free", "forward-step", replace(free, iterations=n), (n,)) for n in (2, 9)]
    clocks = lab.clock(variants, 3, 1)
    assert [len(clocks[v]) for v in variants] == [3, 3]
    assert all(0 < c.at(0) < c.at(2) < c.at(9) for v in variants for c in clocks[v])


def test_the_default_is_among_the_methods_compared_exactly_once() -> None:
    for refined in (True, False):
        method = default_method(refined=refined)
        for variants in (own(20, refined=refined), attacked(20, refined=refined)):
            assert [(v.method, v.settings) for v in variants if v.is_default] == [(method, DEFAULTS[method])]
            assert len({(v.label, v.budgets) for v in variants}) == len(variants)


def test_differences_are_paired_and_images_that_end_above_their_start_are_counted(tiny_folder: Path) -> None:
    lab = Laboratory.open(load_model(tiny_folder), Scope(silent, quick=True), 3)
    variants = [v for v in attacked(3, refined=False) if v.method in ("encoder", "forward-step")]
    start = torch.tensor([-10.0, -12.0, -14.0])
    better, worse = start - 2.0, start + torch.tensor([0.05, 0.2, 0.3])
    latents = {n: lab.known.latent for v in variants for n in v.budgets}
    paths = {}
    for variant in variants:
        if variant.method == "encoder":
            error = start[None]
        elif variant.is_default:
            error = torch.stack([start, better])
        else:
            error = torch.stack([start, better + 1.0, worse])
        paths[variant] = Followed(error, torch.zeros(len(error)), latents, torch.ones(3))
    lines = _attacked(lab, "jpeg:quality=50", paths, [])
    by = {str(line[1]): line for line in lines}
    assert by["encoder"][4].value == pytest.approx(0.0)
    assert by["forward-step (default)"][4].value == pytest.approx(-2.0)  # lower than the start
    assert by["forward-step (default)"][5].value == pytest.approx(
        -1.0
    )  # against -1 dB, the best reading of a published one
    assert by["forward-step, no stop, best"][2] == "1.0"
    assert str(by["forward-step, no stop"][6]).startswith("2/3")
    assert str(by["forward-step (default)"][6]).startswith("0/3")
    # All were given the true latent, whose residual does not depend on who returned it.
    assert {line[7] for line in lines if line[7] is not None} == {by["the true latent"][7]}


def test_the_residual_is_measured_against_the_starts(tiny_folder: Path) -> None:
    lab = Laboratory.open(load_model(tiny_folder), Scope(silent, quick=True), 3)
    start = lab.model.encode(lab.known.pixels("jpeg:quality=50"))
    assert lab.residual(start, "jpeg:quality=50") == pytest.approx([1.0] * 3)
    # Other images' latents miss by more, and by more than their own start does.
    assert min(lab.residual(start.roll(1, 0), "jpeg:quality=50")) > 1.0


def test_only_learned_steps_are_measured_again_when_the_refiner_changes(tiny_folder: Path, tmp_path: Path) -> None:
    lab = Laboratory.open(load_model(tiny_folder), Scope(silent, quick=True, folder=tmp_path), 2)
    torch.manual_seed(0)
    refiners = [Refiner(4, 4, width=4, blocks=1) for _ in range(2)]
    torch.nn.init.normal_(refiners[1].last.weight, std=0.01)
    variants = [v for v in attacked(3, refined=True) if v.method in ("forward-step", "learned")]
    counts = []
    for refiner in refiners:
        lab.model.refine = refiner
        again = Laboratory.open(lab.model, lab.scope, 2)
        for variant in variants:
            again.path(variant)
        counts.append({m: len(list(tmp_path.glob(f"{m}-*.npz"))) for m in ("images", "forward-step", "learned")})
    assert counts[1]["images"] == counts[0]["images"] == 1
    assert counts[1]["forward-step"] == counts[0]["forward-step"] > 0
    assert counts[1]["learned"] == 2 * counts[0]["learned"] > 0


# --- classification ---------------------------------------------------------------------------------------------------


def test_the_published_ceiling_shows_in_the_classification_of_perfectly_inverted_noise(tiny_model: LatentModel) -> None:
    off, centred = _paper_groups(tiny_model, 8, 0)
    shares = []
    for group in (off, centred):
        rule, by_angle = group.rules
        assert (
            group.truth is not None and len(group.truth) == len(rule.actual) == len(group.images()) == group.count == 24
        )
        called = rule.decide(group.truth)
        shares.append(np.mean([a == c for a, c in zip(rule.actual, called, strict=True)]))
        if group is off:  # class 1 reads as class 2, and the others as themselves
            assert {c for a, c in zip(rule.actual, called, strict=True) if a == "1"} == {"2"}
        if group is centred:  # what inversion shrinks is told apart by angle, and by distance no longer
            assert by_angle.decide(0.2 * group.truth) == rule.actual != rule.decide(0.2 * group.truth)
    assert shares == pytest.approx([2 / 3, 1.0])
