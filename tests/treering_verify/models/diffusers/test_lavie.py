"""LaVie: its network bounds memory and sees all frames, and its pipeline marks, inverts and verifies videos."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from helpers.hostile.models import edit
from helpers.models import pipelines, video_pipelines
from helpers.models.pipelines import relative, state_of
from safetensors.torch import load_file, save_file

import treering_verify as tv
from treering_verify.cli.main import main
from treering_verify.errors import ModelError, UsageError
from treering_verify.generation.generator import initial_noise
from treering_verify.inversion.noise import invert
from treering_verify.inversion.recovery import InversionOptions
from treering_verify.models import VideoModel, from_pipeline, latent_shape, load_model, native_noise
from treering_verify.models.checks.json_files import read_object
from treering_verify.models.diffusers.kinds import lavie_network
from treering_verify.models.sampling import denoise
from treering_verify.models.source import ModelSource
from treering_verify.training import conversion, pickled_tensors

STEPS, FRAMES, SIZE = 2, 3, (48, 64)


@pytest.fixture(scope="module")
def pipe() -> Any:
    made = video_pipelines.lavie()
    made.set_progress_bar_config(disable=True)
    return made


@pytest.fixture(scope="module")
def folder(pipe: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("saved")
    pipe.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def model(folder: Path) -> VideoModel:
    return load_model(folder, image_size=SIZE, frames=FRAMES)


def test_the_ode_is_the_pipelines_own(pipe: Any, model: VideoModel) -> None:
    noise = initial_noise(model.latent_shape, [5])
    theirs = pipe(
        ["a cat"],
        latents=native_noise(pipe, noise),
        height=SIZE[0],
        width=SIZE[1],
        num_frames=FRAMES,
        num_inference_steps=STEPS,
        guidance_scale=3.0,
        output_type="latent",
    ).frames
    with torch.inference_mode():
        ours = denoise(model, noise, steps=STEPS, conditions=["a cat"], guidance=3.0)
        latent = denoise(model, noise, steps=STEPS, conditions=["a cat"])
        back = invert(model, latent, "exact", steps=STEPS, conditions=["a cat"])
    assert relative(native_noise(pipe, ours), theirs) < 1e-4
    assert relative(back, noise) < 1e-2


def test_slices_bound_what_a_layer_takes_and_change_nothing(pipe: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    z, states = torch.randn(2, 4, FRAMES, 16, 24), torch.randn(2, 7, 32)
    rows: list[int] = []
    blocks = [part for part in pipe.unet.modules() if isinstance(part, lavie_network._VideoBlock)]
    hooks = [block.ff.register_forward_pre_hook(lambda _, given: rows.append(len(given[0]))) for block in blocks]
    found = []
    for most in (1, 100):
        monkeypatch.setattr(lavie_network, "_ROWS", most)
        with torch.inference_mode():
            found.append(pipe.unet(z, 500, states).sample)
        assert max(rows) == min(most, 2 * FRAMES)
        rows.clear()
    for hook in hooks:
        hook.remove()
    assert relative(found[0], found[1]) < 1e-5


def test_each_frame_depends_on_all_others_and_on_their_order(pipe: Any) -> None:
    z, states = torch.randn(1, 4, FRAMES, 8, 8), torch.randn(1, 7, 32)
    with torch.inference_mode():
        said = pipe.unet(z, 500, states).sample
        changed = z.clone()
        changed[:, :, -1] *= -1
        other = pipe.unet(changed, 500, states).sample
        turned = pipe.unet(z.flip(2), 500, states).sample.flip(2)
    assert all(relative(other[:, :, i], said[:, :, i]) > 1e-4 for i in range(FRAMES))
    assert relative(turned, said) > 1e-4


def test_it_marks_and_verifies_and_the_pipeline_is_as_it_was(pipe: Any, model: VideoModel, folder: Path) -> None:
    source = ModelSource(str(folder), image_size=SIZE, frames=FRAMES)
    assert latent_shape(source) == model.latent_shape == (4 * FRAMES, 24, 32)
    assert latent_shape(folder) == (4 * 16, 160, 256)  # 16 frames of 320 x 512, here with 2 pixels a cell
    key = tv.Key.generate(model.latent_shape, channels=video_pipelines.kept_channels("animatediff", FRAMES), seed=1)
    before = state_of(pipe)
    own = from_pipeline(pipe, image_size=SIZE, frames=FRAMES)
    (marked,) = tv.generation.generate_videos(own, key, seeds=[3], prompts=["a cat"], steps=STEPS)
    assert state_of(pipe) == before
    (plain,) = tv.generation.generate_videos(model, None, seeds=[3], prompts=["a cat"], steps=STEPS)
    quick = InversionOptions(method="encoder", steps=STEPS)
    found, absent = tv.detection.verify_many(
        [marked.frames, plain.frames], key, model=model, inversion=quick, search=None
    )
    assert found.verdict == "detected"
    assert absent.verdict == "no evidence" and absent.pvalue > 1e-3


def test_weights_of_another_network_are_refused(folder: Path, tmp_path: Path) -> None:
    weights = folder / "unet/diffusion_pytorch_model.safetensors"
    state = load_file(weights)
    part = tmp_path / "unet"
    part.mkdir()
    (part / "config.json").write_text((folder / "unet/config.json").read_text())
    for name in ("model_index.json", "vae", "text_encoder", "tokenizer", "scheduler"):
        (tmp_path / name).symlink_to(folder / name)
    save_file({name: value for name, value in state.items() if "_temp" not in name}, part / weights.name)
    (tmp_path / "model_index.json").unlink()
    (tmp_path / "model_index.json").write_text((folder / "model_index.json").read_text())
    with pytest.raises(ModelError):
        load_model(tmp_path)
    edit(tmp_path / "model_index.json", unet=["diffusers", "UNet3DConditionModel"])
    with pytest.raises(ModelError, match=r"unet is .*only diffusers.UNet2DConditionModel"):
        load_model(tmp_path)


# --- conversion -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("base") / "stable-diffusion"
    pipelines.stable_diffusion().save_pretrained(path)
    edit(path / "unet/config.json", attention_head_dim=2)
    return path


def test_a_released_file_is_converted_and_loads(pipe: Any, base: Path, tmp_path: Path) -> None:
    torch.save({"ema": pipe.unet.state_dict(), "step": 7}, tmp_path / "lavie_base.pt")
    command = ["models", "convert", tmp_path / "lavie_base.pt", "--base", base, "--output", tmp_path / "lavie"]
    done = CliRunner().invoke(main, [str(word) for word in command], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    model = load_model(tmp_path / "lavie", image_size=SIZE, frames=FRAMES)
    found, wanted = model._network.state_dict(), pipe.unet.state_dict()
    assert found.keys() == wanted.keys() and all(torch.equal(found[name], wanted[name]) for name in wanted)
    assert model._scheduler.config.beta_schedule == "linear"
    assert not list(tmp_path.glob(".converting-*"))


class _Canary:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_code_in_a_file_never_runs(pipe: Any, base: Path, tmp_path: Path) -> None:
    torch.save({**pipe.unet.state_dict(), "more": _Canary(tmp_path / "ran")}, tmp_path / "file.pt")
    with pytest.raises(ModelError, match="tensors alone"):
        tv.training.convert(tmp_path / "file.pt", base, tmp_path / "never")
    assert not (tmp_path / "ran").exists() and not (tmp_path / "never").exists()


def test_what_is_not_lavies_weights_is_refused(pipe: Any, base: Path, tmp_path: Path) -> None:
    state = pipe.unet.state_dict()
    for content in ([1, 2], {}, {**state, "more": "text"}, {"model": {1: state["conv_in.bias"]}}):
        with pytest.raises(ValueError, match="tensors"):
            pickled_tensors._tensors(content)
    config = read_object(base, "unet/config.json", "")
    conversion._check_weights(file_of(state, tmp_path), config, "")
    for changed in (dict(list(state.items())[:-1]), {**state, "conv_in.bias": torch.zeros(3)}):
        with pytest.raises(ModelError, match="1 tensors are not those of LaVie"):
            conversion._check_weights(file_of(changed, tmp_path), config, "")
    torch.save(state, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    with pytest.raises(ModelError, match="old format"):
        tv.training.convert(tmp_path / "old.pt", base, tmp_path / "never")
    with pytest.raises(UsageError, match="exists: name a new folder"):
        tv.training.convert(tmp_path / "old.pt", base, tmp_path)


def file_of(state: dict[str, torch.Tensor], folder: Path) -> Path:
    save_file(state, folder / "w.safetensors")
    return folder / "w.safetensors"
