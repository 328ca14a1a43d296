"""Video pipelines of diffusers: each family marks, generates, inverts and verifies videos, and none is changed by it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from diffusers import UniPCMultistepScheduler
from helpers.audits import stored
from helpers.models import pipelines, video_pipelines
from helpers.models.pipelines import relative, state_of
from PIL import Image
from scipy import stats
from treering_detectors import cosine_tests

import treering_verify as tv
from treering_verify.cli.main import main
from treering_verify.errors import ModelError, UsageError
from treering_verify.generation.generator import initial_noise
from treering_verify.inversion.noise import invert
from treering_verify.inversion.recovery import InversionOptions, recover_noise
from treering_verify.media.videos import encode_video
from treering_verify.models import VideoModel, from_pipeline, latent_shape, load_model, native_noise
from treering_verify.models.diffusers import loading as pipeline_loading
from treering_verify.models.diffusers.video import fold, unfold
from treering_verify.models.sampling import denoise
from treering_verify.models.source import ModelSource
from treering_verify.results import GeneratedVideo

STEPS = 3
QUICK = InversionOptions(method="encoder", steps=STEPS)


@pytest.fixture(scope="module", params=["animatediff", "wan"])
def pipe(request: pytest.FixtureRequest) -> Any:
    return getattr(video_pipelines, request.param)()


@pytest.fixture(scope="module")
def family(pipe: Any) -> str:
    return "wan" if "Wan" in type(pipe).__name__ else "animatediff"


@pytest.fixture(scope="module")
def model(pipe: Any, family: str) -> VideoModel:
    return from_pipeline(pipe, image_size=video_pipelines.SIZE[family], frames=video_pipelines.FRAMES[family])


@pytest.fixture(scope="module")
def key(model: VideoModel, family: str) -> tv.Key:
    return tv.Key.generate(model.latent_shape, channels=video_pipelines.kept_channels(family), seed=1)


@pytest.fixture(scope="module")
def marked(model: VideoModel, key: tv.Key) -> GeneratedVideo:
    return next(iter(tv.generation.generate_videos(model, key, seeds=[3], prompts=["a cat"], steps=STEPS)))


def test_frames_lie_one_after_another() -> None:
    video = torch.arange(2 * 3 * 5).reshape(1, 3, 5, 2, 1)
    assert fold(video).shape == (1, 15, 2, 1)
    assert torch.equal(fold(video)[0, 3:6], video[0, :, 1])
    assert torch.equal(unfold(fold(video), 3), video)


def test_the_ode_is_the_pipelines_own(pipe: Any, model: VideoModel) -> None:
    noise = initial_noise(model.latent_shape, [5])
    pipe.set_progress_bar_config(disable=True)
    theirs = pipe(
        ["a cat"],
        latents=native_noise(pipe, noise),
        height=model.image_size[0],
        width=model.image_size[1],
        num_frames=model.frames,
        num_inference_steps=STEPS,
        guidance_scale=3.0,
        output_type="latent",
    ).frames
    with torch.inference_mode():
        ours = denoise(model, noise, steps=STEPS, conditions=["a cat"], guidance=3.0)
    assert relative(native_noise(pipe, ours), theirs) < 1e-4


def test_exact_inversion_brings_the_noise_back(model: VideoModel) -> None:
    noise = initial_noise(model.latent_shape, [0])
    with torch.inference_mode():
        latent = denoise(model, noise, steps=STEPS, conditions=["a cat"])
        errors = {
            name: relative(invert(model, latent, name, steps=STEPS, conditions=["a cat"]), noise)
            for name in ("naive", "exact")
        }
    assert errors["exact"] < 1e-2
    assert errors["naive"] > 5 * errors["exact"]


def test_the_autoencoder_is_the_pipelines_own_and_not_clamped(pipe: Any, model: VideoModel, family: str) -> None:
    latent = 6 * torch.randn(1, *model.latent_shape, generator=torch.Generator().manual_seed(0))
    ours = unfold(model.decode(latent), 3)
    video = unfold(latent, video_pipelines.CHANNELS[family])
    if family == "wan":
        std, mean = pipe.vae.config.latents_std[0], pipe.vae.config.latents_mean[0]
        with torch.no_grad():
            theirs = pipe.vae.decode(video * std + mean).sample
        assert ours.abs().max() > 1.1
        ours = ours.clamp(-1, 1)
    else:
        with torch.no_grad():
            theirs = pipe.decode_latents(video)
    assert relative(ours, theirs) < 1e-5


def test_a_marked_video_is_detected_and_its_unmarked_twin_is_not(
    model: VideoModel, key: tv.Key, marked: GeneratedVideo
) -> None:
    (plain,) = tv.generation.generate_videos(model, None, seeds=[3], prompts=["a cat"], steps=STEPS)
    assert len(marked.frames) == marked.sidecar["frames"] == model.frames
    found, absent = tv.verify_many([marked.frames, plain.frames], key, model=model, inversion=QUICK, search=None)
    assert found.verdict == "detected" and found.note == ""
    assert absent.verdict == "no evidence" and absent.pvalue > 1e-3


@pytest.mark.parametrize("style", ["mp4", "gif"])
def test_a_marked_video_is_detected_after_its_codec(
    model: VideoModel, key: tv.Key, marked: GeneratedVideo, style: str
) -> None:
    data = encode_video(marked.frames, style, model.fps)
    assert tv.verify(data, key, model=model, inversion=QUICK, search=None).verdict == "detected"


def test_a_marked_video_that_was_mirrored_is_found_by_the_search(
    model: VideoModel, key: tv.Key, marked: GeneratedVideo, family: str
) -> None:
    if family == "wan":
        return  # the search sees channels alone: one family shows it
    mirrored = [frame.transpose(Image.Transpose.FLIP_LEFT_RIGHT) for frame in marked.frames]
    found = tv.verify(mirrored, key, model=model, inversion=QUICK, search="quick")
    assert found.verdict == "detected" and found.best is not None and found.best.hypothesis == "mirrored"


def test_p_is_uniform_on_videos_without_the_key(model: VideoModel, key: tv.Key, family: str) -> None:
    """On videos that stand still, move and are noise: frames that resemble each other make no p too small."""
    if family == "wan":
        return  # the test sees features alone: one family shows it
    rng = np.random.default_rng(0)
    height, width = model.image_size
    scene = np.cumsum(np.cumsum(rng.normal(size=(3, height, width)), 1), 2)
    scene /= np.abs(scene).max()
    videos = [
        np.concatenate([scene] * model.frames),
        np.concatenate([np.roll(scene, 3 * f, axis=2) for f in range(model.frames)]),
        0.3 * rng.normal(size=(3 * model.frames, height, width)),
    ]
    pixels = torch.from_numpy(np.stack(videos)).float()
    noise_hat, _ = recover_noise(model, pixels, replace(QUICK, steps=1))
    features = tv.watermark.features(tv.watermark.extract(noise_hat, key), key)
    found = [e.pvalue for a in features for e in cosine_tests(a, rng.standard_normal((400, key.degrees_of_freedom)))]
    assert stats.kstest(found, "uniform").pvalue > 1e-3
    low, high = stats.binom.ppf([0.0005, 0.9995], len(found), 1e-2)
    assert low <= sum(p <= 1e-2 for p in found) <= high


def test_marked_noise_is_white_over_frames_too(model: VideoModel, family: str) -> None:
    shape = model.latent_shape
    channels = video_pipelines.CHANNELS[family]
    power, together = [], []  # each N(0, 1) if the noise is N(0, I)
    for seed in range(30):
        noise = tv.watermark.embed(initial_noise(shape, [seed]), tv.Key.generate(shape, seed=seed))
        power.append(float(noise.square().mean() - 1) * (noise.numel() / 2) ** 0.5)
        first, second = unfold(noise, channels)[0, :, :2].unbind(1)
        together.append(float((first * second).mean()) * first.numel() ** 0.5)
    for found in (power, together):
        assert abs(np.mean(found)) < 4 / len(found) ** 0.5
        assert 0.5 < np.std(found) < 1.6


def test_a_callers_pipeline_is_as_it_was(pipe: Any, model: VideoModel, key: tv.Key, family: str) -> None:
    network = pipe.unet if family == "animatediff" else pipe.transformer
    network.train()
    before = state_of(pipe)
    try:
        again = from_pipeline(pipe, image_size=model.image_size, frames=model.frames)
        (made,) = tv.generation.generate_videos(again, key, seeds=[3], prompts=["a cat"], steps=2, guidance=2.0)
        tv.verify(made.frames, key, model=again, inversion=replace(QUICK, steps=1), search=None)
        assert state_of(pipe) == before
        hook = network.register_forward_pre_hook(_fail)
        before = state_of(pipe)
        with pytest.raises(RuntimeError, match="out of memory"):
            next(iter(tv.generation.generate_videos(again, None, seeds=[3], steps=2)))
        assert state_of(pipe) == before
        hook.remove()
    finally:
        network.eval()


def _fail(*_: object) -> None:
    raise RuntimeError("out of memory")


def test_three_lines_mark_what_a_script_generates(pipe: Any, model: VideoModel, key: tv.Key) -> None:
    latents = tv.watermarked_noise(pipe, key, seeds=[11], image_size=model.image_size)
    assert latents.ndim == 5
    pipe.set_progress_bar_config(disable=True)
    height, width = model.image_size
    (frames,) = pipe(
        ["a cat"],
        latents=latents,
        height=height,
        width=width,
        num_frames=model.frames,
        num_inference_steps=STEPS,
        guidance_scale=2.0,
        output_type="pil",
    ).frames
    assert tv.verify(frames, key, model=model, inversion=QUICK, search=None).verdict == "detected"
    with pytest.raises(UsageError, match="a frame"):
        tv.watermarked_noise(pipe, tv.Key.generate((3, *key.latent_shape[1:]), seed=1), seeds=[0])


def test_the_same_commands_serve_it(pipe: Any, model: VideoModel, family: str, tmp_path: Path) -> None:
    style = {"animatediff": "mp4", "wan": "png"}[family]  # the files are not a family's affair
    pipe.save_pretrained(tmp_path / "model")

    def run(*arguments: object, code: int = 0) -> str:
        result = CliRunner().invoke(main, [str(a) for a in arguments], catch_exceptions=False)
        assert result.exit_code == code, result.output
        return result.stdout

    chosen: tuple[object, ...] = (
        "--model",
        tmp_path / "model",
        "--image-size",
        model.image_size[0],
        "--frames",
        model.frames,
    )
    run("keygen", "--output", tmp_path / "my.key.json", *chosen)
    made = ("--count", 1, "--steps", STEPS, "--prompt", "a cat", "--video-format", style, *chosen)
    (path,) = run("generate", "--key", tmp_path / "my.key.json", "--output", tmp_path / "videos", *made).split()
    assert Path(path).name == ("marked-000000.mp4" if style == "mp4" else "marked-000000")
    assert Path(path).is_dir() == (style == "png")
    sidecar = json.loads((tmp_path / "videos" / "marked-000000.json").read_text())
    assert sidecar["frames"] == model.frames and sidecar["fps"] == model.fps
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"\0\0\0\x20ftypisom" + b"\0" * 100)
    quick = ("--inversion", "encoder", "--steps", STEPS, "--search", "off", "--format", "jsonl", *chosen)
    rows = [
        json.loads(x)
        for x in run("verify", path, broken, "--key", tmp_path / "my.key.json", *quick, code=3).splitlines()
    ]
    assert [row["verdict"] for row in rows] == ["detected", None]
    assert rows[1]["status"] == "error" and rows[1]["code"] == "corrupt"
    audit = ("audit", tmp_path / "videos", "--key", tmp_path / "my.key.json", "--output", tmp_path / "audit", *chosen)
    run(*audit, "--inversion", "encoder", "--steps", STEPS, "--batch-size", 2)
    found = {Path(row.path).name: row for row in stored(tmp_path / "audit")}
    assert found.pop("marked-000000.json").code == "not_a_video_file"
    row = found.pop(Path(path).name)
    assert not found, "a folder of frames is one input"
    assert row.verdict == "detected" and (row.height, row.width) == model.image_size
    page = (tmp_path / "audit" / "report.html").read_text()
    assert page.count("data:image/jpeg") == page.count("data:image/png") == 1, "its first frame, and the spectrum"


def test_a_saved_pipeline_knows_its_shape_before_it_is_loaded(
    pipe: Any, model: VideoModel, family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe.save_pretrained(tmp_path)
    source = ModelSource(str(tmp_path), image_size=model.image_size, frames=model.frames)
    assert latent_shape(source) == model.latent_shape
    if family == "wan":
        with monkeypatch.context() as missing:
            missing.setattr(pipeline_loading, "find_spec", lambda name: None if name == "accelerate" else True)
            with pytest.raises(ModelError, match="needs the package accelerate"):
                load_model(source)
    loaded = load_model(source)
    x = torch.rand(1, 3 * model.frames, *model.image_size, generator=torch.Generator().manual_seed(0)) * 2 - 1
    assert torch.equal(loaded.encode(x), model.encode(x))


def test_other_lengths_are_made_where_the_model_can(pipe: Any, family: str) -> None:
    size, channels = video_pipelines.SIZE[family], video_pipelines.CHANNELS[family]
    good, latent_frames, bad = {"animatediff": (8, 8, 9), "wan": (9, 3, 8)}[family]
    assert from_pipeline(pipe, image_size=size, frames=good).latent_shape[0] == latent_frames * channels
    for frames in (0, bad):
        with pytest.raises(UsageError, match=f"no videos of {frames} frames"):
            from_pipeline(pipe, image_size=size, frames=frames)


# --- refusals, and samplers ---------------------------------------------------------------------------------------------


def test_images_and_videos_are_not_confused(model: VideoModel) -> None:
    images = from_pipeline(pipelines.stable_diffusion())
    with pytest.raises(UsageError, match="makes videos"):
        next(iter(tv.generate(model, None, seeds=[1])))
    with pytest.raises(UsageError, match="not videos"):
        next(iter(tv.generation.generate_videos(images, None, seeds=[1])))
    with pytest.raises(UsageError, match="leave out the frames"):
        from_pipeline(pipelines.stable_diffusion(), frames=4)
    with pytest.raises(UsageError, match="editing works on images"):
        tv.generation.edit(model, Image.new("RGB", (48, 48)), Image.new("L", (48, 48), 255), "a cat")
    with pytest.raises(UsageError, match="calibration works on images"):
        tv.detection.calibrate([], tv.watermark.Family.choose(model.latent_shape), model=model)
    key = tv.Key.generate(images.latent_shape, seed=1)
    assert len(tv.verify([Image.new("RGB", (48, 48))] * 2, key, model=images)) == 2


def test_wan_may_bring_its_own_sampler_and_not_two_networks() -> None:
    pipe = video_pipelines.wan()
    kept = pipe.scheduler
    pipe.scheduler = UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0)
    grid = from_pipeline(pipe, image_size=(80, 80), frames=5).timesteps(STEPS)
    pipe.scheduler.set_timesteps(STEPS)
    assert [at.sigma for at in grid] == pytest.approx(pipe.scheduler.sigmas.tolist())
    assert [at.index for at in grid[:-1]] == pipe.scheduler.timesteps.tolist()
    pipe.scheduler = kept
    pipe.register_to_config(boundary_ratio=0.9)
    with pytest.raises(ModelError, match=r"Wan 2\.1"):
        from_pipeline(pipe)
