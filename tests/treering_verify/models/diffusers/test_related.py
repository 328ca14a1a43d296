"""Pipelines with the components of a base model and more inputs: they are marked, and verified as the base model."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import diffusers
import pytest
import torch
from diffusers import ControlNetModel, LCMScheduler, T2IAdapter
from helpers.models import pipelines
from helpers.models.pipelines import relative, state_of
from PIL import Image

import treering_verify as tv
from treering_verify.errors import LimitedModelWarning, ModelError, UsageError
from treering_verify.generation.generator import initial_noise
from treering_verify.models import from_pipeline
from treering_verify.models.diffusers.adapter import _found
from treering_verify.models.sampling import denoise

SIDE = pipelines.CELLS * pipelines.FACTOR
STEPS = 8
HINT = Image.new("RGB", (SIDE, SIDE), (200, 90, 40))
WHITE = Image.new("L", (SIDE, SIDE), 255)


def with_parts(name: str, base: Any, **parts: Any) -> Any:
    """Return a pipeline of a class of diffusers that shares the components of a base model's."""
    kind = getattr(diffusers, name)
    parameters = inspect.signature(kind.__init__).parameters
    given = {**base.components, "requires_safety_checker": False, **parts}
    pipe = kind(**{part: value for part, value in given.items() if part in parameters})
    pipe.set_progress_bar_config(disable=True)
    return pipe


def controlnet(unet: Any) -> ControlNetModel:
    with pipelines.seeded():
        made = ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=(8, 8))
        for parameter in made.controlnet_down_blocks.parameters():
            parameter.data.normal_(std=0.05)  # new ones are zeros, which change nothing
    return made.eval()


def adapter() -> T2IAdapter:
    with pipelines.seeded():
        # One feature, for the output of the first block, which has half the latent's side.
        return T2IAdapter(channels=[8], num_res_blocks=1, downscale_factor=2 * pipelines.FACTOR).eval()


def sd(name: str, **parts: Any) -> Any:
    return with_parts(name, pipelines.stable_diffusion(), **parts)


def sd_controlled(name: str) -> Any:
    base = pipelines.stable_diffusion()
    return with_parts(name, base, controlnet=controlnet(base.unet))


def xl_controlled(name: str) -> Any:
    base = pipelines.stable_diffusion_xl()
    return with_parts(name, base, controlnet=controlnet(base.unet))


MARKED: dict[str, tuple[Callable[[], Any], dict[str, Any]]] = {  # pipeline, and what its call takes beside the prompt
    "ControlNet": (lambda: sd_controlled("StableDiffusionControlNetPipeline"), {"image": HINT}),
    "ControlNet, SDXL": (lambda: xl_controlled("StableDiffusionXLControlNetPipeline"), {"image": HINT}),
    "PAG": (lambda: sd("StableDiffusionPAGPipeline", pag_applied_layers="mid"), {}),
    "T2I-Adapter": (lambda: sd("StableDiffusionAdapterPipeline", adapter=adapter()), {"image": HINT}),
    "inpainting": (lambda: sd("StableDiffusionInpaintPipeline"), {"image": HINT, "mask_image": WHITE}),
    "ControlNet, inpainting": (
        lambda: sd_controlled("StableDiffusionControlNetInpaintPipeline"),
        {"image": HINT, "mask_image": WHITE, "control_image": HINT},
    ),
}


def key_for(pipe: Any) -> tv.Key:
    return tv.Key.generate(tv.models.pipeline_shape(pipe), channels=pipelines.KEPT, seed=1)


