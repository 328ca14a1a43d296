"""The laboratory of decoder inversions: paths, clocks, the variants that are compared, and what is cached."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.progress import silent

from treering_verify.benchmark import Scope
from treering_verify.benchmark.harness.cache import cached
from treering_verify.benchmark.harness.inversion_methods import Variant, attacked, own, published, stages_of
from treering_verify.benchmark.harness.inversion_paths import Path as Followed
from treering_verify.benchmark.harness.inversion_paths import decibels, follow
from treering_verify.benchmark.harness.laboratory import Clock, Laboratory
from treering_verify.benchmark.harness.scope import truth
from treering_verify.benchmark.paper.inversion import _attacked
from treering_verify.inversion.decoder import DEFAULTS, default_method, invert, unstopped
from treering_verify.inversion.recovery import problem_of
from treering_verify.models import LatentModel, load_model
from treering_verify.models.networks.refiner import Refiner
from treering_verify.models.weights import fingerprint

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
            assert not variant.settings.early_stopping and variant.settings.stagnation == -math.inf


# --- the laboratory ---------------------------------------------------------------------------------------------------


def test_a_cached_measurement_is_not_repeated_and_one_of_other_facts_is(tmp_path: Path) -> None:
    asked: list[str] = []

    def measure(answer: float) -> Callable[[], dict[str, Any]]:
        def work() -> dict[str, Any]:
            asked.append(str(answer))
            return {"numbers": np.array([answer, np.nan])}

        return work

    first = cached(tmp_path, "x", ("facts", 1), measure(1.0))
    again = cached(tmp_path, "x", ("facts", 1), measure(2.0))
    other = cached(tmp_path, "x", ("facts", 2), measure(3.0))
    np.testing.assert_array_equal(first["numbers"], again["numbers"])
    assert other["numbers"][0] == 3.0 and asked == ["1.0", "3.0"]
    assert cached(None, "x", ("facts", 1), measure(4.0))["numbers"][0] == 4.0
    assert {path.suffix for path in tmp_path.iterdir()} == {".npz", ""}  # and nothing half-written, but a lock
    assert len(list(tmp_path.glob("*.npz"))) == 2


def test_an_interrupted_benchmark_resumes(tiny_folder: Path, tmp_path: Path) -> None:
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
    for refined, stages in ((True, 0), (False, 0), (False, 3), (True, 3)):
        method = default_method(refined=refined, filtered=stages > 0)
        settings = replace(DEFAULTS[method], iterations=stages or DEFAULTS[method].iterations)
        for variants in (own(20, refined=refined, stages=stages), attacked(20, refined=refined, stages=stages)):
            assert [(v.method, v.settings) for v in variants if v.is_default] == [(method, settings)]
            assert len({(v.label, v.budgets) for v in variants}) == len(variants)


def test_the_default_of_a_model_with_filters_is_named_and_run_as_they_are() -> None:
    model = load_model("landscape-tiny")
    assert stages_of(model) == 3 and stages_of(load_model("landscape")) == 0
    first = next(v for v in attacked(20, refined=False, stages=stages_of(model)) if v.is_default)
    assert (first.label, first.budgets, first.one_point) == ("filtered (default)", (3,), True)


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
