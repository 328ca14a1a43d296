"""Pipelines of diffusers: each family marks, generates, inverts and verifies, and none is changed by it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    EulerDiscreteScheduler,
    FlowMatchHeunDiscreteScheduler,
    FluxPipeline,
    LCMScheduler,
    PixArtAlphaPipeline,
    PNDMScheduler,
)
from helpers.models import pipelines
from helpers.models.pipelines import relative, state_of

import treering_verify as tv
from treering_verify.cli.main import main
from treering_verify.errors import ModelError, UsageError
from treering_verify.generation.generator import initial_noise
from treering_verify.inversion.noise import invert
from treering_verify.media.conversion import to_tensor
from treering_verify.models import LatentModel, from_pipeline, latent_shape, load_model
from treering_verify.models.diffusers.flow_transformers import pack, unpack
from treering_verify.models.diffusers.rectified_flow_pipeline import RectifiedFlowScheduler
from treering_verify.models.sampling import denoise

FAMILIES: dict[str, Callable[[], Any]] = {
    "stable-diffusion, epsilon": pipelines.stable_diffusion,
    "stable-diffusion, v": lambda: pipelines.stable_diffusion("v_prediction"),
    "stable-diffusion-xl": pipelines.stable_diffusion_xl,
    "stable-diffusion-3": pipelines.stable_diffusion_3,
    "flux, guided": pipelines.flux,
    "flux, fast": lambda: pipelines.flux(guided=False),
    "pixart": pipelines.pixart,
    "rectified-flow": pipelines.rectified_flow,
}
STEPS = 8
SIDE = pipelines.CELLS * pipelines.FACTOR


@pytest.fixture(scope="module", params=FAMILIES)
def pipe(request: pytest.FixtureRequest) -> Any:
    return FAMILIES[request.param]()


@pytest.fixture(scope="module")
def plain() -> Any:
    return pipelines.stable_diffusion()


def sampler_like(scheduler: Any) -> Any:
    """Return a sampler of the same family that starts from another scale or takes other steps."""
    if isinstance(scheduler, RectifiedFlowScheduler):
        return scheduler  # its pipeline knows no other
    if isinstance(scheduler, DDIMScheduler):
        return EulerDiscreteScheduler.from_config(scheduler.config, timestep_spacing="leading")
    return FlowMatchHeunDiscreteScheduler.from_config(scheduler.config)


def options(pipe: Any) -> dict[str, Any]:
    """Return what a pipeline's call has to be told to make images of the size that is asked for."""
    return {"use_resolution_binning": False} if isinstance(pipe, PixArtAlphaPipeline) else {}


def key_for(model: LatentModel) -> tv.Key:
    return tv.Key.generate(model.latent_shape, channels=pipelines.KEPT, seed=1)


# --- each family ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_the_ode_is_the_pipelines_own(pipe: Any, guidance: float) -> None:
    model = from_pipeline(pipe)
    noise = initial_noise(model.latent_shape, [5])
    pipe.set_progress_bar_config(disable=True)
    theirs = pipe(
        ["a cat"],
        latents=tv.models.native_noise(pipe, noise),
        num_inference_steps=STEPS,
        guidance_scale=guidance,
        output_type="latent",
        **options(pipe),
    ).images
    with torch.inference_mode():
        ours = denoise(model, noise, steps=STEPS, conditions=["a cat"], guidance=guidance)
    assert relative(tv.models.native_noise(pipe, ours), theirs) < 1e-4


def test_exact_inversion_brings_the_noise_back(pipe: Any) -> None:
    model = from_pipeline(pipe)
    noise = initial_noise(model.latent_shape, [0, 1])
    with torch.inference_mode():
        latent = denoise(model, noise, steps=STEPS, conditions=["a cat", None])
        errors = {
            name: relative(invert(model, latent, name, steps=STEPS, conditions=["a cat", None]), noise)
            for name in ("naive", "exact")
        }
    assert errors["exact"] < 1e-2
    assert errors["naive"] > 5 * errors["exact"]  # the network has something to say, so this is no identity