@pytest.mark.filterwarnings(
    "ignore:The decode_latents method:FutureWarning"
)  # of diffusers' own pipeline of T2I-Adapter
@pytest.mark.parametrize("kind", MARKED)
def test_a_pipeline_with_more_inputs_is_marked_and_verified_as_the_base_model(kind: str) -> None:
    make, inputs = MARKED[kind]
    pipe = make()
    pipe.set_progress_bar_config(disable=True)
    key, before = key_for(pipe), state_of(pipe)
    model = from_pipeline(pipe)
    latents = tv.watermarked_noise(pipe, key, seeds=[11, 12])
    assert state_of(pipe) == before
    given = {"num_inference_steps": STEPS, "guidance_scale": 2.0, **inputs}
    images = pipe(["a cat"], num_images_per_prompt=2, latents=latents, **given).images
    for verdict in tv.verify_many(images, key, model=model, search=None):
        assert verdict.verdict == "detected"
    plain = pipe(["a cat"], latents=initial_noise(key.latent_shape, [11]), **given).images
    (verdict,) = tv.verify_many(plain, key, model=model, search=None, alpha=1e-3)
    assert verdict.verdict == "no evidence"


BASES: dict[str, tuple[Callable[[], Any], str]] = {
    "StableDiffusionImg2ImgPipeline": (pipelines.stable_diffusion, "stable-diffusion"),
    "StableDiffusionXLPAGPipeline": (pipelines.stable_diffusion_xl, "stable-diffusion-xl"),
    "StableDiffusionXLInpaintPipeline": (pipelines.stable_diffusion_xl, "stable-diffusion-xl"),
    "StableDiffusion3PAGPipeline": (pipelines.stable_diffusion_3, "stable-diffusion-3"),
    "StableDiffusion3InpaintPipeline": (pipelines.stable_diffusion_3, "stable-diffusion-3"),
    "FluxImg2ImgPipeline": (pipelines.flux, "flux"),
    "FluxInpaintPipeline": (pipelines.flux, "flux"),
    "PixArtSigmaPAGPipeline": (lambda: pipelines.pixart(sigma=True), "pixart"),
}


@pytest.mark.parametrize("name", BASES)
def test_the_family_is_found_by_the_components_and_estimates_as_the_base_model(name: str) -> None:
    make, family = BASES[name]
    base = make()
    pipe = with_parts(name, base)
    assert _found(pipe)[0].name == family
    model, same = from_pipeline(pipe), from_pipeline(base)
    z, at = initial_noise(model.latent_shape, [3]), model.timesteps(STEPS)[2]
    with torch.no_grad():
        found, wanted = (m.denoise(z, at, ["a cat"], 2.0)[1] for m in (model, same))
    assert torch.equal(found, wanted)


def test_the_sampler_still_chooses_among_the_families_of_a_class() -> None:
    pipe = sd("StableDiffusionPAGPipeline", pag_applied_layers="mid")
    pipe.scheduler = LCMScheduler.from_config(pipe.scheduler.config)
    assert _found(pipe)[0].name == "stable-diffusion-lcm"


def test_other_encoders_networks_and_inputs_that_verification_lacks_are_refused_in_one_line() -> None:
    other = sd("StableDiffusionPAGPipeline", pag_applied_layers="mid")
    other.register_modules(text_encoder=pipelines.t5(32))
    with pytest.raises(ModelError, match="StableDiffusionPAGPipeline is not supported") as refused:
        from_pipeline(other)
    assert "\n" not in str(refused.value) and len(str(refused.value)) < 160
    refiner = with_parts("StableDiffusionXLImg2ImgPipeline", pipelines.stable_diffusion_xl())
    refiner.register_modules(text_encoder=None, tokenizer=None)
    with pytest.raises(ModelError, match="is not supported"):
        tv.watermarked_noise(refiner, tv.Key.generate((4, 24, 24), seed=1), seeds=1, strength=1.0)
    told = sd("StableDiffusionImg2ImgPipeline")
    told.unet.register_to_config(class_embed_type="projection")
    edited = with_parts("FluxKontextPipeline", pipelines.flux())
    for pipe in (told, edited):
        with pytest.raises(ModelError, match="inputs that verification does not have"):
            from_pipeline(pipe)


