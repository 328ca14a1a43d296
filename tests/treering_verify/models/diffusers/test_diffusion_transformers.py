"""DiT, whose conditions are classes, and what PixArt is told beside the prompt."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import PixArtSigmaPipeline
from helpers.models import pipelines
from helpers.models.pipelines import relative

import treering_verify as tv
from treering_verify.errors import UsageError
from treering_verify.generation.generator import initial_noise
from treering_verify.inversion.noise import invert
from treering_verify.media.conversion import to_tensor
from treering_verify.models import from_pipeline, latent_shape, load_model, native_noise
from treering_verify.models.sampling import denoise

STEPS = 4
NAMES = ("Tinca tinca", "goldfish", "2")  # of several names the pipeline's first; the number where it has none


@pytest.fixture(scope="module")
def pipe() -> Iterator[Any]:
    made = pipelines.dit()
    made.set_progress_bar_config(disable=True)
    before = {name: value.clone() for name, value in made.transformer.state_dict().items()}, made.scheduler.config
    yield made
    assert all(torch.equal(value, made.transformer.state_dict()[name]) for name, value in before[0].items())
    assert made.scheduler.config is before[1]


def test_dit_generates_what_its_pipeline_does(pipe: Any) -> None:
    model = from_pipeline(pipe)
    assert model.classes == NAMES
    (theirs,) = pipe(
        [1], guidance_scale=1.0, num_inference_steps=STEPS, generator=torch.manual_seed(5), output_type="np"
    ).images
    with torch.inference_mode():
        noise = initial_noise(model.latent_shape, [5])
        ours = model.decode(denoise(model, noise, steps=STEPS, conditions=["goldfish"]))
    assert relative((ours[0] / 2 + 0.5).clamp(0, 1).permute(1, 2, 0), torch.from_numpy(theirs)) < 1e-4


def test_dit_is_inverted_under_its_class_and_classes_differ(pipe: Any) -> None:
    model = from_pipeline(pipe)
    noise, labels = initial_noise(model.latent_shape, [0, 1]), ["goldfish", None]
    with torch.inference_mode():
        latent = denoise(model, noise, steps=STEPS, conditions=labels)
        naive, exact = (
            relative(invert(model, latent, name, steps=STEPS, conditions=labels), noise) for name in ("naive", "exact")
        )
        _, said = model.denoise(noise[:1].expand(4, -1, -1, -1), model.timesteps(STEPS)[0], ["tench", *NAMES[1:], None])
    assert exact < 1e-2 and naive > 5 * exact
    assert all(relative(said[i], said[j]) > 1e-3 for i in range(4) for j in range(i))
    same, _ = model.denoise(noise, model.timesteps(STEPS)[0], ["Tinca tinca", "tench"])
    assert relative(same, model.denoise(noise, model.timesteps(STEPS)[0], ["tench", "tench"])[0]) < 1e-6


def test_a_saved_dit_is_loaded_marked_and_verified_without_its_class(pipe: Any, tmp_path: Path) -> None:
    pipe.save_pretrained(tmp_path)
    index = json.loads((tmp_path / "model_index.json").read_text())  # diffusers does not save the names
    (tmp_path / "model_index.json").write_text(json.dumps({**index, "id2label": pipelines.CLASSES}))
    model = load_model(tmp_path)
    assert latent_shape(tmp_path) == model.latent_shape and model.classes == NAMES
    key = tv.Key.generate(model.latent_shape, channels=pipelines.KEPT, seed=1)
    marked, other = tv.generate(model, key, seeds=[3, 4], steps=STEPS, guidance=2.0)
    assert [made.sidecar["class"] for made in (marked, other)] == ["Tinca tinca", "goldfish"]  # seeds 3 and 4, in turn
    (plain,) = tv.generate(model, None, seeds=[3], steps=STEPS, guidance=2.0)
    assert tv.verify(marked.image, key, model=model, search=None).verdict == "detected"
    assert tv.verify(plain.image, key, model=model, search=None, alpha=1e-3).verdict == "no evidence"
    assert relative(model.decode(model.encode(to_tensor(marked.image))), to_tensor(marked.image)) < 1e-3


def test_what_dit_cannot_do_is_said(pipe: Any) -> None:
    model = from_pipeline(pipe)
    with pytest.raises(UsageError, match="no class 'shark'"):
        next(iter(tv.generate(model, None, seeds=[1], prompts=["shark"], steps=1)))
    with pytest.raises(UsageError, match="choose a square"):
        from_pipeline(pipe, image_size=(48, 64))
    with pytest.raises(UsageError, match="takes no latents="):
        native_noise(pipe, initial_noise(model.latent_shape, [0]))


@pytest.mark.parametrize("sigma", [False, True])
def test_pixart_is_told_the_size_of_the_image_and_its_own_length_of_prompt(sigma: bool) -> None:
    pipe = pipelines.pixart(sigma, cells=128)
    pipe.set_progress_bar_config(disable=True)
    assert isinstance(pipe, PixArtSigmaPipeline) == sigma
    model = from_pipeline(pipe, image_size=(48, 32))
    noise = initial_noise(model.latent_shape, [5])
    size = {"height": 48, "width": 32, "use_resolution_binning": False}
    calls = {"num_inference_steps": 2, "guidance_scale": 1.0, "output_type": "latent", **size}
    theirs = pipe(["a cat"], latents=native_noise(pipe, noise), **calls).images
    with torch.inference_mode():
        ours = denoise(model, noise, steps=2, conditions=["a cat"])
    assert relative(ours, theirs) < 1e-4
