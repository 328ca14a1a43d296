"""A callback marks what a script generates without `latents=`, for samplers that go on from what it writes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import (
    DEISMultistepScheduler,
    DPMSolverMultistepScheduler,
    DPMSolverSinglestepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    HeunDiscreteScheduler,
    LCMScheduler,
    LMSDiscreteScheduler,
    PNDMScheduler,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionInpaintPipeline,
    TCDScheduler,
    UniPCMultistepScheduler,
)
from helpers.models import pipelines
from PIL import Image

import treering_verify as tv
from treering_verify.errors import ModelError, UsageError
from treering_verify.models import from_pipeline

STEPS = 12
SAMPLERS: dict[str, tuple[Any, dict[str, Any], int]] = {  # kind, its own options, step that the key is written after
    "DDIM": (None, {}, 1),
    "PNDM": (PNDMScheduler, {"skip_prk_steps": True}, 2),
    "PNDM, Runge-Kutta": (PNDMScheduler, {"skip_prk_steps": False}, 4),
    "Euler": (EulerDiscreteScheduler, {}, 1),
    "Heun": (HeunDiscreteScheduler, {}, 2),
    "DPM-Solver": (DPMSolverMultistepScheduler, {}, 1),
    "DPM-Solver, single step": (DPMSolverSinglestepScheduler, {}, 2),
    "DPM-Solver, single step, order 3": (DPMSolverSinglestepScheduler, {"solver_order": 3}, 3),
    "DEIS": (DEISMultistepScheduler, {}, 1),
    "LMS": (LMSDiscreteScheduler, {}, 1),
    "TCD": (TCDScheduler, {}, 1),
    "UniPC": (UniPCMultistepScheduler, {}, 1),
}
FAMILIES: dict[str, Callable[[], Any]] = {
    "sdxl": pipelines.stable_diffusion_xl,
    "sd3": pipelines.stable_diffusion_3,
    "flux": pipelines.flux,
}


@pytest.fixture(scope="module")
def plain() -> Any:
    return pipelines.stable_diffusion()


def key_for(pipe: Any) -> tv.Key:
    return tv.Key.generate(tv.models.pipeline_shape(pipe), channels=pipelines.KEPT, seed=1)


def called(pipe: Any, callback: Any, **options: Any) -> Any:
    pipe.set_progress_bar_config(disable=True)
    given = {
        "prompt": ["a cat"],
        "generator": torch.Generator().manual_seed(5),
        "num_inference_steps": STEPS,
        "guidance_scale": 2.0,
    }
    size = {"height": 48, "width": 48}
    return pipe(**{**given, **size, **options}, **({"callback_on_step_end": callback} if callback else {}))


def log10_p(pipe: Any, image: Any, key: tv.Key) -> float:
    verdict = tv.verify(image, key, model=from_pipeline(pipe), search=None)
    assert verdict.best
    return verdict.best.log10_adjusted


@pytest.mark.filterwarnings("ignore:__array_wrap__ must accept:DeprecationWarning")  # numpy 2 on what DEIS computes
@pytest.mark.parametrize("name", SAMPLERS)
def test_an_image_is_marked_whatever_the_sampler(name: str, plain: Any) -> None:
    pipe, key = plain, key_for(plain)
    kind, options, after = SAMPLERS[name]
    before = pipe.scheduler
    try:
        if kind:
            pipe.scheduler = kind.from_config(before.config, timestep_spacing="leading", **options)
        callback = tv.WatermarkCallback(pipe, key)
        marked, unmarked = (called(pipe, c).images[0] for c in (callback, None))
        assert log10_p(pipe, marked, key) < -6 < -3 < log10_p(pipe, unmarked, key)
        record = json.loads(json.dumps(callback.record()))
        assert record["marked"] and record["fingerprint"] == key.fingerprint and record["guidance"] == 2.0
        assert record["sampler"] == type(pipe.scheduler).__name__
        assert record["written_after_step"] == after
        assert record["provenance"]["weights"] and record["provenance"]["keys"][0]["fingerprint"] == key.fingerprint
        assert record["schema_version"] == 1 and record["time"].endswith("Z")
    finally:
        pipe.scheduler = before


@pytest.mark.parametrize("family", FAMILIES)
def test_other_families_are_marked_in_their_own_layout(family: str) -> None:
    pipe = FAMILIES[family]()
    key = key_for(pipe)
    marked, unmarked = (called(pipe, c).images[0] for c in (tv.WatermarkCallback(pipe, key), None))
    assert log10_p(pipe, marked, key) < -6 < -3 < log10_p(pipe, unmarked, key)


def test_the_key_is_in_the_latents_after_the_step_and_nothing_else_is_changed(plain: Any) -> None:
    key = key_for(plain)
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    callback = tv.WatermarkCallback(plain, key)

    def watched(pipe: Any, step: int, time: Any, given: dict[str, Any]) -> dict[str, Any]:
        kept = given["latents"].clone()
        found = callback(pipe, step, time, given)
        seen.append((kept, found["latents"]))
        return found

    called(plain, watched)
    changed = [not torch.equal(a, b) for a, b in seen]
    assert changed == [True] + [False] * (STEPS - 1)
    before, after = seen[0]
    sigma = float((1 - plain.scheduler.alphas_cumprod[plain.scheduler.timesteps[1]]) ** 0.5)
    numbers = tv.watermark.extract(after / sigma, key)
    written = tv.watermark.extract(tv.watermark.embed(torch.zeros(1, *key.latent_shape), key), key)
    assert abs(numbers - written).max() < 1e-4
    assert float((after - before).pow(2).sum()) < 0.5 * float(
        before.pow(2).sum()
    )  # the rest of the noise is the seed's


def test_every_image_of_a_half_precision_call_is_marked_in_its_dtype() -> None:
    pipe = pipelines.stable_diffusion().to(torch.bfloat16)
    key = key_for(pipe)
    callback = tv.WatermarkCallback(pipe, key)
    given = {"latents": torch.randn(3, *key.latent_shape, generator=torch.Generator().manual_seed(0)).bfloat16()}
    pipe.scheduler.set_timesteps(STEPS)
    pipe._guidance_scale, pipe._num_timesteps = 1.0, STEPS
    found = callback(pipe, 0, pipe.scheduler.timesteps[0], given)["latents"]
    assert found.dtype == torch.bfloat16 and found.shape == given["latents"].shape
    assert all(not torch.equal(a, b) for a, b in zip(found, given["latents"], strict=True))


@pytest.mark.parametrize("name", ["DDIM", "Heun", "PNDM", "UniPC", "DPM-Solver, single step"])
@pytest.mark.parametrize("kind", [StableDiffusionImg2ImgPipeline, StableDiffusionInpaintPipeline])
def test_image_to_image_and_inpainting_are_marked_in_the_noise_that_they_add(kind: Any, name: str, plain: Any) -> None:
    pipe = kind(**plain.components, requires_safety_checker=False)
    key = key_for(plain)
    sampler, options, _ = SAMPLERS[name]
    if sampler:
        pipe.scheduler = sampler.from_config(plain.scheduler.config, timestep_spacing="leading", **options)
    side = pipelines.CELLS * pipelines.FACTOR
    given = {"image": Image.new("RGB", (side, side), (200, 90, 40)), "strength": 0.75, "num_inference_steps": 16}
    size = {} if kind is StableDiffusionImg2ImgPipeline else {"mask_image": Image.new("L", (side, side), 255)}
    pipe.set_progress_bar_config(disable=True)
    marked, unmarked = (
        pipe(
            ["a cat"],
            **given,
            **size,
            generator=torch.Generator().manual_seed(5),
            **({"callback_on_step_end": tv.WatermarkCallback(pipe, key)} if used else {}),
        ).images[0]
        for used in (True, False)
    )
    assert log10_p(plain, marked, key) < -6 < -3 < log10_p(plain, unmarked, key)


def test_each_image_of_a_call_has_its_own_key(plain: Any) -> None:
    keys = [tv.Key.generate(key_for(plain).latent_shape, channels=pipelines.KEPT, seed=seed) for seed in range(1, 5)]
    callback = tv.WatermarkCallback(plain, keys)
    images = called(plain, callback, prompt=["a cat", "a dog"], num_images_per_prompt=2).images
    for i, image in enumerate(images):
        found = [log10_p(plain, image, key) for key in keys]
        assert found[i] < -6 and all(p > -3 for j, p in enumerate(found) if j != i)
    assert callback.record()["fingerprint"] == [key.fingerprint for key in keys]
    with pytest.raises(UsageError, match=r"4 keys for 3 images.*num_images_per_prompt"):
        called(plain, callback, num_images_per_prompt=3)
    with pytest.raises(UsageError, match="no keys"):
        tv.WatermarkCallback(plain, [])


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [LCMScheduler, EulerAncestralDiscreteScheduler])
def test_samplers_that_discard_what_is_written_are_refused(kind: Any, plain: Any) -> None:
    before = plain.scheduler
    callback = tv.WatermarkCallback(plain, key_for(plain))
    try:
        plain.scheduler = kind.from_config(before.config)
        with pytest.raises(UsageError, match="latents="):
            tv.WatermarkCallback(plain, key_for(plain))
        with pytest.raises(UsageError, match="latents="):
            called(plain, callback)  # the sampler was changed since
    finally:
        plain.scheduler = before


def test_a_key_of_another_size_and_a_single_step_are_refused(plain: Any) -> None:
    callback = tv.WatermarkCallback(plain, key_for(plain))
    with pytest.raises(UsageError, match="too few"):
        called(plain, callback, num_inference_steps=1)
    with pytest.raises(UsageError, match=r"shape \(4, 24, 32\) here"):
        called(plain, callback, width=64)
    with pytest.raises(UsageError, match="does not fit"):
        tv.WatermarkCallback(plain, tv.Key.generate((16, 24, 24), seed=1))
    with pytest.raises(ModelError, match="not supported"):
        tv.WatermarkCallback(torch.nn.Identity(), key_for(plain))
    deep = StableDiffusionImg2ImgPipeline(
        **{**plain.components, "unet": pipelines.unet(5, 4, cross_attention_dim=32)}, requires_safety_checker=False
    )
    with pytest.raises(ModelError, match="takes 5 channels"):
        tv.WatermarkCallback(deep, key_for(plain))


@pytest.mark.parametrize("wrong", [None, [None], 5, [5]])
def test_what_is_no_key_is_told_by_its_type(wrong: Any, plain: Any) -> None:
    with pytest.raises(UsageError, match=r"a key to write is of type (NoneType|int): give a Key or the path"):
        tv.WatermarkCallback(plain, wrong)
    with pytest.raises(UsageError, match=r"a key to write is of type (NoneType|int): give a Key or the path"):
        tv.watermarked_noise(plain, wrong, seeds=[1])


def test_keys_to_write_may_be_paths(plain: Any, tmp_path: Path) -> None:
    keys = [key_for(plain), key_for(plain)]
    paths = [tmp_path / f"{i}.key.json" for i in range(2)]
    for key, path in zip(keys, paths, strict=True):
        key.save(path)
    for given, same in ((paths[0], keys[0]), (str(paths[0]), keys[0]), (paths, keys), ([paths[0], keys[1]], keys)):
        noise = tv.watermarked_noise(plain, given, seeds=[1, 2])
        assert torch.equal(noise, tv.watermarked_noise(plain, same, seeds=[1, 2]))
        written = tv.WatermarkCallback(plain, given).keys
        assert written == tv.WatermarkCallback(plain, same).keys
    with pytest.raises(UsageError, match="more than one key: name the file of the key to write"):
        tv.WatermarkCallback(plain, tmp_path)
