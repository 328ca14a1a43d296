"""The text-to-image model that ships: trained weights in Stable Diffusion's format, through the commands of any model."""

from __future__ import annotations

import pytest
import torch
from helpers.places import SAMPLES
from PIL import Image

import treering_verify as tv
from treering_verify.models import EMBEDDED, LatentModel, latent_shape, load_pipeline
from treering_verify.models.inverter import fitted
from treering_verify.training.landscape_sd.measure import held_out_prompts

SHAPE = (4, 32, 32)
SEEDS = range(900, 902)


@pytest.fixture(scope="module")
def model() -> LatentModel:
    return tv.load_model("landscape-sd")


@pytest.fixture(scope="module")
def key() -> tv.Key:
    return tv.Key.generate(SHAPE, seed=5)


def images(model: LatentModel, key: tv.Key | None, guidance: float = 3.0) -> list[Image.Image]:
    made = tv.generate(model, key, seeds=SEEDS, prompts=held_out_prompts(len(SEEDS)), steps=10, guidance=guidance)
    return [one.image for one in made]


def test_it_is_a_pipeline_of_diffusers_and_its_noise_is_known_before_it_is_loaded(model: LatentModel) -> None:
    assert latent_shape("landscape-sd") == model.latent_shape == SHAPE and model.image_size == (256, 256)
    assert {path.name for path in EMBEDDED["landscape-sd"].iterdir()} >= {
        "model_index.json",
        "unet",
        "vae",
        "README.md",
    }
    assert not [path for path in EMBEDDED["landscape-sd"].rglob("*") if path.suffix in (".bin", ".pt", ".ckpt")]


def test_its_filters_are_its_default(model: LatentModel) -> None:
    inverter = fitted(model)
    assert inverter is not None and inverter.facts["model"] == "landscape-sd" and not inverter.differences(model)


def test_marks_are_found_without_the_prompt_and_twins_are_no_evidence(model: LatentModel, key: tv.Key) -> None:
    marked, plain = images(model, key), images(model, None)
    for verdict in tv.verify_many(marked, key, model=model):
        assert verdict.verdict == "detected" and verdict.best is not None and verdict.best.log10_adjusted < -20
    for verdict in tv.verify_many(plain, key, model=model):
        assert verdict.verdict == "no evidence"


def test_prompts_are_read(model: LatentModel) -> None:
    """The same noise becomes the scene that a prompt names: a desert is warmer than snow, and night darker than day."""

    def mean(prompt: str) -> torch.Tensor:
        (made,) = tv.generate(model, None, seeds=[1], prompts=[prompt], steps=10, guidance=5)
        pixels = torch.frombuffer(bytearray(made.image.tobytes()), dtype=torch.uint8).view(256, 256, 3)
        return pixels.float().mean(dim=(0, 1))

    desert, snow = mean("a sandy desert by day"), mean("mountains in the snow by day")
    assert desert[0] - desert[2] > snow[0] - snow[2] + 20
    assert mean("rolling hills at night").mean() + 30 < mean("rolling hills by day").mean()


def test_its_own_pipeline_takes_marked_noise(model: LatentModel, key: tv.Key) -> None:
    pipe = load_pipeline("landscape-sd")
    pipe.set_progress_bar_config(disable=True)
    latents = tv.watermarked_noise(pipe, key, seeds=[3])
    made = pipe(["hills with a lake"], latents=latents, num_inference_steps=10, guidance_scale=3.0).images[0]
    assert tv.verify(made, key, model=tv.from_pipeline(pipe)).verdict == "detected"


def test_image_to_image_at_half_strength_is_marked_by_the_callback(key: tv.Key) -> None:
    from diffusers import StableDiffusionImg2ImgPipeline

    pipe = StableDiffusionImg2ImgPipeline(**load_pipeline("landscape-sd").components, requires_safety_checker=False)
    pipe.set_progress_bar_config(disable=True)
    photograph = Image.open(SAMPLES / "photograph.png").convert("RGB").resize((256, 256))
    given = {"image": photograph, "strength": 0.5, "num_inference_steps": 12, "guidance_scale": 2.0}
    made, twin = (
        pipe("a lake", **given, **more, generator=torch.Generator().manual_seed(1)).images[0]
        for more in ({"callback_on_step_end": tv.WatermarkCallback(pipe, key)}, {})
    )
    model = tv.from_pipeline(pipe)
    assert tv.verify(made, key, model=model, search="off").verdict == "detected"
    assert tv.verify(twin, key, model=model, search="off").verdict == "no evidence"
