"""The page of `treering benchmark paper`: readings and answers from known numbers, edits, and what is cached."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
import torch
from helpers.models import pipelines
from helpers.progress import silent
from helpers.readings import LOG10, reading
from PIL import Image
from treering_detectors import Rate

from treering_verify.benchmark import BENCHMARKS, Scope, run
from treering_verify.benchmark.harness import inversion_methods, laboratory
from treering_verify.benchmark.harness.interruption import BenchmarkInterrupted
from treering_verify.benchmark.harness.inversion_methods import published, swept
from treering_verify.benchmark.harness.inversion_paths import Path as Followed
from treering_verify.benchmark.harness.laboratory import Laboratory
from treering_verify.benchmark.harness.memory import Peak
from treering_verify.benchmark.paper import cocoercivity, page, readings
from treering_verify.benchmark.paper.editing import Edited, masks, sheet
from treering_verify.benchmark.paper.parts import (
    attacks,
    classes,
    errors,
    missing,
    optimisers,
    sixteen_bits,
)
from treering_verify.benchmark.paper.parts.extent import Extent
from treering_verify.benchmark.paper.parts.measured import Measured, listed, reference
from treering_verify.benchmark.paper.parts.whole import WholeRun
from treering_verify.benchmark.paper.readings import BEST, DEFAULT, PUBLISHED
from treering_verify.benchmark.published_figures import INSTAFLOW, SD, TABLE_1
from treering_verify.benchmark.robustness.robustness import plan
from treering_verify.errors import UsageError
from treering_verify.models import LatentModel, load_model
from treering_verify.report.findings import Part


def test_a_reading_knows_its_error_evidence_and_difference_to_another() -> None:
    one, other = reading("forward-step", -20.0), reading("encoder", -23.0, 0)
    assert (one.nmse, one.log10, one.naive, one.residual) == (-20.0, LOG10, LOG10 + 5, 0.5)
    above = one.above(other)
    assert (above.value, above.half_width) == pytest.approx((3.0, 0.0))  # paired by image
    rows = one.rows("a part")
    assert len(rows) == 3 * 4 and {row["measure"] for row in rows} == {"nmse_db", "log10_pvalue", "log10_pvalue_naive"}
    assert {row["iterations"] for row in rows} == {20} and {row["setting"] for row in rows} == {PUBLISHED}


def test_the_best_step_is_the_lowest_mean_error_of_all_steps_and_iterations() -> None:
    others = swept(20)["forward-step"]
    lowest = others[1]

    def path(variant: Any) -> Followed:
        error = torch.full((21, 2), -10.0)
        if variant == lowest:
            error[3] = -15.0
        return Followed(error, torch.zeros(1), {n: torch.zeros(2, 1, 1, 1) for n in variant.budgets}, torch.ones(2))

    found = readings.best(SimpleNamespace(path=path), others)  # type: ignore[arg-type]
    assert (found.variant, found.iterations, found.setting) == (lowest, 3, BEST)


def test_a_sweep_has_every_published_method_at_other_steps_of_the_same_budgets() -> None:
    by = {v.label: v for v in published(50)}
    for label, others in swept(50).items():
        assert label in by
        steps = {v.settings.step for v in others}
        assert by[label].settings.step not in steps and len(steps) >= 2
        for other in others:
            assert replace(other.settings, step=0.0, iterations=0) == replace(
                by[label].settings, step=0.0, iterations=0
            )


def _answer(free: float, steep: float = -25.0, residual: float = 0.3) -> str:
    start, ours = reading("encoder", -22.0, 0), reading("encoder", -31.0, 0, DEFAULT)
    some = [
        reading("gradient .1 scheduled", steep + 3, 20),
        reading("gradient .1 scheduled", steep, 100),
        reading("adam .01 scheduled", free, 20, residual=residual),
    ]
    best = reading("gradient .01 fixed", -28.0, 50, BEST)
    seconds = {r: 2.0 if r.variant.method == "gradient" else 1.0 for r in (*some, best, start, ours)}
    peaks = {r: Peak(60.0 if r.variant.method == "gradient" else 12.0, 0.0) for r in seconds}
    return errors._answer([start, *some, best, ours], {"gradient": best}, start, ours, SD, seconds, peaks)


def test_the_answer_of_table_1_says_what_agrees_what_does_not_and_why() -> None:
    worse, better = _answer(-18.0), _answer(-24.0)
    assert "5.0 times the memory and 2.0 times the seconds" in worse and "published, SD 2.1: 2.3 and 1.8" in worse
    agrees, differs = worse.split("; does not: ")
    assert "gains from 20 to 100 iterations" in agrees
    assert (
        "+4.0 dB from the encoder" in differs and "0.30 of the encoder's" in differs and "is not the latent" in differs
    )
    assert "-2.0 dB from the encoder" in better and "does not" not in better
    assert "the step is too long" in _answer(-18.0, residual=1.4)
    assert "-28.0 dB" in worse and "-31.0 dB" in worse  # the best step, and the default


def test_published_cells_stand_beside_the_published_setting_only() -> None:
    one = reading("adam .01 scheduled", -20.0, 50)
    cell = errors.published_cell(one, SD)
    assert cell is not None and (cell.nmse, cell.half, cell.seconds) == (-20.84, 0.66, 8.53)
    assert errors.format_published(cell) == "-20.84 +- 0.66"
    assert errors.published_cell(replace(one, setting=BEST), SD) is None
    assert errors.published_cell(one, INSTAFLOW) is None  # the paper has 16-bit rows there
    assert errors.format_published(TABLE_1[INSTAFLOW]["gradient .1 scheduled"][20]) == "-15.67"


def test_the_answer_of_table_s2_names_what_ends_above_the_encoder() -> None:
    start, ours = reading("encoder", -22.0, 0), reading("encoder", -31.0, 0, DEFAULT)

    def optimiser(label: str, last: float) -> Any:
        one = reading(label, last, 50)
        return SimpleNamespace(label=label, last=one, best=reading(label, -27.0, 50, BEST))

    found = [optimiser("forward-step", -17.0), optimiser("inertial-km", -16.0), optimiser("adam .01 scheduled", -25.0)]
    text = optimisers._answer(found, start, ours)
    assert "2 of 3 end above the encoder's -22.0 dB" in text and "does not agree" in text
    assert "forward steps reach -27.0 dB" in text
    below = optimisers._answer([optimiser("forward-step", -24.0)], start, ours)
    assert "1 of 1 end below the encoder's -22.0 dB" in below


# --- the laboratory's cache -------------------------------------------------------------------------------------------


def test_more_images_measure_only_what_fewer_have_not(tiny_model: LatentModel, tmp_path: Path) -> None:
    scope = Scope(silent, quick=True, folder=tmp_path)
    variant = next(v for v in published(2) if v.method == "forward-step")
    few = Laboratory.open(tiny_model, scope, 4)
    path = few.path(variant)
    many = Laboratory.open(tiny_model, scope, 6)
    longer = many.path(variant)
    assert torch.equal(longer.error[:, :4], path.error) and longer.error.shape[1] == 6
    assert {name: len(list(tmp_path.glob(f"{name}-*.npz"))) for name in ("images", "forward-step")} == {
        "images": 2,
        "forward-step": 2,
    }
    noisy = many.path(variant, "noise:sigma=0.05")  # whose seeds go on counting in the second part
    pixels = many.known.pixels("noise:sigma=0.05")
    torch.testing.assert_close(many.known.part(range(4, 6)).pixels("noise:sigma=0.05", 4), pixels[4:])
    assert noisy.error.shape[1] == 6


def test_times_are_measured_once_and_shared_by_methods_of_equal_steps(tiny_model: LatentModel, tmp_path: Path) -> None:
    lab = Laboratory.open(tiny_model, Scope(silent, quick=True, folder=tmp_path), 2)
    variants = [v for v in published(20) if v.method in ("adam", "gradient")]
    first = lab.clock(variants, 2, 1, warm_up=False)
    assert lab.clock(variants, 2, 1, warm_up=False) == first
    scheduled, fixed = (
        next(v for v in variants if v.label.startswith(label)) for label in ("gradient .1", "gradient .01")
    )
    assert first[scheduled] == first[fixed]
    assert len(list(tmp_path.glob("seconds-*.npz"))) == 2  # a round each


# --- edits, classes, attacks, what is missing ----------------------------------------------------------------------


def test_the_sheet_of_an_edit_is_black_where_the_background_was_kept(tiny_model: LatentModel) -> None:
    original = np.random.default_rng(0).integers(0, 255, (128, 128, 3), dtype=np.uint8)
    lab: Any = SimpleNamespace(model=tiny_model, known=SimpleNamespace(images=(Image.fromarray(original),)))
    inside, background = masks(tiny_model, 128)
    assert inside.shape == (1, 1, 32, 32) and bool(inside[0, 0, 16, 16]) and not bool(inside[0, 0, 0, 0])
    assert bool(background[0, 0, 0, 0]) and not bool(background[0, 0, 64, 64])
    kept = Edited([-40.0], original[None])
    changed = Edited([-3.0], 255 - original[None])
    drawn = np.asarray(sheet(lab, {"kept": kept, "changed": changed}, 0))
    tile, text = 160, 26
    assert drawn.shape == (2 * (tile + text) + text, 4 * tile, 3)
    drawn = drawn[text:]  # below the names of the columns
    corner = drawn[text : text + 20, 3 * tile : 3 * tile + 20]
    other = drawn[tile + 2 * text : tile + 2 * text + 20, 3 * tile : 3 * tile + 20]
    assert corner.max() == 0 and other.mean() > 100
    assert abs(int(drawn[text + tile // 2, 3 * tile + tile // 2, 0]) - 128) <= 2  # grey where the mask was


def test_the_answer_of_the_classification_compares_orders_and_names_the_disc() -> None:
    def line(name: str, published: int | None, off: int, centred: int) -> tuple[Any, ...]:
        theirs = Rate(published, 300) if published else None
        return (name, theirs, None, Rate(off, 30), Rate(centred, 30), Rate(30, 30), Rate(30, 30), None)

    lines = [
        line("encoder", 186, 20, 26),
        line("gradient", 207, 18, 24),
        line("gradient-free", 202, 18, 24),
        line("ours", None, 20, 25),
        line("perfect inversion", None, 20, 30),
    ]
    text = classes._answer(lines, SD)
    assert "encoder, gradient and gradient-free have 67, 60 and 60 % here and 62, 69 and 67 %" in text
    assert text.startswith("Agrees: with the published off-centre disc the best method has 67 % (published: 69)")
    assert "a perfect inversion 67 %, 100 with a centred disc, because key 1 reads as key 2" in text
    assert "not settled by so few images: encoder" in text
    lines[0] = line("encoder", 186, 5, 26)
    lines[1], lines[2] = line("gradient", 207, 24, 24), line("gradient-free", 202, 23, 24)
    assert "; agrees: encoder" in classes._answer(lines, SD)
    lines[3] = line("ours", None, 29, 30)
    assert classes._answer(lines, SD).startswith("Does not agree: with the published off-centre disc the best method")
    few = [(*one[:3], Rate(5, 6) if one[0] == "ours" else Rate(4, 6), Rate(5, 6), *one[5:]) for one in lines]
    assert classes._answer(few, SD).startswith("Agrees: "), "five of six are no more than the paper's 69 %"


def test_all_conditions_of_both_papers_are_planned_with_the_numbers_that_robustness_gives_them(
    tiny_model: LatentModel,
) -> None:
    planned = plan(tiny_model, 100, quick=False)
    kept = planned.without_curves()
    assert kept == planned.tasks[: len(kept)]  # a task's place is part of its cache
    names = {task.condition.attack for task in kept}
    assert {c.attack for c in (*planned.conditions, *planned.compared)} == names
    assert (
        len(plan(tiny_model, 4, quick=True, everything=True).compared)
        == 7
        > len(plan(tiny_model, 4, quick=True).compared)
    )


def test_the_means_beside_sfwmarks_are_named_by_scheme() -> None:
    rate = Rate(90, 100)
    lines = (("HSQR (published)", 0.997, None, 0.985, None), ("rings, exact", rate, rate, rate, ""))
    table: Any = SimpleNamespace(rows=lines)
    text = attacks._sfwmark_answer(table)
    assert "`rings` is found in 90 % at 1 % (published for Tree-Ring: 66 %) and named among 2048 in 90 % (11 %)" in text


def test_what_is_not_measured_has_a_reason_and_depends_on_the_model(tiny_model: LatentModel) -> None:
    here = missing.measure(tiny_model).part.tables[0]
    assert all(line[0] and line[1] for line in here.rows)
    items = " ".join(str(line[0]) for line in here.rows)
    assert "LaVie" in items and "SD 2.1 itself" in items and "InstaFlow itself" in items
    large: Any = SimpleNamespace(latent_shape=(4, 64, 64), name="x", timesteps=tiny_model.timesteps)
    items = " ".join(str(line[0]) for line in missing.measure(large).part.tables[0].rows)
    assert "SD 2.1 itself" not in items and "InstaFlow itself" in items
    assert reference(tiny_model) == SD and listed(["a", "b", "c"]) == "a, b and c" and listed([]) == ""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["stable-diffusion", "rectified-flow"])
def test_the_page_is_made_of_pipelines_with_random_weights(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(laboratory, "QUICK_STEPS", 2)
    monkeypatch.setattr(inversion_methods, "emulates_sixteen_bits", lambda: False)
    pipe = pipelines.stable_diffusion() if kind == "stable-diffusion" else pipelines.rectified_flow()
    pipe.save_pretrained(tmp_path / "model")
    model = load_model(tmp_path / "model")
    summary = run("paper", model, tmp_path / "bench", Scope(silent, count=3))
    for title in (
        "Tables 1 and S1",
        "16-bit",
        "Table S2",
        "Figure 3",
        "Watermark classification",
        "Tree-Ring's table 1",
    ):
        assert f"## {title}" in summary
    assert "Not measured on" in summary and "do not fit a 24 x 24 latent" in summary  # rings need more cells
    other = INSTAFLOW if kind == "rectified-flow" else SD
    assert f"published, {other}: NMSE" in summary
    rows = pyarrow.parquet.read_table(tmp_path / "bench" / "paper.parquet").to_pylist()
    assert {row["part"] for row in rows} >= {
        "table 1",
        "16-bit",
        "table S2",
        "figure 3",
        "classification",
        "editing",
    }


@pytest.mark.parametrize(("quick", "emulated", "some"), [(True, True, False), (True, False, True), (False, True, True)])
def test_a_quick_run_leaves_16_bits_out_where_the_processor_emulates_them(
    quick: bool, emulated: bool, some: bool, tiny_model: LatentModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inversion_methods, "emulates_sixteen_bits", lambda: emulated)
    lab: Any = SimpleNamespace(model=tiny_model, scope=Scope(silent, quick=quick))
    for variants in (readings.published_variants(lab, 20), Laboratory.variants(lab)):
        assert {v.precision for v in variants} == {"float32", *(["bfloat16"] if some else [])}
    plan = cocoercivity._plan(quick, inversion_methods.compared_precision(tiny_model, lab.scope))
    assert (plan[2].precision, plan[2].published) == (("bfloat16", True) if some else ("float32", False))
    if not some:
        with pytest.raises(UsageError, match="emulates 16 bits"):
            sixteen_bits.measure(tiny_model, lab.scope, lab, Extent.of(lab.scope))


def test_an_interrupted_page_shows_the_parts_that_are_there_and_says_that_it_is_partial(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = Measured(
        Part("The first part", "It agrees."), [readings.row("first", "m", PUBLISHED, "nmse_db", -1.0)], "one"
    )

    def measured(*_: Any) -> Iterator[Measured]:
        yield part
        raise KeyboardInterrupt

    monkeypatch.setattr(page, "_measured", measured)
    with pytest.raises(BenchmarkInterrupted) as stopped:
        run(
            "paper", load_model(tiny_folder), tmp_path, Scope(lambda *_: nullcontext(lambda: None), quick=True, count=2)
        )
    assert "Interrupted: 1 of 9 parts" in stopped.value.summary
    assert "## The first part\nIt agrees." in stopped.value.summary and "partial" in stopped.value.summary
    assert pyarrow.parquet.read_table(tmp_path / "paper.parquet").num_rows == 1


def test_the_attacks_share_the_cache_of_robustness(tmp_path: Path) -> None:
    assert BENCHMARKS["paper"].cache_name == BENCHMARKS["inversion"].cache_name != BENCHMARKS["robustness"].cache_name
    folder = tmp_path / BENCHMARKS["paper"].cache_name
    assert BENCHMARKS["robustness"].cache_beside(folder) == tmp_path / BENCHMARKS["robustness"].cache_name
    assert BENCHMARKS["robustness"].cache_beside(None) is None


def test_a_part_that_a_model_cannot_have_is_named_with_the_reason(
    tiny_model: LatentModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> Any:
        raise UsageError("the latent is too small")

    done = Measured(Part("Done", "It agrees."), [], "")
    parts = ("errors", "sixteen_bits", "implementation", "optimisers", "convergence", "classes", "edits")
    for name in parts:
        monkeypatch.setattr(getattr(page, name), "measure", lambda *_: done)
    monkeypatch.setattr(page.attacks, "measure", fail)
    scope = Scope(silent, count=2)
    whole = WholeRun({"Images": 1, **page._SHARES})
    found = list(page._measured(tiny_model, scope, None, Extent.of(scope), whole))  # type: ignore[arg-type]
    assert [one.part.title for one in found[:7]] == ["Done"] * 7 and found[-1].part.title == "Not measurable here"
    assert found[7].part.answer == f"Not measured on {tiny_model.name}: the latent is too small."


def test_what_a_quick_run_leaves_out_is_named_with_the_command_that_measures_it(
    tiny_model: LatentModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = Measured(Part("Done", "It agrees."), [], "")
    for name in (
        "errors",
        "sixteen_bits",
        "implementation",
        "optimisers",
        "convergence",
        "classes",
        "edits",
        "attacks",
    ):
        monkeypatch.setattr(getattr(page, name), "measure", lambda *_: done)

    def answers(scope: Scope) -> dict[str, str]:
        whole = WholeRun({"Images": 1, **page._SHARES})
        found = page._measured(tiny_model, scope, None, Extent.of(scope), whole)  # type: ignore[arg-type]
        return {one.part.title: one.part.answer for one in found if one.part.answer.startswith("Left out")}

    assert answers(Scope(silent, count=6)) == {} == answers(Scope(silent))
    left_out = answers(Scope(silent, quick=True))
    assert set(left_out) == {"Table 1, gradient rows", "Tree-Ring's table 1 and SFWMark's means"}
    for text, alone in zip(left_out.values(), ("baseline", "robustness"), strict=True):
        assert (
            "`treering benchmark paper --count 6 --output DIR`" in text and f"benchmark {alone} --output DIR`" in text
        )
