"""The noise estimator: what it sees, where it begins, when it is asked, and that p stays exact whatever it says."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from scipy import stats
from treering_detectors import cosine_tests

from treering_verify.errors import ModelError, UsageError
from treering_verify.generation.generator import generate
from treering_verify.inversion import noise as noise_inversion
from treering_verify.inversion.recovery import InversionOptions, recover_noise
from treering_verify.media.conversion import to_tensor
from treering_verify.models import LatentModel, load_model
from treering_verify.models.networks.estimator import Estimator
from treering_verify.training.band import band_error, band_weights
from treering_verify.training.landscape import train_estimator
from treering_verify.watermark.embedding import extract, features
from treering_verify.watermark.keys.key import Key


def points(batch: int = 2, count: int = 11) -> list[torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    return [torch.randn(batch, 4, 8, 8, generator=g) for _ in range(count)]


def test_an_untrained_estimator_ends_where_inversion_does() -> None:
    passed = points()
    estimate = Estimator(4, 10, (0, 3, 10), width=8, blocks=1)(passed)
    torch.testing.assert_close(estimate, passed[10])


def test_it_sees_the_points_it_names_and_no_others() -> None:
    torch.manual_seed(0)
    estimator = Estimator(4, 10, (0, 3, 10), width=8, blocks=1)
    for parameter in estimator.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    passed = points()
    before = estimator(passed)
    for place in range(11):
        moved = [point + (i == place) for i, point in enumerate(passed)]
        assert torch.equal(estimator(moved), before) == (place not in (0, 3, 10))


def test_a_model_folder_brings_its_estimator_along(tiny_folder: Path, tiny_model: LatentModel) -> None:
    assert isinstance(tiny_model.estimate, Estimator)
    assert (tiny_model.estimate.steps, tiny_model.estimate.points) == (2, (0, 2))
    assert not any(p.requires_grad for p in tiny_model.estimate.parameters())
    config = tiny_folder / "estimator" / "config.json"
    config.rename(config.with_suffix(".away"))
    try:
        with pytest.raises(ModelError, match="cannot load"):
            load_model(tiny_folder)
    finally:
        config.with_suffix(".away").rename(config)


def test_auto_asks_it_only_for_the_steps_that_it_knows(tiny_model: LatentModel) -> None:
    assert noise_inversion.default_method(tiny_model, 2) == "estimated"
    assert noise_inversion.default_method(tiny_model, 3) == "naive"
    assert noise_inversion.default_method(load_model("landscape-tiny"), 3) == "naive"
    latent = torch.randn(1, 4, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        naive, estimated, auto, other = (
            noise_inversion.invert(tiny_model, latent, method, steps=steps)
            for method, steps in (("naive", 2), ("estimated", 2), ("auto", 2), ("auto", 3))
        )
        assert torch.equal(auto, estimated)
        torch.testing.assert_close(estimated, naive)  # an untrained one
        assert torch.equal(other, noise_inversion.invert(tiny_model, latent, "naive", steps=3))
        with pytest.raises(UsageError, match="knows an inversion of 2 steps, not of 3"):
            noise_inversion.invert(tiny_model, latent, "estimated", steps=3)


@pytest.mark.parametrize(
    ("method", "steps", "passes"), [("auto", 2, 2), ("naive", 2, 2), ("auto", 3, 3), ("exact", 1, 4)]
)
def test_the_naive_answer_comes_along_without_passes_of_its_own(
    tiny_model: LatentModel, monkeypatch: pytest.MonkeyPatch, method: str, steps: int, passes: int
) -> None:
    latent = torch.randn(1, 4, 32, 32, generator=torch.Generator().manual_seed(0))
    asked: list[int] = []
    denoise = tiny_model.denoise

    def counted(*arguments: Any, **options: Any) -> Any:
        asked.append(1)
        return denoise(*arguments, **options)

    with torch.inference_mode():
        alone = [noise_inversion.invert(tiny_model, latent, name, steps=steps) for name in (method, "naive")]
        monkeypatch.setattr(tiny_model, "denoise", counted)
        both = noise_inversion.invert_with_naive(tiny_model, latent, method, steps=steps)
    assert all(torch.equal(a, b) for a, b in zip(both, alone, strict=True))
    assert len(asked) >= passes if method == "exact" else len(asked) == passes


def test_no_more_steps_are_taken_than_it_looks_at(tiny_model: LatentModel) -> None:
    latent = torch.randn(1, 4, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        whole = noise_inversion.trajectory(tiny_model, latent, steps=5)
        some = noise_inversion.trajectory(tiny_model, latent, steps=5, most=2)
    assert len(whole) == 6 and len(some) == 3
    assert all(torch.equal(a, b) for a, b in zip(whole, some, strict=False))


def test_p_is_uniform_whatever_it_says_and_on_images_of_another_key_too(
    tiny_model: LatentModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(5)
    wild = Estimator(4, 2, (0, 2), width=8, blocks=1).requires_grad_(False)
    for parameter in wild.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    monkeypatch.setattr(tiny_model, "estimate", wild)
    other = Key.generate(tiny_model.latent_shape, seed=1)
    made = [g.image for g in generate(tiny_model, other, seeds=range(4), steps=2)]
    noise_hat, _ = recover_noise(
        tiny_model, torch.cat([to_tensor(i) for i in made]), InversionOptions("encoder", steps=2)
    )
    values = features(extract(noise_hat, other.family), other.family)
    numbers = np.random.default_rng(7).standard_normal((2000, other.degrees_of_freedom))
    for row in values:
        p = [10**e.log10_pvalue for e in cosine_tests(row, numbers)]
        assert stats.kstest(p, "uniform").pvalue > 1e-4


def test_the_loss_is_one_for_an_estimate_of_nothing_and_looks_at_the_keys_frequencies() -> None:
    noise = torch.randn(64, 4, 32, 32, generator=torch.Generator().manual_seed(0))
    weights = band_weights(32, 32)
    assert float(band_error(torch.zeros_like(noise), noise, weights).mean()) == pytest.approx(1, abs=0.02)
    assert float(band_error(noise, noise, weights).max()) == 0
    spectrum = torch.fft.rfft2(noise)
    key_band = torch.from_numpy(np.fft.fftfreq(32) * 32).abs()[:, None].expand(32, 17) <= 1  # rows near DC, all columns
    kept = torch.fft.irfft2(spectrum * ~key_band, s=(32, 32))
    share = float(band_error(kept, noise, weights).mean())
    assert share == pytest.approx(float((weights * key_band).sum() / weights.sum()), rel=0.1)


def test_the_recipe_learns_resumes_and_keeps_its_examples(tiny_model: LatentModel, tmp_path: Path) -> None:
    model = tiny_model
    options = {"count": 32, "copies": 2, "steps": 60, "batch": 8, "points": (0, 1, 2), "width": 16, "blocks": 1}
    estimator = train_estimator.train(model, tmp_path, **options)  # type: ignore[arg-type]
    data = train_estimator.examples(model, 50, 1, (0, 1, 2), noise_inversion.DEFAULT_STEPS)
    inputs, noise = data["points"].float(), data["noise"].float()
    weights = band_weights(32, 32)

    def error(network: Estimator) -> float:
        with torch.no_grad():
            return float(band_error(network.estimate(inputs), noise, weights).mean())

    assert error(estimator) < 0.8 * error(Estimator(4, 10, (0, 1, 2), width=16, blocks=1))
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "estimator-examples").iterdir()}
    assert len(kept) == 2
    again = train_estimator.train(model, tmp_path, **options)  # type: ignore[arg-type]
    assert kept == {path: path.stat().st_mtime_ns for path in (tmp_path / "estimator-examples").iterdir()}
    for a, b in zip(estimator.state_dict().values(), again.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    assert cast(Estimator, again).points == (0, 1, 2)
