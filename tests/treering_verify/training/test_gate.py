"""The gate takes a step where it brings images nearer, and none where it does not, by what the image says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers.models import pipelines

import treering_verify as tv
from treering_verify.errors import ModelError, UsageError
from treering_verify.models.filter_bank import Activity
from treering_verify.models.inverter import GATED, Inverter, decoder_inputs
from treering_verify.training.attack_table import ALONE, EXPERTS, UNLIKE
from treering_verify.training.closed_form import fit, usual_attacks
from treering_verify.training.examples import FitOptions, attacked, photographed, too_few
from treering_verify.training.gate import SIDE, Tried, change, fit_gate, middle, try_steps
from treering_verify.training.regression import fit_filter


def gaussian(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def group(wanted: float, sign: float, count: int = 60, seed: int = 0) -> Tried:
    """Return images that want so much of a step, and whose first statistic says which group they are of."""
    statistics = gaussian(count, 3, seed=seed) + torch.tensor([6.0 * sign, 0.0, 0.0])
    return Tried(statistics, torch.full((count, 1), 0.5 * wanted), torch.full((count, 1, 1), 0.5))


def test_the_gate_takes_a_step_where_it_helps_and_none_where_it_harms() -> None:
    helped, harmed = group(1, 1), group(-1, -1, seed=1)
    gate = fit_gate([helped, harmed])
    shares = [gate(some.statistics) for some in (helped, harmed)]
    for one in shares:
        assert one.shape == (60, 2)
        torch.testing.assert_close(one.sum(dim=1), torch.ones(60))
    assert float(shares[0][:, 0].mean()) > 0.8 and float(shares[1][:, 0].max()) < 0.05
    assert float(change(helped, shares[0][:, :-1]).max()) < -2.5  # 3 dB is what the whole step brings
    assert float(change(harmed, shares[1][:, :-1]).max()) < 0.1


def test_the_gate_does_without_a_gain_that_it_cannot_tell_from_harm() -> None:
    """Three of four images gain 3 dB, one loses 4.8 dB, and no statistic says which: the mean is not what counts."""
    alike = [group(1, 0, 90), group(-1, 0, 30, seed=1)]
    gate = fit_gate(alike)
    worst = max(float(change(some, gate(some.statistics)[:, :-1]).max()) for some in alike)
    assert worst < 0.1


def test_errors_in_db_are_those_of_the_mixture() -> None:
    error, steps = gaussian(5, 40, seed=2), gaussian(5, 2, 40, seed=3)
    power = error.square().sum(dim=1)
    cross = torch.einsum("njd,nd->nj", steps, error) / power[:, None]
    gram = torch.einsum("njd,nkd->njk", steps, steps) / power[:, None, None]
    shares = torch.rand(5, 2, generator=torch.Generator().manual_seed(4))
    left = error - torch.einsum("nj,njd->nd", shares, steps)
    expected = 10 * torch.log10(left.square().sum(dim=1) / power)
    torch.testing.assert_close(change(Tried(gaussian(5, 1, seed=5), cross, gram), shares), expected)


def test_steps_are_tried_on_images_that_their_filters_were_not_fitted_to() -> None:
    """One image wants the opposite of all others: a filter fitted to it as well would do it less harm."""
    inputs = gaussian(8, 1, 6, 6, seed=6)
    missing = inputs.clone()
    missing[5] *= -0.5
    activity = Activity.of(inputs)
    found = fit_filter(torch.cat([inputs, 0 * inputs], dim=1), missing, 1, apart=True)
    assert len(found.apart) == 4
    tried = try_steps([found], inputs, missing, torch.zeros(8, 2), activity)
    assert float(tried.cross[5, 0]) < 0
    weight = (found.apart[1][0].flatten() / found.scale)[:1]  # without images 1 and 5
    torch.testing.assert_close(weight, torch.ones(1), rtol=0.1, atol=0)
    torch.testing.assert_close(tried.cross[5], -2 * weight, rtol=0.05, atol=0.01)
    assert fit_filter(inputs, missing, 1).apart == ()


def test_filters_differ_from_place_to_place_with_what_goes_on_there() -> None:
    """Where little goes on half of E(x) is missing, and elsewhere nothing: one filter for all places cannot do both."""
    busy = (torch.arange(24) < 12).float() * torch.ones(24, 1)
    start = gaussian(8, 2, 24, 24, seed=12) * (0.3 + busy)
    missing = 0.5 * start * (1 - busy)
    activity = Activity.of(start)
    inputs = decoder_inputs(start, [start], [gaussian(8, 2, 24, 24, seed=13)], activity)
    plain = decoder_inputs(start, [start], [gaussian(8, 2, 24, 24, seed=13)])
    assert inputs.shape[1] == 2 * plain.shape[1] and torch.equal(inputs[:, : plain.shape[1]], plain)
    weights = inputs[:, plain.shape[1] :] / plain
    assert float(weights[..., :10].mean()) > 0.5 and float(weights[..., 14:].mean()) < -0.5
    assert float(weights.abs().max()) < 2.51
    explained = [fit_filter(some, missing, 1).explained for some in (plain, inputs)]
    assert explained[0] < 0.1 and explained[1] > 0.5


def test_the_middle_is_cut_out_of_large_latents_only() -> None:
    latents = gaussian(1, 2, SIDE + 8, SIDE - 4, seed=7)
    assert torch.equal(middle(latents), latents[:, :, 4 : 4 + SIDE, :])


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    from PIL import Image
    from skimage import data

    folder = tmp_path_factory.mktemp("photographs")
    for name in ("astronaut", "coffee", "chelsea", "rocket", "retina"):
        Image.fromarray(getattr(data, name)()).save(folder / f"{name}.png")
    return sorted(folder.iterdir())


def test_an_autoencoders_filters_have_a_gate_which_a_folder_keeps(photographs: list[Path], tmp_path: Path) -> None:
    from scipy.stats import kstest
    from treering_detectors import cosine_tests

    from treering_verify.inversion.recovery import recover_noise
    from treering_verify.models.inverter import carrying
    from treering_verify.watermark.embedding import extract, features

    pipelines.stable_diffusion("v_prediction").save_pretrained(tmp_path / "model")
    model = tv.load_model(tmp_path / "model")
    alone = tv.load_model(tmp_path / "model" / "vae", image_size=model.image_size)
    options = FitOptions(images=8, kernel=1, stages=2)
    table = {"clean": ("clean",), "JPEG": ("jpeg:quality=60", "jpeg:quality=40")}
    found = fit(alone, options=options, attacks=table, photographs=photographs)
    saved = found.save(tmp_path / "filters")
    assert saved.gate is not None and saved.gate.bias.shape == (3,)
    assert saved.activity is not None and saved.activity == found.activity
    assert saved.stages[0].weights.shape[2] == 4 * model.latent_shape[0]
    assert f'"version": {GATED}' in (tmp_path / "filters" / "config.json").read_text()
    described = found.chooser.mean[None]
    kinds, taken = saved.shares(described)
    torch.testing.assert_close(taken, saved.gate(described)[:, :-1])
    assert float(kinds.sum()) == pytest.approx(1) and float(taken.sum()) < 1
    with pytest.raises(UsageError, match="fit all of them again"):
        fit(alone, options=options, attacks={"clean": ("clean",)}, photographs=photographs, keep=saved)
    with pytest.raises(ModelError, match="damaged"):  # a gate of too few outcomes
        replace(found, gate=replace(saved.gate, bias=torch.zeros(2))).save(tmp_path / "other")
    for wrong in (Activity(0.0, 0.0), Activity(float("nan"), 1.0)):
        with pytest.raises(ModelError, match="damaged"):
            replace(found, activity=wrong).save(tmp_path / "other")

    # What the gate takes depends on the image alone, so p-values over keys stay uniform.
    images = torch.cat(
        [
            tv.media.conversion.to_tensor(tv.media.conversion.fit(tv.media.images.open_image(p), model.image_size)[0])
            for p in photographs
        ]
    )
    noise_hat, solution = recover_noise(carrying(model, Inverter.load(tmp_path / "filters")), images)
    assert solution.shares is not None
    family = tv.Key.generate(model.latent_shape, seed=1).family
    draws = torch.randn(2000, family.degrees_of_freedom, generator=torch.Generator().manual_seed(8)).numpy()
    for row in features(extract(noise_hat, family), family):
        assert kstest([10**one.log10_pvalue for one in cosine_tests(row, draws)], "uniform").pvalue > 1e-4


def test_every_fourth_image_is_of_photographs_of_its_own(photographs: list[Path]) -> None:
    """Crops of the same photograph say little about other photographs."""
    used: dict[int, set[str]] = {}

    coded: list[torch.Tensor] = []

    class Alone:
        image_size = (16, 16)

        def encode(self, image: torch.Tensor) -> torch.Tensor:
            coded.append(image)
            return image

        def decode(self, latent: torch.Tensor) -> torch.Tensor:
            return latent

    from unittest.mock import patch

    from treering_verify.training import examples as module

    opened: list[str] = []
    real = module.open_image
    with patch.object(module, "open_image", lambda path: opened.append(str(path)) or real(path)):
        made = photographed(Alone(), photographs, 16, 3)  # type: ignore[arg-type]
    for number, path in enumerate(opened):
        used.setdefault(number % 4, set()).add(path)
    assert not used[3] & (used[0] | used[1] | used[2]) and set().union(*used.values()) == set(map(str, photographs))
    # Some latents are moved by .15 of their deviation, others are the photographs' own.
    photographed_as = torch.cat(coded)
    moved = (made.latents - photographed_as).flatten(1).std(dim=1) / photographed_as.flatten(1).std(dim=1)
    assert 3 < int((moved == 0).sum()) < 13
    torch.testing.assert_close(moved[moved > 0], torch.full_like(moved[moved > 0], 0.15), rtol=0.1, atol=0)
    # Of those to fit to, some have other tones.
    coded.clear()
    with patch.object(module, "open_image", real):
        photographed(Alone(), photographs, 16, 3, toned=True)  # type: ignore[arg-type]
    assert 3 < int((torch.cat(coded) == photographed_as).flatten(1).all(dim=1).sum()) < 13


def test_every_quarter_of_the_images_goes_through_every_attack() -> None:
    from PIL import Image

    images = [Image.new("RGB", (8, 8), (128, 128, 128))] * 16
    attacks = [f"brightness:factor={factor}" for factor in (0.2, 0.4, 0.6, 0.8)]
    levels = attacked(images, attacks, 0, shifted=True).mean(dim=(1, 2, 3)).reshape(4, 4)
    for quarter in levels.T:
        assert len(set(quarter.tolist())) == 4
    assert len(set(attacked(images, attacks, 0).mean(dim=(1, 2, 3)).reshape(4, 4)[:, 1].tolist())) == 1


def test_tonal_attacks_have_no_expert_where_photographs_are_fitted_to(tmp_path: Path) -> None:
    pipelines.stable_diffusion("v_prediction").save_pretrained(tmp_path)
    assert usual_attacks(tv.load_model(tmp_path / "vae")) is ALONE and usual_attacks(tv.load_model(tmp_path)) is EXPERTS
    left_out = {text for name, some in EXPERTS.items() if name not in ALONE for text in some}
    assert left_out and left_out < set(UNLIKE)
    assert all(text.startswith(("brightness", "contrast")) for text in left_out)


def test_few_different_photographs_are_told_and_fewer_refused(photographs: list[Path]) -> None:
    from PIL import Image

    with pytest.raises(UsageError, match=r"3 different photographs .* not enough: name 4 at least, better 12 or more"):
        too_few([*photographs[:3], *photographs[:3]])
    assert "5 different photographs to fit to are few" in too_few(photographs)
    others = [Image.new("RGB", (8, 8), (shade, 0, 0)) for shade in range(7)]
    assert too_few([*photographs, *others]) == ""


def test_filters_of_many_channels_and_few_images_are_drawn_to_those_of_their_own_channels() -> None:
    """Of 16 channels each output depends on its own two alone, and two images say little about 288 weights."""
    inputs = gaussian(8, 32, 6, 6, seed=10)
    target = 0.5 * inputs[:, :16] - 0.3 * inputs[:, 16:].roll(1, -1) + 0.5 * gaussian(8, 16, 6, 6, seed=11)
    free, drawn = (fit_filter(inputs, target, 3, own=own, apart=True).explained for own in (False, True))
    assert drawn > free + 0.02


def test_filters_of_many_channels_are_small() -> None:
    from treering_verify.training.regression import reach

    assert [reach(channels, 5) for channels in (67, 68, 188, 189, 5000)] == [5, 3, 3, 1, 1]
    assert reach(8, 3) == 3 and reach(5000, 1) == 1
