"""The parts of the robustness benchmarks: thresholds, rates, rivals, conditions, and resuming."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.models.white_model import WhiteModel
from helpers.progress import silent
from helpers.stored import check_storing
from PIL import Image
from sklearn.metrics import roc_auc_score
from treering_detectors import Rate

from treering_verify.attacks import ATTACKS, GRIDS, MODEL_ATTACKS
from treering_verify.benchmark import Scope
from treering_verify.benchmark.harness import trials
from treering_verify.benchmark.harness.conditions import OTHERS, SEVEN, TWELVE, Condition, Scale, available, scales
from treering_verify.benchmark.harness.image_quality import Cost, cost, diversity, keys_among, point_symmetry
from treering_verify.benchmark.harness.keyed_images import evidence_of_images, generate_each
from treering_verify.benchmark.harness.rates import Series, calibrated_limits, exact_limits, mean_of, pooled
from treering_verify.benchmark.harness.scope import CLEAN, SEEDS
from treering_verify.benchmark.harness.trials import (
    BLANK,
    EXACT,
    KEYS,
    SEARCHED,
    Recovered,
    Rivals,
    evidence_of_each,
    nearest_rivals,
)
from treering_verify.benchmark.harness.unmarked_images import draw_unmarked
from treering_verify.benchmark.robustness import measurements, robustness, survival
from treering_verify.benchmark.robustness.curves import figures, held_table
from treering_verify.benchmark.robustness.measurements import DEFAULT, UNMARKED, Measurements, Task, measure_tasks
from treering_verify.benchmark.robustness.tables import as_verified, blank_share, series_of, summary_table
from treering_verify.detection.calibration.registry import CHI_SQUARE, DISTANCE
from treering_verify.detection.calibration.scores import score
from treering_verify.detection.verification import verify
from treering_verify.generation.generator import generate, initial_noise
from treering_verify.inversion.recovery import InversionOptions
from treering_verify.media.conversion import to_tensor
from treering_verify.models import LatentModel
from treering_verify.watermark.embedding import embed, key_evidence
from treering_verify.watermark.keys.key import Family, Key
from treering_verify.watermark.patterns import PATTERNS

SHAPE = (4, 32, 32)


def grey_image(level: int = 128) -> Image.Image:
    return Image.new("RGB", (32, 32), (level, level, level))


# --- thresholds and rates ---------------------------------------------------------------------------------------------


def test_a_calibrated_threshold_must_be_exceeded_and_is_none_where_the_images_are_too_few() -> None:
    limits = calibrated_limits(np.arange(100.0))  # of 101 ranks 1 % is one: the largest score, 99
    one = Series(np.array([98.0, 99.0, 99.5, 200.0]), np.array([99.0, 100.0]), limits)
    assert one.tpr(0.01) == Rate(2, 4) and one.fpr(0.01) == Rate(1, 2)
    assert one.tpr(0.001) is None and one.fpr(0.001) is None and one.tpr(1e-6) is None
    assert calibrated_limits(np.arange(1000.0))[0.001] > 999.0


def test_a_threshold_is_not_refitted_to_the_images_that_it_judges() -> None:
    limits, marked = calibrated_limits(np.arange(100.0)), np.array([50.0, 150.0, 250.0])
    quiet, loud = (Series(marked, unmarked, limits) for unmarked in (np.zeros(10), np.full(10, 200.0)))
    assert quiet.tpr(0.01) == loud.tpr(0.01) == Rate(2, 3)
    assert quiet.fpr(0.01) == Rate(0, 10) and loud.fpr(0.01) == Rate(10, 10)
    assert loud.refitted(0.01) == Rate(1, 3)  # which the literature would print


def test_an_exact_p_value_is_its_own_calibration_and_reaches_alpha_where_it_equals_it() -> None:
    p = np.array([0.02, 0.01, 1e-3, 1e-6, 1.0001e-6, 1e-20])
    one = Series(-np.log10(p), np.empty(0), exact_limits())
    assert [one.tpr(alpha) for alpha in (0.01, 0.001, 1e-6)] == [Rate(5, 6), Rate(4, 6), Rate(2, 6)]
    assert one.fpr(0.01) is None and one.auc is None and one.named is None


def test_the_area_under_the_curve_is_scikit_learns_ties_included() -> None:
    rng = np.random.default_rng(0)
    marked, unmarked = rng.integers(0, 9, 40) + 2.0, rng.integers(0, 9, 60) + 0.0
    expected = roc_auc_score(np.repeat([1, 0], [40, 60]), np.concatenate([marked, unmarked]))
    assert Series(marked, unmarked, {}).auc == pytest.approx(expected)


def test_an_image_is_named_where_its_own_key_is_nearer_than_every_other() -> None:
    own, rivals = np.array([20.0, 3.0, 5.0, 9.0, 9.4]), np.array([4.0, 4.0, 5.0, 3.0, 3.0])
    one = Series(own, np.empty(0), exact_limits(), rivals, 2048)
    assert one.named == Rate(3, 5)  # a tie names nobody
    assert one.named_at(1e-6) == Rate(2, 5)  # 9.4 - log10(2048) = 6.09 reaches 6, and 9.0 does not


def test_rates_of_several_conditions_are_pooled_and_a_missing_one_is_not_passed_over() -> None:
    assert pooled([Rate(1, 4), Rate(4, 4)]) == Rate(5, 8)
    assert pooled([Rate(1, 4), None]) is None and pooled([]) is None
    assert mean_of([0.5, 1.0]) == 0.75 and mean_of([0.5, None]) is None


# --- rivals -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pattern", [name for name, p in PATTERNS.items() if p.coefficients is not None])
def test_the_nearest_rival_is_that_of_testing_them_one_by_one(pattern: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trials, "KEYS", 9)
    family = Family.choose(SHAPE, pattern=pattern)
    rivals = Rivals.draw(family, 1)
    assert rivals is not None and rivals.numbers.shape == (8, family.degrees_of_freedom)
    own = Key.generate(SHAPE, pattern=pattern, seed=5)
    noise = embed(initial_noise(SHAPE, [1, 2, 3]), own)
    found = nearest_rivals(Recovered(torch.zeros(3, 3, 8, 8), noise, noise, InversionOptions()), rivals)
    keys = [Key.of(family, f"rival-{i}", row) for i, row in enumerate(rivals.numbers)]
    one_by_one = np.min([[e.log10_pvalue for e in key_evidence(noise, key)] for key in keys], axis=0)
    np.testing.assert_allclose(found[f"rival {EXACT}"], one_by_one, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(found["rival distance"], score(DISTANCE, noise, keys).max(axis=1), rtol=1e-12)
    assert (np.array([e.log10_pvalue for e in key_evidence(noise, own)]) < found[f"rival {EXACT}"]).all()
    assert (score(DISTANCE, noise, [own])[:, 0] > found["rival distance"]).all()


def test_patterns_of_keystreams_and_codes_have_no_rivals() -> None:
    for pattern in ("gaussian-shading", "pseudorandom-code"):
        assert Rivals.draw(Family.choose(SHAPE, pattern=pattern), 1) is None
    assert KEYS == 2048


# --- conditions -------------------------------------------------------------------------------------------------------


def test_the_lists_have_twelve_and_seven_and_all_can_run_here(tiny_model: LatentModel) -> None:
    assert len({c.name for c in TWELVE}) == len({c.attack for c in TWELVE}) == 12
    assert len({c.name for c in SEVEN}) == 7
    assert available(TWELVE, tiny_model) == (TWELVE, ())


def test_what_cannot_run_is_left_out_by_name(monkeypatch: pytest.MonkeyPatch, tiny_model: LatentModel) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    usable, left_out = available(TWELVE, tiny_model)
    assert len(usable) == 11 and left_out == ("denoising .1: scikit-image is not installed",)


def test_every_grid_becomes_a_curve_and_those_of_one_attack_differ_in_one_number() -> None:
    curves = {curve.name: curve for curve in scales()}
    assert curves.keys() == GRIDS.keys()
    for name, curve in curves.items():
        assert len(curve.values) == len(curve.conditions) == len(GRIDS[name])
        assert {c.attack.partition(":")[0] for c in curve.conditions} <= {*ATTACKS, *MODEL_ATTACKS}
        assert bool(curve.parameter) == (name != "flip")
    assert curves["jpeg"].values[0] == 90 and curves["jpeg"].conditions[3].attack == TWELVE[3].attack == SEVEN[2].attack


def test_processing_is_the_images_own_and_repeats(tiny_model: LatentModel) -> None:
    images = [grey_image(20), grey_image(20)]
    drawn = next(c for c in TWELVE if c.attack in OTHERS)
    first, second = drawn.apply(images, [1, 2], tiny_model)
    levels = [np.asarray(p)[0, 0, 0] for p in (first, second)]
    factors = [np.random.default_rng(seed).uniform(0, 7) for seed in (1, 2)]
    assert levels == [min(255, int(20 * f)) for f in factors] or np.allclose(levels, [20 * f for f in factors], atol=1)
    assert drawn.apply(images, [1, 2], tiny_model)[1].tobytes() == second.tobytes()
    assert TWELVE[0].apply(images, [1, 2], tiny_model) == images
    grain = Image.fromarray(np.random.default_rng(0).integers(108, 148, (32, 32, 3), dtype=np.uint8))
    smooth = next(c for c in TWELVE if c.name.startswith("denoising")).apply([grain], [0], tiny_model)[0]
    assert np.asarray(smooth).std() < 0.7 * np.asarray(grain).std()


def test_unmarked_images_may_be_left_as_they_are(tiny_model: LatentModel) -> None:
    plain = list(draw_unmarked(tiny_model, 8, 7, attacked=False))
    assert {one.attack for one in plain} == {""}
    assert [one.kind for one in plain] == [one.kind for one in draw_unmarked(tiny_model, 8, 7)]


# --- measurements -----------------------------------------------------------------------------------------------------

CROP, JPEG = Condition("crop", "centre_crop:share=0.75"), Condition("JPEG", "jpeg:quality=50")


def tasks() -> list[Task]:
    return [
        Task(Condition("clean", CLEAN), {"random": 18, "gaussian-shading": 4}, 5, published=True),
        Task(CROP, {"random": 3, "gaussian-shading": 3}, 5, searched_unmarked=("random",)),
        Task(JPEG, {"random": 3}, 0, searched=False, method="encoder", inversion=InversionOptions(method="encoder")),
    ]


def same(a: Measurements, b: Measurements) -> bool:
    for one, other in ((a.marked, b.marked), (a.unmarked, b.unmarked), (a.calibration, b.calibration)):
        assert one.keys() == other.keys()
        for name, arrays in one.items():  # type: ignore[attr-defined]
            for field, values in arrays.items():
                np.testing.assert_array_equal(values, other[name][field])  # type: ignore[index]
    return a.costs == b.costs and a.kinds == b.kinds


@pytest.fixture(scope="module")
def whole() -> tuple[Measurements, int]:
    """All tasks in one run that keeps nothing, and how many inversions it took."""
    calls = 0

    def counted(*values: Any, **options: Any) -> Recovered:
        nonlocal calls
        calls += 1
        return trials.recover(*values, **options)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(measurements, "recover", counted)
        return measure_tasks(WhiteModel(), Scope(silent), tasks(), 4, 4), calls


def test_an_interrupted_run_loses_nothing_and_a_second_run_measures_nothing(
    whole: tuple[Measurements, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls, limit = 0, 3

    def counted(*values: Any, **options: Any) -> Recovered:
        nonlocal calls
        if calls == limit:
            raise KeyboardInterrupt
        calls += 1
        return trials.recover(*values, **options)

    monkeypatch.setattr(measurements, "recover", counted)
    model, scope = WhiteModel(), Scope(silent, folder=tmp_path)
    with pytest.raises(KeyboardInterrupt):
        measure_tasks(model, scope, tasks(), 4, 4)
    assert calls == 3
    limit = 10**9
    resumed = measure_tasks(model, scope, tasks(), 4, 4)
    assert calls == whole[1] and same(whole[0], resumed)
    limit = calls
    assert same(resumed, measure_tasks(model, scope, tasks(), 4, 4))


def test_images_that_an_attack_made_blank_are_counted(tiny_model: LatentModel) -> None:
    key = Key.generate(tiny_model.latent_shape, seed=1)
    images = [made.image for made in generate(tiny_model, key, seeds=[1], steps=2)]
    images += [Image.new("RGB", images[0].size, "white"), images[0].copy()]
    images[2].paste((255, 255, 255), (0, 0, images[0].width - 2, images[0].height))
    noise = torch.zeros(3, *tiny_model.latent_shape)
    found = Recovered(torch.cat([to_tensor(grey_image) for grey_image in images]), noise, None, InversionOptions())
    assert evidence_of_each(tiny_model, found, [key] * 3, searched=False)[BLANK].tolist() == [False, True, True]
    both = Measurements({("random", DEFAULT, "a"): {BLANK: np.array([True, False])}}, {}, {}, {}, [])
    assert blank_share(both, ["random", "rings"], "a") == Rate(1, 2)


def test_measurements_are_what_judging_each_image_under_its_own_key_gives(whole: tuple[Measurements, int]) -> None:
    model, found = WhiteModel(), whole[0]
    first = SEEDS["robustness"]
    keys = [Key.generate(model.latent_shape, pattern="random", seed=first + i) for i in range(18)]
    images = generate_each(model, keys, [first + i for i in range(18)], lambda: None)
    expected = np.array(list(evidence_of_images(model, images, keys)))
    clean = found.marked["random", DEFAULT, CLEAN]
    np.testing.assert_allclose(clean[EXACT], expected[:, 0], rtol=1e-6)
    np.testing.assert_allclose(clean["statistic"], expected[:, 1], rtol=1e-6)
    assert len(found.kinds) == 5 and len(found.unmarked["random", CLEAN][EXACT]) == 5
    published = {CHI_SQUARE, DISTANCE, f"rival {DISTANCE}"}
    assert {*clean} == {EXACT, "statistic", BLANK, SEARCHED, f"rival {EXACT}", *published}
    # What verification searches by default is searched; the other pattern has no rivals and no published statistic.
    assert {*found.marked["random", DEFAULT, CROP.attack]} == {EXACT, "statistic", BLANK, SEARCHED, f"rival {EXACT}"}
    assert {*found.marked["gaussian-shading", DEFAULT, CLEAN]} == {EXACT, "statistic", BLANK}
    assert [len(found.marked[p, DEFAULT, CLEAN][EXACT]) for p in ("random", "gaussian-shading")] == [18, 4]
    assert SEARCHED in found.unmarked["random", CROP.attack] and SEARCHED not in found.unmarked["random", CLEAN]
    assert ("random", "encoder", JPEG.attack) in found.marked and ("random", JPEG.attack) not in found.unmarked
    assert found.calibration.keys() == {"random"} and len(found.calibration["random"][CHI_SQUARE]) == 4
    assert found.costs.keys() == {UNMARKED, "random", "gaussian-shading"} and found.costs[UNMARKED].paired == 0.0


def test_no_key_that_judges_unmarked_images_is_used_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[str] = []

    def noted(model: LatentModel, found: Recovered, keys: list[Key], *, searched: bool) -> dict[str, Any]:
        used.extend(key.fingerprint for key in keys)
        return evidence_of_each(model, found, keys, searched=searched)

    monkeypatch.setattr(measurements, "evidence_of_each", noted)
    both = [Task(Condition("clean", CLEAN), {"random": 2}, 4, published=True), Task(CROP, {"random": 0}, 4)]
    measure_tasks(WhiteModel(), Scope(silent), both, 4, 2)
    assert len(used) == 2 + 4 + 4 + 4 and len(set(used)) == len(used)


def test_all_marks_of_the_white_model_are_detected_and_named_without_false_positives(tmp_path: Path) -> None:
    findings = robustness.measure(WhiteModel(), Scope(silent, quick=True))
    check_storing(findings, tmp_path)
    (exact,) = [line for line in findings.tables[1].rows if line[:3] == ("random", "clean", EXACT)]
    assert exact[3:7] == (Rate(4, 4), Rate(4, 4), Rate(4, 4), 1.0)
    assert exact[8:11] == (Rate(4, 4), Rate(0, 8), Rate(0, 8))
    assert len({tuple(row) for row in findings.rows}) == 1  # all rows have the same fields
    assert {row["truth"] for row in findings.rows} == {"marked", "unmarked"}


# --- tables -----------------------------------------------------------------------------------------------------------


def made_up(**marked: list[float]) -> Measurements:
    """Marked images of pattern random whose -log10 p under each attack is given; unmarked ones at 0, 1 and 3."""
    strong = {("random", DEFAULT, attack): {EXACT: -np.array(values)} for attack, values in marked.items()}
    unmarked = {("random", attack): {EXACT: -np.array([0.0, 1.0, 3.0])} for attack in marked}
    costs = {name: Cost(1.0, 2.0, 3.0, 0.0) for name in ("random", UNMARKED)}
    return Measurements(strong, unmarked, {}, costs, ["photograph"] * 3)


def test_a_pattern_is_detected_up_to_the_last_strength_before_the_first_failure() -> None:
    found = made_up(a=[9.0, 9.0], b=[9.0, 7.0], c=[9.0, 5.0], d=[9.0, 9.0])
    scale = Scale("x", "level", (1.0, 2.0, 3.0, 4.0), tuple(Condition(n, n) for n in "abcd"))
    (line,) = held_table(found, [scale], ["random"]).rows
    assert line == ("x", "random", EXACT, "level 2", Rate(2, 2), "level 3", Rate(1, 2))
    (figure,) = figures(found, [scale], ["random"])
    shares, medians = figure.panels
    assert shares.curves[0].y == (1.0, 1.0, 0.5, 1.0)  # type: ignore[union-attr]
    assert medians.curves[0].y == (-9.0, -8.0, -7.0, -9.0)  # type: ignore[union-attr]


def test_the_mean_over_conditions_and_the_worst_of_them_are_those_of_the_counts() -> None:
    found = made_up(a=[9.0, 9.0], b=[2.5, 1.0])
    found.unmarked["random", "b"][EXACT] = -np.array([2.0, 2.0, 0.0])
    table = summary_table(found, [Condition("A", "a"), Condition("B", "b")], ["random"], ["C: missing"])
    line = dict(zip(table.header, table.rows[0], strict=True))
    assert line["TPR at 1 %"] == Rate(3, 4) and line["TPR at 0.1 %"] == Rate(2, 4)
    assert line["TPR at p <= 1e-6"] == Rate(2, 4) and line["FPR at 1 %"] == Rate(3, 6)
    assert str(line["worst FPR at 1 %"]).startswith("B: 2/3")
    assert line["AUC"] == pytest.approx((1.0 + (3 + 1) / 6) / 2)
    assert "Left out: C: missing" in table.note and len(table.rows) == 2  # exact, unmarked
    found.marked["random", DEFAULT, "b"][BLANK] = np.array([False, True])
    table = summary_table(found, [Condition("A", "a"), Condition("B", "b")], ["random"], [])
    left = dict(zip(table.header, table.rows[1], strict=True))
    assert left["detector"] == "exact, blank images left out" and left["FPR at 1 %"] == Rate(3, 6)
    assert left["TPR at 1 %"] == Rate(3, 3)
    assert "B 1/2" in table.note


def test_published_thresholds_come_from_the_calibration_images_alone() -> None:
    found = made_up(a=[9.0, 9.0])
    found.marked["random", DEFAULT, "a"][CHI_SQUARE] = np.array([60.0, 120.0])
    found.unmarked["random", "a"][CHI_SQUARE] = np.array([200.0, 300.0])
    found.calibration["random"] = {CHI_SQUARE: np.arange(100.0)}
    one = series_of(found, "random", "a", CHI_SQUARE)
    assert one is not None and one.tpr(0.01) == Rate(1, 2) and one.fpr(0.01) == Rate(2, 2)


def test_what_is_searched_is_what_verification_answers(tiny_model: LatentModel) -> None:
    key = Key.generate(tiny_model.latent_shape, seed=1)
    images = [made.image for made in generate(tiny_model, key, seeds=[1], steps=2)]
    images += [images[0].transpose(Image.Transpose.FLIP_LEFT_RIGHT), grey_image().resize(images[0].size)]
    found = trials.recover(tiny_model, images, InversionOptions(), published=False)
    answers = evidence_of_each(tiny_model, found, [key] * 3, searched=True)
    expected = [verify(image, key, model=tiny_model).best.log10_adjusted for image in images]  # type: ignore[union-attr]
    np.testing.assert_allclose(answers[SEARCHED], expected, rtol=1e-4)
    assert as_verified("random") == SEARCHED and as_verified("gaussian-shading") == EXACT


def test_survival_counts_what_verification_finds_under_every_condition(tmp_path: Path) -> None:
    findings = survival.measure(WhiteModel(), Scope(silent, quick=True))
    check_storing(findings, tmp_path)
    mean, by_condition = findings.tables
    line = dict(zip(mean.header, mean.rows[0], strict=True))
    assert line["found at p <= 1e-06"] == Rate(12, 12) and line["unmarked, p <= 0.001"] == Rate(0, 12)
    assert [row[1] for row in by_condition.rows] == ["random", "rings"] * 3


# --- images ---------------------------------------------------------------------------------------------------------


def test_the_cost_to_an_image_is_measured_as_documented() -> None:
    twins = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0)) - 0.5
    found = cost(twins + 0.2, twins, twins, [0, 0, 0, 0])
    assert found.paired == pytest.approx(0.2 * 127.5) and found.distance > 0
    flat = torch.tensor([0.0, 1.0, 5.0]).view(3, 1, 1, 1).expand(3, 3, 32, 32)  # 12 equal means an image
    assert diversity(flat, ["a", "a", "b"]) == pytest.approx(12**0.5)
    assert diversity(flat, ["a", "a", "a"]) == pytest.approx(12**0.5 * (1 + 4 + 5) / 3)
    assert np.isnan(diversity(flat, ["a", "b", "c"]))


def test_point_symmetry_is_one_for_symmetric_images_and_minus_one_for_antisymmetric_ones() -> None:
    rows = torch.arange(64.0) - 31.5
    antisymmetric = (rows[:, None] + 0.3 * rows[None]).expand(2, 3, 64, 64) * torch.tensor([1.0, -2.0]).view(2, 1, 1, 1)
    nothing = torch.zeros(1, 3, 64, 64)
    assert point_symmetry(antisymmetric, nothing) == pytest.approx(-1.0)
    assert point_symmetry(antisymmetric**2, nothing) == pytest.approx(1.0)
    assert point_symmetry(antisymmetric[:1], antisymmetric[:1]) == pytest.approx(0.0)  # what all have is no symmetry


def test_keys_share_images_so_that_each_class_has_two() -> None:
    assert [keys_among(n, 5) for n in (4, 19, 20, 48, 500)] == [1, 1, 2, 4, 4]
