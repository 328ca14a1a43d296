"""The shipped weights and the figures of their card: what they promise holds on scenes that training never saw."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import avg_pool2d, interpolate

from treering_verify.attacks import Attack
from treering_verify.benchmark.harness.inversion_paths import decibels
from treering_verify.generation.generator import generate
from treering_verify.inversion.decoder import invert
from treering_verify.inversion.recovery import problem_of
from treering_verify.media.conversion import to_tensor
from treering_verify.models import LatentModel, load_model
from treering_verify.results import Generated
from treering_verify.training.landscape.measure import colour_error, learned_steps, sliced_wasserstein, star_contrast
from treering_verify.training.landscape.scenes import CLASSES, render


@pytest.fixture(scope="module")
def landscape() -> LatentModel:
    return load_model("landscape")


@pytest.fixture(scope="module")
def scenes() -> tuple[torch.Tensor, torch.Tensor]:
    batches = [render(40, stream="test", index=i) for i in range(2)]  # of the 200 scenes of the model card
    return torch.cat([images for images, _ in batches]) * 2 - 1, torch.cat([labels for _, labels in batches])


def test_the_autoencoder_keeps_detail_colours_and_stars(
    landscape: LatentModel, scenes: tuple[torch.Tensor, torch.Tensor]
) -> None:
    images, labels = scenes
    with torch.inference_mode():
        decoded = torch.cat([landscape.decode(landscape.encode(part)).clamp(-1, 1) for part in images.split(20)])
    means = interpolate(avg_pool2d(images, 4), scale_factor=4, mode="bicubic").clamp(-1, 1)
    psnr, plain = (-10 * torch.log10(((a - images) / 2).pow(2).mean(dim=(1, 2, 3))).mean() for a in (decoded, means))
    assert float(psnr) > 38
    assert float(psnr) > float(plain) + 1  # an autoencoder below interpolated means has learned nothing
    assert colour_error(decoded, images) < 0.02 * colour_error(images.flip(0), images)  # of other scenes
    night = labels == CLASSES.index("night")
    assert star_contrast(decoded[night], images[night]) > 0.75


def test_the_measures_know_what_they_measure(scenes: tuple[torch.Tensor, torch.Tensor]) -> None:
    images, labels = scenes
    night = images[labels == CLASSES.index("night")]
    assert colour_error(images + 0.1, images) == pytest.approx(12.75, rel=1e-4)
    assert star_contrast(night, night) == pytest.approx(1.0)
    blurred = avg_pool2d(night, 3, 1, 1, count_include_pad=False)
    assert 0.2 < star_contrast(blurred, night) < 0.7
    assert sliced_wasserstein(images, images, patches=2000) < 0.05 * sliced_wasserstein(
        images, images + 1, patches=2000
    )


def test_what_learned_steps_do_is_told_attack_by_attack(landscape: LatentModel) -> None:
    clean, jpeg = learned_steps(landscape, ["jpeg:quality=25"], 2)
    assert clean.startswith("clean") and jpeg.startswith("jpeg:quality=25")
    for line, least in ((clean, 3), (jpeg, 1)):
        encoder, one = (float(part.split(" dB")[0].split()[-1]) for part in line.split("; ")[:2])
        assert one < encoder - least
        assert "; 0 rejected; " in line
    ratios = [float(line.split("residual of the true latent ")[1].split()[0]) for line in (clean, jpeg)]
    assert ratios[0] < 1 < ratios[1], "where an image was changed, the truth does not solve the equation"


@pytest.fixture(scope="module")
def made(landscape: LatentModel) -> list[Generated]:
    return list(generate(landscape, None, seeds=range(70, 78), steps=15))


@pytest.mark.parametrize("quality", [None, 50, 25])
def test_the_default_brings_generated_images_nearer_than_the_encoder_attacked_ones_too(
    landscape: LatentModel, made: list[Generated], quality: int | None
) -> None:
    latents, images = torch.stack([r.latent for r in made]), [r.image for r in made]
    if quality:
        images = [Attack("jpeg", {"quality": quality}).apply(image, seed=i) for i, image in enumerate(images)]
    problem = problem_of(landscape, torch.cat([to_tensor(image) for image in images]))
    encoder, default = (decibels(invert(problem, method).latent, latents).mean() for method in ("encoder", "auto"))
    assert default < encoder - (1 if quality else 3)