def test_an_inpainting_network_is_verified_as_if_its_mask_were_the_whole_image() -> None:
    base = pipelines.stable_diffusion()
    with pipelines.seeded():
        unet = pipelines.unet(9, 4, cross_attention_dim=32)
    with torch.no_grad():
        base.vae.encoder.conv_out.bias[
            4:
        ] = -30  # the pipeline samples the masked image's latent: without a spread here
    pipe = with_parts("StableDiffusionInpaintPipeline", base, unet=unet)
    key = key_for(pipe)
    model = from_pipeline(pipe)
    latents = tv.watermarked_noise(pipe, key, seeds=11)
    grey = Image.new("RGB", (SIDE, SIDE), (127, 127, 127))
    given = {"image": grey, "mask_image": WHITE, "num_inference_steps": STEPS, "guidance_scale": 2.0}
    theirs = pipe(["a cat"], latents=latents, output_type="latent", **given).images
    with torch.inference_mode():
        ours = denoise(model, latents, steps=STEPS, conditions=["a cat"], guidance=2.0)
    assert relative(ours, theirs) < 1e-3
    (image,) = pipe(["a cat"], latents=latents, **given).images
    assert tv.verify(image, key, model=model, search=None).verdict == "detected"


# --- an IP-Adapter ----------------------------------------------------------------------------------------------------


def with_image_prompt() -> Any:
    from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModelWithProjection

    pipe = pipelines.stable_diffusion()
    with pipelines.seeded():
        seen = CLIPVisionConfig(
            hidden_size=32,
            intermediate_size=37,
            num_hidden_layers=1,
            num_attention_heads=4,
            image_size=32,
            patch_size=16,
            projection_dim=32,
        )
        pipe.register_modules(
            image_encoder=CLIPVisionModelWithProjection(seen).eval(),
            feature_extractor=CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=32),
        )
        attentions = [name for name in pipe.unet.attn_processors if name.endswith("attn2.processor")]
        widths = [pipe.unet.get_submodule(name.removesuffix(".processor")).to_q.out_features for name in attentions]
        layers = {
            f"{2 * i + 1}.{part}.weight": 0.2 * torch.randn(width, 32)
            for i, width in enumerate(widths)
            for part in ("to_k_ip", "to_v_ip")
        }
        projection = {
            "proj.weight": 0.2 * torch.randn(4 * 32, 32),
            "proj.bias": torch.zeros(4 * 32),
            "norm.weight": torch.ones(32),
            "norm.bias": torch.zeros(32),
        }
    pipe.unet._load_ip_adapter_weights([{"image_proj": projection, "ip_adapter": layers}])
    pipe.set_progress_bar_config(disable=True)
    return pipe


def test_a_pipeline_with_an_ip_adapter_is_marked_and_verified_without_its_image() -> None:
    pipe = with_image_prompt()
    key, before = key_for(pipe), state_of(pipe)
    model = from_pipeline(pipe)
    assert state_of(pipe) == before
    given = {"ip_adapter_image": HINT, "num_inference_steps": STEPS, "guidance_scale": 2.0}
    (image,) = pipe(["a cat"], latents=tv.watermarked_noise(pipe, key, seeds=3), **given).images
    assert tv.verify(image, key, model=model, search=None).verdict == "detected"
    pipe.register_modules(image_encoder=None)
    with pytest.raises(ModelError, match="no image encoder"):
        from_pipeline(pipe).denoise(initial_noise(key.latent_shape, [0]), model.timesteps(2)[0], [None])


# --- calls that do not start from noise -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["StableDiffusionImg2ImgPipeline", "StableDiffusionXLImg2ImgPipeline", "FluxImg2ImgPipeline"]
)
def test_image_to_image_is_refused_by_name_and_told_another_way(name: str) -> None:
    make = {"Flux": pipelines.flux, "StableDiffusionXL": pipelines.stable_diffusion_xl}
    pipe = with_parts(name, make.get(name.removesuffix("Img2ImgPipeline"), pipelines.stable_diffusion)())
    for strength in (None, 1.0):
        with pytest.raises(UsageError, match=rf"{name} starts from an image.*WatermarkCallback"):
            tv.watermarked_noise(pipe, key_for(pipe), seeds=1, strength=strength)


