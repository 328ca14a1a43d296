"""Families of 2024 and later: each generates as its pipeline does, is loaded, marks, inverts and verifies."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.hostile.models import edit
from helpers.models import pipelines, recent_pipelines
from helpers.models.pipelines import relative, state_of

import treering_verify as tv
from treering_verify.errors import ModelError
from treering_verify.generation.generator import initial_noise
from treering_verify.inversion.noise import invert
from treering_verify.models import LatentModel, from_pipeline, latent_shape, load_model, native_noise
from treering_verify.models.sampling import denoise
from treering_verify.models.source import ModelSource

STEPS, GUIDANCE = 3, 3.0
SIZE = (64, 64)  # Sana makes multiples of 32
PROMPTS = ["7 cats", "12 small dogs"]
# What a call is told beside the size, and how its result of output_type="latent" becomes the latent of this package.
CALLS: dict[str, dict[str, Any]] = {
    "flux2": {"guidance_scale": GUIDANCE},
    "qwen_image": {"true_cfg_scale": GUIDANCE, "negative_prompt": [" "]},
    "sana": {"use_resolution_binning": False, "guidance_scale": GUIDANCE},
    "z_image": {"guidance_scale": GUIDANCE - 1},  # its own scale is 0 without guidance
}


# A field of the network's configuration, and a value that would fill memory.
TOO_LARGE: dict[str, tuple[str, Any]] = {
    "flux2": ("num_single_layers", 10**6),
    "qwen_image": ("num_layers", 10**6),
    "sana": ("num_layers", 10**6),
    "z_image": ("axes_lens", [10**6] * 3),
}


@pytest.fixture(scope="module", params=CALLS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def pipe(name: str) -> Any:
    made = getattr(recent_pipelines, name)()
    made.set_progress_bar_config(disable=True)
    return made


@pytest.fixture(scope="module")
def folder(pipe: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Save the pipeline, with a template of its own that must never run."""
    path = tmp_path_factory.mktemp("saved")
    pipe.save_pretrained(path)
    (path / "tokenizer" / "chat_template.jinja").write_text("{{ raise_exception('the template ran') }}")
    return path


@pytest.fixture(scope="module")
def model(folder: Path) -> LatentModel:
    return load_model(folder, image_size=SIZE)


def test_the_ode_is_the_pipelines_own_whatever_else_is_in_the_batch(pipe: Any, model: LatentModel, name: str) -> None:
    noise = initial_noise(model.latent_shape, [5, 6])
    size = {"height": SIZE[0], "width": SIZE[1]}
    theirs = pipe(
        prompt=PROMPTS[:1],
        latents=native_noise(pipe, noise[:1]),
        num_inference_steps=STEPS,
        output_type="latent",
        **size,
        **CALLS[name],
    ).images
    with torch.inference_mode():
        ours = denoise(model, noise, steps=STEPS, conditions=PROMPTS, guidance=GUIDANCE)
    if name == "flux2":  # which returns what the decoder takes
        wanted = model._coder.encode(pipe.vae.decode(theirs).sample).latent
        assert relative(ours[:1, :3], wanted[:, :3]) < 1e-4
    else:
        assert relative(native_noise(pipe, ours[:1]), theirs) < 1e-4


@pytest.mark.slow
def test_exact_inversion_brings_the_noise_back(model: LatentModel) -> None:
    noise, prompts = initial_noise(model.latent_shape, [0]), PROMPTS[:1]
    with torch.inference_mode():
        latent = denoise(model, noise, steps=STEPS, conditions=prompts)
        naive, exact = (
            relative(invert(model, latent, way, steps=STEPS, conditions=prompts), noise) for way in ("naive", "exact")
        )
    assert exact < 0.02 and naive > 5 * exact


def test_it_marks_and_verifies_and_the_pipeline_is_as_it_was(pipe: Any, model: LatentModel, folder: Path) -> None:
    assert latent_shape(ModelSource(str(folder), image_size=SIZE)) == model.latent_shape
    key = tv.Key.generate(model.latent_shape, channels=pipelines.KEPT, seed=1)
    pipe.encode_prompt(PROMPTS[0])  # transformers adds hooks of its own to some text encoders at their first call
    before = state_of(pipe)
    (marked,) = tv.generate(from_pipeline(pipe, image_size=SIZE), key, seeds=[3], prompts=PROMPTS[:1], steps=STEPS)
    assert state_of(pipe) == before
    (plain,) = tv.generate(model, None, seeds=[3], prompts=PROMPTS[:1], steps=STEPS)
    found, absent = tv.detection.verify_many([marked.image, plain.image], key, model=model, search=None)
    assert found.verdict == "detected"
    assert absent.verdict == "no evidence" and absent.pvalue > 1e-3


def test_a_folder_may_name_the_familys_own_classes_and_sizes_only(folder: Path, name: str, tmp_path: Path) -> None:
    hostile = Path(shutil.copytree(folder, tmp_path / "model"))
    field, value = TOO_LARGE[name]
    edit(hostile / "transformer/config.json", **{field: value})
    with pytest.raises(ModelError, match=f"transformer/config.json: {field} is"):
        load_model(hostile)
    edit(hostile / "model_index.json", text_encoder=["transformers", "CLIPTextModel"])
    with pytest.raises(ModelError, match=r"text_encoder is .*only transformers"):
        load_model(hostile)
