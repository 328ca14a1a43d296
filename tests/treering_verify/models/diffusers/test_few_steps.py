"""Generators of one step or few: rectified flow in the layout of Stable Diffusion, consistency models, Turbo."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from diffusers import (
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    LatentConsistencyModelPipeline,
    LCMScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from helpers.models import pipelines
from helpers.models.pipelines import relative

import treering_verify as tv
from treering_verify.cli.main import main
from treering_verify.errors import LimitedModelWarning, ModelError, UsageError
from treering_verify.generation.generator import initial_noise
from treering_verify.inversion.noise import invert
from treering_verify.inversion.recovery import InversionOptions
from treering_verify.models import LatentModel, from_pipeline, load_model
from treering_verify.models.sampling import denoise

CONDITIONS = ["a cat", None]


class RectifiedFlowPipeline(StableDiffusionPipeline):
    """A class of the released one's name that samples by its rule, as a script that brings InstaFlow's own code has it."""

    @torch.no_grad()
    def __call__(self, prompt: list[str], latents: torch.Tensor, steps: int) -> torch.Tensor:  # type: ignore[override]
        states = self.encode_prompt(prompt, self.device, 1, False)[0]
        for i in range(steps):
            time = torch.full((len(latents),), 1000 * (1 - i / steps))
            latents = latents + self.unet(latents, time, encoder_hidden_states=states).sample / steps
        return latents


def told() -> UNet2DConditionModel:
    """Make the network of a consistency model, which is told the guidance."""
    with pipelines.seeded():
        return pipelines.unet(cross_attention_dim=32, time_cond_proj_dim=8)


def consistency() -> Any:
    parts = pipelines.stable_diffusion().components
    scheduler = LCMScheduler(beta_start=0.00085, beta_end=0.012)
    parts = {**parts, "unet": told(), "scheduler": scheduler}
    return LatentConsistencyModelPipeline(**parts, requires_safety_checker=False)


def with_lora(make: Callable[[], Any] = pipelines.stable_diffusion) -> Any:
    pipe = make()
    pipe.scheduler = LCMScheduler.from_config(pipe.scheduler.config)
    return pipe


def turbo(make: Callable[[], Any] = pipelines.stable_diffusion, kind: Any = EulerDiscreteScheduler) -> Any:
    pipe = make()
    pipe.scheduler = kind.from_config(pipe.scheduler.config, timestep_spacing="trailing")
    pipe.register_to_config(_name_or_path="somebody/my-turbo")
    return pipe


FLOWS: dict[str, Callable[[], Any]] = {
    "released": pipelines.rectified_flow,
    "as the scheduler has it": lambda: pipelines.rectified_flow(
        StableDiffusionPipeline, scheduler=FlowMatchEulerDiscreteScheduler()
    ),
}
LIMITED: dict[str, tuple[Callable[[], Any], str]] = {
    "consistency model": (consistency, "stable-diffusion-lcm"),
    "consistency adapter": (with_lora, "stable-diffusion-lcm"),
    "Turbo": (turbo, "stable-diffusion-turbo"),
}


def round_trip(model: LatentModel, steps: int) -> tuple[float, float]:
    """Errors of naive and exact inversion on the grid that generated."""
    noise = initial_noise(model.latent_shape, [0, 1])
    with torch.inference_mode():
        latent = denoise(model, noise, steps=steps, conditions=CONDITIONS)
        naive, exact = (
            relative(invert(model, latent, method, steps=steps, conditions=CONDITIONS), noise)
            for method in ("naive", "exact")
        )
    return naive, exact


# --- rectified flow ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", FLOWS)
@pytest.mark.parametrize("steps", [1, 3])
def test_a_rectified_flow_of_one_step_or_few_is_inverted_by_fixed_point(kind: str, steps: int) -> None:
    naive, exact = round_trip(from_pipeline(FLOWS[kind]()), steps)
    assert exact < 1e-2 and naive > 5 * exact


def test_a_network_that_looks_to_the_latent_and_one_that_looks_to_the_noise_follow_one_flow() -> None:
    released, plain = (make() for make in FLOWS.values())
    with torch.no_grad():
        for parameter in plain.unet.conv_out.parameters():
            parameter.neg_()
    at = from_pipeline(released).timesteps(4)[1]
    z = initial_noise((4, pipelines.CELLS, pipelines.CELLS), [0])
    with torch.no_grad():
        (ours, _), (theirs, _) = (from_pipeline(pipe).denoise(z, at, ["a cat"]) for pipe in (released, plain))
    assert relative(ours, theirs) < 1e-6


@pytest.mark.parametrize("steps", [1, 4])
def test_what_instaflows_own_code_samples_is_what_is_generated_here(steps: int) -> None:
    pipe = pipelines.rectified_flow(RectifiedFlowPipeline)
    model, noise = from_pipeline(pipe), initial_noise((4, pipelines.CELLS, pipelines.CELLS), [5])
    assert model.family.name == "rectified-flow"  # type: ignore[attr-defined]
    assert [at.index for at in model.timesteps(4)] == pytest.approx([1000, 750, 500, 250, 0])
    theirs = pipe(["a cat"], tv.models.native_noise(pipe, noise), steps)
    with torch.inference_mode():
        ours = denoise(model, noise, steps=steps, conditions=["a cat"])
    assert relative(ours, theirs) < 1e-4


def test_the_release_is_read_from_its_index_marks_in_one_step_and_is_verified(tmp_path: Path) -> None:
    pipe = pipelines.rectified_flow()
    pipe.save_pretrained(tmp_path)
    index = json.loads((tmp_path / "model_index.json").read_text())
    assert index["_class_name"] == "RectifiedFlowPipeline"
    index["scheduler"] = ["diffusers", "PNDMScheduler"]  # left over from the original model
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    (tmp_path / "scheduler" / "scheduler_config.json").write_text('{"_class_name": "PNDMScheduler"}')
    model = load_model(tmp_path)
    key = tv.Key.generate(model.latent_shape, channels=pipelines.KEPT, seed=1)
    one_step = InversionOptions(noise_method="exact", steps=1)
    for marked in (True, False):
        (made,) = tv.generate(model, key if marked else None, seeds=[3], prompts=["a cat"], steps=1, guidance=1.0)
        verdict = tv.verify(
            made.image, key, model=model, search=None, alpha=1e-6 if marked else 1e-3, inversion=one_step
        )
        assert verdict.verdict == ("detected" if marked else "no evidence")


# --- limited families -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "steps"), [("consistency model", 1), ("consistency model", 4), ("consistency adapter", 1), ("Turbo", 4)]
)
def test_a_limited_model_is_named_with_its_limits_and_its_own_steps_come_back(kind: str, steps: int) -> None:
    make, family = LIMITED[kind]
    with pytest.warns(LimitedModelWarning, match=r"noise inversion\s+exact"):
        model = from_pipeline(make())
    assert model.family.name == family  # type: ignore[attr-defined]
    naive, exact = round_trip(model, steps)
    assert exact < 1e-2 and naive > 5 * exact


def test_a_plain_model_with_trailing_steps_is_not_taken_for_one_of_few_steps() -> None:
    pipe = turbo()
    for name in ("somebody/plain-model", "/home/turbo/plain", ""):
        pipe.register_to_config(_name_or_path=name)
        from_pipeline(pipe)  # a warning would be an error
    pipe.unet.register_to_config(_name_or_path="/cache/models--somebody--sdxl-turbo/snapshots/abc/unet")
    with pytest.warns(LimitedModelWarning, match="few steps"):
        from_pipeline(pipe)


@pytest.mark.parametrize("kind", LIMITED)
@pytest.mark.filterwarnings("ignore::treering_verify.errors.LimitedModelWarning")
def test_a_limited_model_marks_in_one_step_as_its_pipeline_samples_and_is_verified(kind: str) -> None:
    pipe = LIMITED[kind][0]()
    model = from_pipeline(pipe)
    key = tv.Key.generate(model.latent_shape, channels=pipelines.KEPT, seed=1)
    noise = tv.watermarked_noise(pipe, key, seeds=[3])
    pipe.set_progress_bar_config(disable=True)
    calls = {"prompt": ["a cat"], "num_inference_steps": 1, "guidance_scale": 1.0}
    with torch.inference_mode():
        ours = denoise(model, noise, steps=1, conditions=["a cat"])
    # Euler begins with noise of sigma_max = 14.61, not with the 14.65 at which a latent of unit variance would have it.
    assert relative(pipe(latents=noise, output_type="latent", **calls).images, ours) < (
        1e-2 if kind == "Turbo" else 1e-4
    )
    (image,) = pipe(latents=noise, **calls).images
    verdict = tv.verify(
        image, key, model=model, search=None, alpha=1e-6, inversion=InversionOptions(noise_method="exact", steps=1)
    )
    assert verdict.verdict == "detected"


@pytest.mark.filterwarnings("ignore::treering_verify.errors.LimitedModelWarning")
def test_more_steps_of_a_consistency_sampler_end_where_no_inversion_knows() -> None:
    pipe = consistency()
    model, noise = from_pipeline(pipe), initial_noise((4, pipelines.CELLS, pipelines.CELLS), [5])
    pipe.set_progress_bar_config(disable=True)
    ends = [
        pipe(
            ["a cat"], latents=noise, num_inference_steps=4, output_type="latent", generator=torch.manual_seed(seed)
        ).images
        for seed in (0, 1)
    ]
    # One noise, two images. A network that says nothing leaves 1 / signal times the first noise, and sigma / signal times
    # what is drawn before each other step: of the one they share, and of the others, the two are made.
    grid = model.timesteps(4)
    shared, drawn = 1 / grid[0].alpha, sum((1 - at.alpha) / at.alpha for at in grid[1:-1])
    assert relative(*ends) == pytest.approx((2 * drawn / (shared + drawn)) ** 0.5, rel=0.15)
    assert len(model.timesteps(4)) == 5 and model.timesteps(4)[0].index == 999
    with pytest.raises(UsageError, match="1 to 50"):
        model.timesteps(51)


@pytest.mark.filterwarnings("ignore::treering_verify.errors.LimitedModelWarning")
def test_a_consistency_model_is_told_its_guidance() -> None:
    model = from_pipeline(consistency())
    z, at = initial_noise(model.latent_shape, [0]), model.timesteps(1)[0]
    (one, _), (eight, _) = (model.denoise(z, at, ["a cat"], guidance) for guidance in (1.0, 8.0))
    assert relative(one, eight) > 1e-3


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers' Euler under NumPy 2
def test_families_of_few_steps_are_told_by_their_sampler_alone() -> None:
    for make, family in (
        (lambda: with_lora(pipelines.stable_diffusion_xl), "stable-diffusion-xl-lcm"),
        (lambda: turbo(pipelines.stable_diffusion_xl, EulerAncestralDiscreteScheduler), "stable-diffusion-xl-turbo"),
    ):
        with pytest.warns(LimitedModelWarning):
            assert from_pipeline(make()).family.name == family  # type: ignore[attr-defined]
    pipe = consistency()
    pipe.scheduler = pipelines.diffusion_scheduler()
    with pytest.raises(ModelError, match="give it an LCMScheduler"):
        from_pipeline(pipe)


def test_commands_say_what_is_limited_in_one_line_and_go_on(tmp_path: Path) -> None:
    with_lora().save_pretrained(tmp_path / "model")
    chosen = ("--model", str(tmp_path / "model"), "--device", "cpu", "--dtype", "float32")
    made = ("--unmarked", "--count", "1", "--steps", "1", "--guidance", "1", "--output", str(tmp_path / "images"))
    result = CliRunner().invoke(main, ["generate", *made, *chosen])
    assert result.exit_code == 0, result.output
    (note,) = [line for line in result.stderr.splitlines() if line.startswith("Note: ")]
    assert "consistency model" in note and ".py:" not in result.stderr
    listed = CliRunner().invoke(main, ["models"]).stdout
    assert all(name in listed for name in ("stable-diffusion-lcm", "stable-diffusion-xl-turbo", "rectified-flow"))
    assert listed.count("limited") >= 4