def test_a_class_without_callbacks_is_not_told_to_take_one_and_a_name_is_no_pipeline() -> None:
    pipe = sd("CycleDiffusionPipeline")
    with pytest.raises(UsageError, match="takes no callback_on_step_end either"):
        tv.watermarked_noise(pipe, key_for(pipe), seeds=1)
    with pytest.raises(UsageError, match=r"stabilityai/x is a name or path.*load_pipeline"):
        from_pipeline("stabilityai/x")


def test_inpainting_below_strength_1_is_refused_and_told_another_way() -> None:
    pipe = sd("StableDiffusionInpaintPipeline")
    key = key_for(pipe)
    with pytest.raises(UsageError, match=r"at strength 0.6 .*WatermarkCallback"):
        tv.watermarked_noise(pipe, key, seeds=1, strength=0.6)
    large = with_parts("StableDiffusionXLInpaintPipeline", pipelines.stable_diffusion_xl())
    with pytest.raises(UsageError, match=r"strength 0.9999 by default"):
        tv.watermarked_noise(large, key, seeds=1)
    assert tv.watermarked_noise(large, key, seeds=1, strength=1.0).shape == (1, 4, 24, 24)
    with pytest.raises(UsageError, match="has no strength"):
        tv.watermarked_noise(pipelines.stable_diffusion(), key, seeds=1, strength=0.5)


# --- seeds, generators, counts and sizes ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def plain() -> Any:
    return pipelines.stable_diffusion()


def test_a_generator_draws_the_noise_that_the_pipeline_would_draw_from_it(plain: Any) -> None:
    key = key_for(plain)
    bare = tv.watermark.embed(initial_noise(key.latent_shape, [0]), key)
    one = tv.watermarked_noise(plain, key, seeds=7)
    assert torch.equal(one, tv.watermarked_noise(plain, key, seeds=[7])) and one.shape == bare.shape
    several = [torch.Generator().manual_seed(seed) for seed in (7, 8)]
    found = tv.watermarked_noise(plain, key, generator=several)
    theirs = plain.prepare_latents(
        2, 4, SIDE, SIDE, torch.float32, "cpu", [g.manual_seed(7 + i) for i, g in enumerate(several)]
    )
    assert torch.equal(found, tv.watermark.embed(theirs, key))
    together = tv.watermarked_noise(plain, key, generator=several[0].manual_seed(7), count=3)
    theirs = plain.prepare_latents(3, 4, SIDE, SIDE, torch.float32, "cpu", several[0].manual_seed(7))
    assert torch.equal(together, tv.watermark.embed(theirs, key))


def test_counts_that_do_not_fit_are_told(plain: Any) -> None:
    key = key_for(plain)
    with pytest.raises(UsageError, match=r"2 seeds for 6 images.*num_images_per_prompt"):
        tv.watermarked_noise(plain, key, seeds=[1, 2], count=6)
    with pytest.raises(UsageError, match="2 keys for 3 images"):
        tv.watermarked_noise(plain, [key, key], generator=torch.Generator(), count=3)
    for wrong in ({}, {"seeds": 1, "generator": torch.Generator()}):
        with pytest.raises(UsageError, match="give seeds"):
            tv.watermarked_noise(plain, key, **wrong)
    for none in ({"seeds": []}, {"generator": []}, {"generator": torch.Generator(), "count": 0}):
        with pytest.raises(UsageError, match="give one per image"):
            tv.watermarked_noise(plain, key, **none)  # type: ignore[arg-type]


def test_a_key_of_another_size_warns_unless_the_size_is_named(plain: Any) -> None:
    wide = tv.Key.generate((4, 24, 40), seed=1)
    with pytest.warns(LimitedModelWarning, match=r"\(4, 24, 40\).*own size is \(4, 24, 24\)"):
        noise = tv.watermarked_noise(plain, wide, seeds=1)
    assert torch.equal(noise, tv.watermarked_noise(plain, wide, seeds=1, image_size=(48, 80)))
    with pytest.raises(UsageError, match="images of 48x48 start from"):
        tv.watermarked_noise(plain, wide, seeds=1, image_size=(48, 48))
