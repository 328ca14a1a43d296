"""The first of two passes: what it reads, what it settles, and that both together spend no more than alpha."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from scipy import stats
from treering_detectors import cosine_tests

from treering_verify.detection.screening import MOST_KEYS, SCREENS, Screening, corrected_for_share, default_screening
from treering_verify.errors import UsageError
from treering_verify.inversion import noise as noise_inversion
from treering_verify.inversion.recovery import InversionOptions
from treering_verify.models import LatentModel
from treering_verify.models.networks.estimator import Estimator
from treering_verify.models.weights import fingerprint
from treering_verify.results import KeyEvidence
from treering_verify.training.band import band_error, band_weights
from treering_verify.training.landscape import train_estimator
from treering_verify.watermark.embedding import extract, features
from treering_verify.watermark.keys.key import Key


@pytest.fixture
def image() -> torch.Tensor:
    return torch.rand(1, 3, 128, 128, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_each_screening_pass_reads_what_its_name_says(tiny_model: LatentModel, image: torch.Tensor) -> None:
    with torch.inference_mode():
        latent = tiny_model.encode(image)
        passed = noise_inversion.trajectory(tiny_model, latent, steps=10, most=3)
    read = {name: screen(tiny_model, image)[0] for name, screen in SCREENS.items() if name != "filter"}
    for name, expected in {"latent": latent, **{f"step-{k}": passed[k] for k in (1, 2, 3)}}.items():
        torch.testing.assert_close(read[name], expected)
    torch.testing.assert_close(read["screen"], latent)  # an untrained network ends where it begins
    assert not torch.equal(read["inverted"], latent)


def test_auto_is_the_screen_where_a_model_has_one(tiny_model: LatentModel, monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(tiny_model.screen, Estimator) and tiny_model.screen.points == (0,)
    assert Screening().of(tiny_model).method == "screen"
    monkeypatch.setattr(tiny_model, "screen", None)
    assert Screening().of(tiny_model).method == "latent"
    with pytest.raises(UsageError, match="no screen: choose another screening pass"):
        Screening("screen").of(tiny_model)


def test_two_passes_are_the_default_only_where_they_were_measured(
    tiny_model: LatentModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert default_screening(tiny_model, InversionOptions(batch_size=3), 1) == Screening()
    assert default_screening(tiny_model, InversionOptions(), MOST_KEYS) == Screening()
    assert default_screening(tiny_model, InversionOptions(), MOST_KEYS + 1) is None
    assert default_screening(tiny_model, InversionOptions(method="encoder"), 1) is None
    monkeypatch.setattr(tiny_model, "screen", None)
    assert default_screening(tiny_model, InversionOptions(), 1) is None


@pytest.mark.parametrize("bad", [{"method": "glance"}, {"share": 0.0}, {"share": 1.0}, {"gate": 0.0}, {"gate": 1.1}])
def test_settings_out_of_range_are_refused(bad: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        Screening(**bad)  # type: ignore[arg-type]


def test_p_far_below_alpha_or_above_the_gate_needs_no_full_pass() -> None:
    screening = Screening(share=0.01, gate=0.1)
    found = [screening.settles(log10, 1e-6) for log10 in (-300.0, -8.01, -7.99, -6.0, -1.01, -0.99, 0.0)]
    assert found == [True, True, False, False, False, True, True]
    assert not Screening(gate=1.0).settles(0.0, 1e-6)


def test_each_pass_is_corrected_for_its_share_and_no_p_exceeds_1() -> None:
    one = KeyEvidence("a", "0", 0.5, -9.0, -8.0, 1024)
    assert corrected_for_share((one,), 0.01)[0] == replace(one, log10_adjusted=-6.0)
    assert corrected_for_share((replace(one, log10_adjusted=-0.5),), 0.01)[0].log10_adjusted == 0.0


@pytest.mark.parametrize("gate", [0.3, 1.0])
@pytest.mark.parametrize("related", ["same", "opposite", "independent"])
def test_both_passes_together_spend_no_more_than_alpha_and_without_a_gate_nearly_all(related: str, gate: float) -> None:
    """However the two features depend on each other: over keys, detections are as rare as alpha says."""
    screening, alpha, count = Screening(share=0.4, gate=gate), 0.05, 5000
    rng = np.random.default_rng(11)
    first = rng.standard_normal(40)
    second = {"same": first, "opposite": -first, "independent": rng.standard_normal(40)}[related]
    keys = rng.standard_normal((count, 40))
    reported = []
    for one, two in zip(cosine_tests(first, keys), cosine_tests(second, keys), strict=True):
        settled = screening.settles(one.log10_pvalue, alpha)
        decided, share = (one, screening.share) if settled else (two, 1 - screening.share)
        evidence = KeyEvidence("k", "0", decided.statistic, decided.log10_pvalue, decided.log10_pvalue, 40)
        reported.append(10 ** corrected_for_share((evidence,), share)[0].log10_adjusted)
    for level in (alpha, 0.01, 0.2, 0.5):
        low, high = stats.binom.ppf([1e-4, 1 - 1e-4], count, level)
        hits = sum(p <= level for p in reported)
        assert hits <= high
        if level == alpha and related != "same" and gate == 1:  # disjoint or independent: all but the corner is used
            assert hits >= low * (1 - alpha)


def test_the_recipe_trains_a_screen_from_the_estimators_examples(tiny_model: LatentModel, tmp_path: Path) -> None:
    options = {"count": 16, "copies": 1, "batch": 8, "points": (0, 1), "width": 8, "blocks": 1}
    screen = train_estimator.train(tiny_model, tmp_path, "screen", steps=3, **options)  # type: ignore[arg-type]
    assert screen.points == (0,)
    (kept,) = (tmp_path / "estimator-examples").iterdir()
    data = load_file(kept)
    inputs, noise = data["encoded"].float(), data["noise"].float()
    weights = band_weights(32, 32)
    with torch.no_grad():
        before, after = (
            float(band_error(network.estimate(inputs), noise, weights).mean())
            for network in (Estimator(4, 10, (0,), width=8, blocks=1), screen)
        )
    assert after < before


def test_p_of_a_screening_pass_is_uniform_over_keys(tiny_model: LatentModel, image: torch.Tensor) -> None:
    family = Key.generate(tiny_model.latent_shape, seed=1).family
    numbers = np.random.default_rng(3).standard_normal((2000, family.degrees_of_freedom))
    for name in ("latent", "screen", "step-1"):
        (row,) = features(extract(SCREENS[name](tiny_model, image)[0], family), family)
        p = [10**e.log10_pvalue for e in cosine_tests(row, numbers)]
        assert stats.kstest(p, "uniform").pvalue > 1e-4


def test_the_screen_is_part_of_the_settings_of_two_passes_only(
    tiny_model: LatentModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = [fingerprint(tiny_model, without=parts) for parts in (("screen",), ())]
    monkeypatch.setattr(tiny_model, "screen", Estimator(4, 10, (0,), width=8, blocks=1))
    after = [fingerprint(tiny_model, without=parts) for parts in (("screen",), ())]
    assert after[0] == before[0] and after[1] != before[1]