def test_a_saved_pipeline_is_loaded_marked_generated_and_verified_without_its_prompt(pipe: Any, tmp_path: Path) -> None:
    pipe.save_pretrained(tmp_path / "model")
    model = load_model(tmp_path / "model")
    assert latent_shape(tmp_path / "model") == model.latent_shape == from_pipeline(pipe).latent_shape
    key = key_for(model)
    (marked,) = tv.generate(model, key, seeds=[3], prompts=["a cat"], steps=STEPS)
    (plain,) = tv.generate(model, None, seeds=[3], prompts=["a cat"], steps=STEPS)
    assert marked.sidecar["prompt"] == "a cat" and "class" not in marked.sidecar
    assert tv.verify(marked.image, key, model=model).verdict == "detected"
    assert tv.verify(plain.image, key, model=model, alpha=1e-3).verdict == "no evidence"
    same = from_pipeline(pipe)
    latent = model.encode(to_tensor(marked.image))
    assert torch.equal(same.encode(to_tensor(marked.image)), latent)
    assert relative(model.decode(latent), to_tensor(marked.image)) < 1e-3  # the file's 256 levels, and nothing else


def test_an_image_does_not_depend_on_its_batch(pipe: Any) -> None:
    model = from_pipeline(pipe)
    both = list(tv.generate(model, None, seeds=[3, 4], prompts=["a cat", "dog"], steps=2))
    (second,) = tv.generate(model, None, seeds=[4], prompts=["dog"], steps=2)
    assert relative(second.latent, both[1].latent) < 1e-5
    assert relative(second.latent, both[0].latent) > 0.1


def test_another_image_size_is_generated_and_encoded(pipe: Any) -> None:
    model = from_pipeline(pipe, image_size=(48, 80))
    assert model.latent_shape[1:] == (24, 40)
    (made,) = tv.generate(model, None, seeds=[3], prompts=["a cat"], steps=2)
    assert made.image.size == (80, 48)
    assert model.encode(to_tensor(made.image)).shape == (1, *model.latent_shape)
    with pytest.raises(UsageError, match="choose multiples of"):
        from_pipeline(pipe, image_size=(49, 80))


COMMANDS = ("stable-diffusion, epsilon", "stable-diffusion-3", "flux, guided")
"""Families whose commands are tried; those of the others are slow, as all are loaded from their folders by another test."""


@pytest.mark.parametrize(
    "pipe",
    [pytest.param(name, marks=[pytest.mark.slow] * (name not in COMMANDS)) for name in FAMILIES],
    indirect=True,
    scope="module",
)
def test_the_same_commands_serve_it(pipe: Any, tmp_path: Path) -> None:
    pipe.save_pretrained(tmp_path / "model")

    def run(*arguments: object, code: int = 0) -> str:
        result = CliRunner().invoke(main, [str(a) for a in arguments], catch_exceptions=False)
        assert result.exit_code == code, result.output
        return result.stdout

    chosen = ("--model", tmp_path / "model", "--device", "cpu", "--dtype", "float32")
    run("keygen", "--output", tmp_path / "my.key.json", "--channels", "0,1,2", *chosen)
    made = ("--count", 1, "--steps", STEPS, "--prompt", "a cat", *chosen)
    run("generate", "--key", tmp_path / "my.key.json", "--output", tmp_path / "images", *made)
    run("generate", "--unmarked", "--output", tmp_path / "images", *made)
    judged = ("--key", tmp_path / "my.key.json", "--format", "jsonl", "--search", "off", *chosen)
    lines = run("verify", *(tmp_path / "images").glob("*.png"), *judged)
    verdicts = {Path(row["path"]).name.split("-")[0]: row["verdict"] for row in map(json.loads, lines.splitlines())}
    assert verdicts == {"marked": "detected", "unmarked": "no evidence"}
    audited = run(
        "audit", tmp_path / "images", "--key", tmp_path / "my.key.json", "--output", tmp_path / "audit", *chosen
    )
    assert "detected" in audited and "key my" in audited


