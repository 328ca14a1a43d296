"""The refiner: what it is told, where it begins, and that it can learn from the images that its recipe makes."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch

from treering_verify.inversion.decoder import invert
from treering_verify.inversion.recovery import problem_of
from treering_verify.models import LatentModel, load_model
from treering_verify.models.class_conditional import ClassConditionalModel
from treering_verify.models.networks.refiner import Refiner, features
from treering_verify.training.attack_table import drawn_attack
from treering_verify.training.landscape import train_refiner
from treering_verify.training.landscape.train_refiner import Round


def known(batch: int = 2) -> tuple[torch.Tensor, ...]:
    g = torch.Generator().manual_seed(0)
    latents = [torch.randn(batch, 4, 8, 8, generator=g) for _ in range(3)]
    return (*latents, *(torch.randn(batch, 3, 32, 32, generator=g) for _ in range(2)))


def test_an_untrained_refiner_takes_a_forward_step() -> None:
    start, z, residual, image, output = known()
    assert torch.equal(Refiner(4, 4)(start, z, residual, image, output), -residual)


def test_the_features_put_every_pixel_beside_its_latent_cell() -> None:
    start, z, residual, image, output = known(1)
    stacked = features(start, z, residual, image, output, 4)
    assert stacked.shape == (1, 12 + 96, 8, 8)
    moved = image.clone()
    moved[0, 1, 13, 22] += 1.0  # row 13, column 22: cell (3, 5)
    changed = (features(start, z, residual, moved, output, 4) != stacked).nonzero()
    assert {tuple(c[2:].tolist()) for c in changed} == {(3, 5)}
    assert len(changed) == 2  # the image and the misfit


def test_a_refiner_is_shown_what_the_denoiser_makes_of_each_level(tiny_model: LatentModel) -> None:
    asked: list[int] = []

    def denoise(z: torch.Tensor, level: int) -> torch.Tensor:
        asked.append(level)
        return z + level

    refiner = Refiner(4, 4, width=8, blocks=1, levels=(21, 81))
    start, z, residual, image, output = known()
    with pytest.raises(ValueError, match="denoiser"):
        refiner(start, z, residual, image, output)
    refiner.denoise = denoise
    assert torch.equal(refiner(start, z, residual, image, output), -residual), "silent at first"
    assert asked == [21, 81]
    assert [float(p.mean()) for p in refiner.priors(z, denoise)] == pytest.approx([84, 324], rel=1e-4)
    torch.nn.init.normal_(refiner.prior.weight)
    torch.nn.init.normal_(refiner.last.weight)
    heard = refiner(start, z, residual, image, output)
    refiner.denoise = lambda z, level: z
    assert not torch.equal(refiner(start, z, residual, image, output), heard)


def test_the_denoiser_of_a_refiner_is_its_models_own(tiny_model: LatentModel) -> None:
    assert isinstance(tiny_model, ClassConditionalModel)
    z = torch.randn(2, 4, 32, 32, generator=torch.Generator().manual_seed(5))
    grid = tiny_model.timesteps(1000 // 20)
    at = next(point for point in grid if point.index == 21)
    with torch.inference_mode():
        expected = tiny_model.denoise(at.signal * z, at, [None, None])[0]
        assert torch.equal(tiny_model.denoised(z, 21), expected)
        assert torch.equal(tiny_model.refine.denoise(z, 21), expected)  # type: ignore[union-attr]


def test_a_model_folder_brings_its_refiner_along(tiny_folder: Path, tiny_model: LatentModel) -> None:
    assert isinstance(tiny_model.refine, Refiner)
    assert not any(p.requires_grad for p in tiny_model.refine.parameters())
    image = torch.rand(2, 3, 128, 128, generator=torch.Generator().manual_seed(1)) * 2 - 1
    result = invert(problem_of(tiny_model, image), "learned")
    assert result.latent.isfinite().all()
    (tiny_folder / "refiner" / "config.json").rename(tiny_folder / "refiner" / "config.away")
    try:
        with pytest.raises(Exception, match="cannot load"):
            load_model(tiny_folder)
    finally:
        (tiny_folder / "refiner" / "config.away").rename(tiny_folder / "refiner" / "config.json")


def test_attacks_are_drawn_in_the_shares_that_the_recipe_says() -> None:
    generator = random.Random(0)
    drawn = [drawn_attack(generator) for _ in range(2000)]
    names = [text.partition(":")[0] for text in drawn]
    assert names.count("clean") / 2000 == pytest.approx(0.35, abs=0.04)
    assert names.count("jpeg") / 2000 == pytest.approx(0.30, abs=0.04)
    assert set(names) == {"clean", "jpeg", "webp", "noise", "blur", "resize", "brightness"}


def test_the_recipe_lowers_the_error_and_resumes(tiny_model: LatentModel, tmp_path: Path) -> None:
    rounds = (Round(64, 30), Round(32, 30, copies=2, path=1, guided=True))

    def train() -> Refiner:
        torch.manual_seed(0)
        return train_refiner.train(tiny_model, tmp_path, rounds=rounds, batch=16, width=24, blocks=1)

    refiner = train()
    inputs, targets, sizes = train_refiner.examples(tiny_model, refiner, Round(32, 0, guided=True), first=1000)

    def error(network: Refiner) -> float:
        with torch.no_grad():
            rest = network.correct(inputs.float()) - targets.float()
        return float((rest.flatten(1).pow(2).mean(1) / sizes).mean())

    assert error(refiner) < 0.8 * error(Refiner(4, 4, levels=train_refiner.LEVELS))
    assert bool(refiner.prior.weight.any()), "the guided round teaches what the denoiser's answers mean"
    for a, b in zip(refiner.state_dict().values(), train().state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_copies_of_a_round_are_attacked_apart(tiny_model: LatentModel) -> None:
    chunks = list(train_refiner.images(tiny_model, Round(16, 0, copies=2)))
    (first, one), (again, other) = chunks
    assert torch.equal(first, again)
    assert not torch.equal(one, other)