def test_three_lines_mark_what_a_script_generates_with_its_own_sampler(pipe: Any) -> None:
    key = key_for(from_pipeline(pipe))
    before = state_of(pipe)
    latents = tv.watermarked_noise(pipe, key, seeds=[11, 12])
    assert state_of(pipe) == before
    assert torch.equal(latents[1:], tv.watermarked_noise(pipe, key, seeds=[12]))
    if latents.ndim == 4:
        kept = pipe.scheduler
        pipe.scheduler = sampler_like(kept)  # starts from another scale, which is the pipeline's own affair
    pipe.set_progress_bar_config(disable=True)
    try:
        images = pipe(
            ["a cat", "a dog"], latents=latents, num_inference_steps=STEPS, guidance_scale=2.0, **options(pipe)
        ).images
    finally:
        if latents.ndim == 4:
            pipe.scheduler = kept
    for verdict in tv.verify_many(images, key, model=from_pipeline(pipe), search=None):
        assert verdict.verdict == "detected"


def test_watermarked_noise_has_the_networks_dtype_and_layout() -> None:
    pipe = pipelines.flux().to(torch.bfloat16)
    key = tv.Key.generate((16, 24, 32), seed=1)
    latents = tv.watermarked_noise(pipe, key, seeds=[0], image_size=(48, 64))
    assert latents.shape == (1, 24 * 32 // 4, 64) and latents.dtype == torch.bfloat16
    for shape in ((4, 24, 32), (16, 25, 32)):
        with pytest.raises(UsageError, match="does not fit"):
            tv.watermarked_noise(pipe, tv.Key.generate(shape, seed=1), seeds=[0])
    for wrong in ([-1], []):
        with pytest.raises(UsageError, match=r"no seeds|a seed is out of range"):
            tv.watermarked_noise(pipe, key, seeds=wrong)


def test_watermarked_noise_takes_a_key_for_each_image() -> None:
    pipe = pipelines.flux()
    keys = [tv.Key.generate((16, 24, 24), seed=seed) for seed in (1, 2)]
    latents = tv.watermarked_noise(pipe, keys, seeds=[5, 6])
    for i, (key, seed) in enumerate(zip(keys, [5, 6], strict=True)):
        assert torch.equal(latents[i : i + 1], tv.watermarked_noise(pipe, key, seeds=[seed]))
    with pytest.raises(UsageError, match="2 keys for 1 seeds"):
        tv.watermarked_noise(pipe, keys, seeds=[5])


def test_packed_latents_are_laid_out_as_flux_lays_them_out() -> None:
    z = torch.randn(2, 16, 6, 8, generator=torch.Generator().manual_seed(0))
    tokens = pack(z)
    assert torch.equal(tokens, FluxPipeline._pack_latents(z, 2, 16, 6, 8))
    assert torch.equal(unpack(tokens, 6, 8), z)


def test_the_dynamic_shift_is_that_of_the_image_size() -> None:
    pipe = pipelines.flux()
    small, large = (from_pipeline(pipe, image_size=(side, side)).timesteps(STEPS) for side in (16, 256))
    assert all(a.sigma < b.sigma for a, b in zip(small[1:-1], large[1:-1], strict=True))


# --- a caller's pipeline ----------------------------------------------------------------------------------------------


def test_a_callers_pipeline_is_as_it_was(pipe: Any) -> None:
    pipe.unet.train() if hasattr(pipe, "unet") else pipe.transformer.train()
    pipe.text_encoder.train()
    pipe.vae.train()
    before = state_of(pipe)
    try:
        model = from_pipeline(pipe)
        (made,) = tv.generate(model, key_for(model), seeds=[3], prompts=["a cat"], steps=2, guidance=2.0)
        tv.verify(made.image, key_for(model), model=model)
        assert state_of(pipe) == before
        assert not model.decode(torch.zeros(1, *model.latent_shape)).requires_grad
    finally:
        for part in pipe.components.values():
            if isinstance(part, torch.nn.Module):
                part.eval()


def test_a_callers_pipeline_is_as_it_was_after_an_exception(pipe: Any) -> None:
    network = pipe.unet if hasattr(pipe, "unet") else pipe.transformer
    network.train()

    def fail(*_: object) -> None:
        raise RuntimeError("out of memory")

    last = network.conv_out if hasattr(network, "conv_out") else network.proj_out
    hook = last.register_forward_hook(fail)
    before = state_of(pipe)
    model = from_pipeline(pipe)
    with pytest.raises(RuntimeError, match="out of memory"):
        next(iter(tv.generate(model, None, seeds=[3], prompts=["a cat"], steps=2)))
    assert state_of(pipe) == before
    hook.remove()
    network.eval()


@pytest.mark.parametrize("kind", [PNDMScheduler, EulerDiscreteScheduler])
def test_a_callers_sampler_may_be_another(kind: Any, plain: Any) -> None:
    pipe, grid = plain, from_pipeline(plain).timesteps(STEPS)
    kept = pipe.scheduler
    try:
        pipe.scheduler = kind.from_config(kept.config, timestep_spacing="leading")
        found = from_pipeline(pipe).timesteps(STEPS)
        assert [at.index for at in found] == [at.index for at in grid]
        assert found[:-1] == grid[:-1]
    finally:
        pipe.scheduler = kept


def test_a_half_precision_pipeline_is_encoded_and_decoded_in_full(plain: Any) -> None:
    half = pipelines.stable_diffusion().to(torch.float16)
    model, image = from_pipeline(half), torch.rand(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0)) * 2 - 1
    assert relative(model.encode(image)[:, :3], from_pipeline(plain).encode(image)[:, :3]) < 1e-2
    assert model.encode(image).dtype == model.decode(model.encode(image)).dtype == torch.float32
    assert half.vae.dtype == half.unet.dtype == torch.float16
    clean, noise = model.denoise(initial_noise(model.latent_shape, [0]), model.timesteps(2)[0], [None])
    assert clean.dtype == noise.dtype == torch.float32


def test_an_autoencoder_that_overflows_in_16_bits_does_not_here() -> None:
    vae = pipelines.linear_autoencoder(4, 1.0)
    with torch.no_grad():
        vae.encoder.conv_in.bias *= 1e6 / vae.encoder.conv_in.bias.abs().max()  # more than float16 can hold
    vae.register_to_config(force_upcast=True)
    pipe = pipelines.stable_diffusion()
    pipe.register_modules(vae=vae)
    image = torch.zeros(1, 3, SIDE, SIDE)
    assert from_pipeline(pipe).encode(image).isfinite().all()
    with torch.no_grad():
        vae.encoder.conv_out.bias[0] = float("nan")
    with pytest.raises(ModelError, match="not finite"):
        from_pipeline(pipe).encode(image)


# --- refusals ---------------------------------------------------------------------------------------------------------


def with_unet(**config: Any) -> Callable[[Any], None]:
    return lambda pipe: pipe.unet.register_to_config(**config)


def with_scheduler(scheduler: Any) -> Callable[[Any], None]:
    return lambda pipe: pipe.register_modules(scheduler=scheduler)


REFUSED: dict[str, tuple[Callable[[Any], None], str]] = {
    "inpainting": (with_unet(in_channels=9), "the network takes 9 channels"),
    "LCM": (with_unet(time_cond_proj_dim=256), "consistency model"),
    "epsilon at zero SNR": (with_scheduler(DDIMScheduler(rescale_betas_zero_snr=True)), "zero SNR"),
    "sample prediction": (with_scheduler(LCMScheduler(prediction_type="sample")), "prediction type 'sample'"),
    "another autoencoder": (lambda pipe: pipe.register_modules(vae=torch.nn.Identity()), "Identity is not supported"),
    "weights elsewhere": (lambda pipe: pipe.vae.to("meta"), "not in memory"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_inverted_is_refused(kind: str) -> None:
    damage, message = REFUSED[kind]
    pipe = pipelines.stable_diffusion()
    damage(pipe)
    with pytest.raises(ModelError, match=message):
        from_pipeline(pipe)


def test_a_pipeline_of_no_family_is_refused_and_told_which_there_are() -> None:
    with pytest.raises(ModelError, match="class AutoencoderKL is not supported: `treering models` lists"):
        from_pipeline(AutoencoderKL())
