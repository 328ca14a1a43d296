"""The diffusers adapter and its loading, on a tiny random model, without a network."""

from __future__ import annotations

import copy
import json
import shutil
import socket
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderTiny, DDIMScheduler, UNet2DModel

from treering_verify.errors import ModelError, UsageError
from treering_verify.models import LatentModel, latent_shape, load_model
from treering_verify.models.class_conditional import ClassConditionalModel


@pytest.fixture
def folder(tiny_folder: Path, tmp_path: Path) -> Path:
    """Return a copy that a test may damage."""
    return Path(shutil.copytree(tiny_folder, tmp_path / "model"))


def give_tiny_autoencoder(folder: Path, decoder_stages: int = 3) -> AutoencoderTiny:
    """Put an `AutoencoderTiny`, which knows no posterior, in the place of a folder's autoencoder; return it."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        vae = AutoencoderTiny(
            encoder_block_out_channels=(8,) * 3,
            decoder_block_out_channels=(12,) * decoder_stages,
            num_encoder_blocks=(1, 1, 1),
            num_decoder_blocks=(1,) * decoder_stages,
            scaling_factor=1.5,
            shift_factor=0.25,
        )
    shutil.rmtree(folder / "vae")
    vae.save_pretrained(folder / "vae")
    edit(folder / "model_index.json", vae=["diffusers", "AutoencoderTiny"])
    return vae.eval().requires_grad_(False)


def parts(folder: Path) -> dict[str, object]:
    return {
        "vae": AutoencoderKL.from_pretrained(folder, subfolder="vae").eval().requires_grad_(False),
        "unet": UNet2DModel.from_pretrained(folder, subfolder="unet").eval().requires_grad_(False),
        "scheduler": DDIMScheduler.from_pretrained(folder, subfolder="scheduler"),
    }


def edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def noise(model: LatentModel, batch: int = 2, seed: int = 0) -> torch.Tensor:
    return torch.randn(batch, *model.latent_shape, generator=torch.Generator().manual_seed(seed))


# --- loading ----------------------------------------------------------------------------------------------------------


def test_a_folder_loads_frozen_in_evaluation_mode_with_its_classes(tiny_model: LatentModel, tiny_folder: Path) -> None:
    assert tiny_model.classes == ("dawn", "noon", "dusk")
    assert tiny_model.latent_shape == latent_shape(tiny_folder) == (4, 32, 32)
    assert tiny_model.image_size == (128, 128)
    decoded = tiny_model.decode(noise(tiny_model).requires_grad_(True))
    assert decoded.shape == (2, 3, 128, 128) and decoded.dtype == torch.float32
    assert decoded.requires_grad  # differentiable in the latent ...
    assert not tiny_model.decode(noise(tiny_model)).requires_grad  # ... and not in the weights


def test_half_precision_weights_are_computed_with_in_full(folder: Path) -> None:
    unet = UNet2DModel.from_pretrained(folder, subfolder="unet")
    unet.half().save_pretrained(folder / "unet")
    model = load_model(folder)
    assert model.denoise(noise(model), model.timesteps(1)[0], [None] * 2)[0].dtype == torch.float32


def test_classes_without_names_are_numbered(folder: Path) -> None:
    index = json.loads((folder / "model_index.json").read_text())
    del index["classes"]
    (folder / "model_index.json").write_text(json.dumps(index))
    assert load_model(folder).classes == ("class0", "class1", "class2")


def test_a_folder_whose_autoencoder_knows_no_posterior_loads(folder: Path) -> None:
    give_tiny_autoencoder(folder)
    model = load_model(folder)
    assert model.latent_shape == latent_shape(folder) == (4, 32, 32)
    assert model.image_size == (128, 128)
    decoded = model.decode(noise(model).requires_grad_(True))
    assert decoded.shape == (2, 3, 128, 128) and decoded.requires_grad
    assert not model.decode(noise(model)).requires_grad
    assert model.encode(decoded.detach()).shape == (2, 4, 32, 32)


def test_an_autoencoder_whose_halves_have_different_strides_is_refused(folder: Path) -> None:
    give_tiny_autoencoder(folder, decoder_stages=2)
    with pytest.raises(ModelError, match="shrinks a side 4 times and the decoder grows it 2 times"):
        load_model(folder)


def test_loading_and_running_open_no_socket(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a socket was opened")

    for name in ("socket", "create_connection", "getaddrinfo"):
        monkeypatch.setattr(socket, name, refuse)
    model = load_model(folder)
    assert model.decode(noise(model)).isfinite().all()
    with pytest.raises(ModelError, match="no model"):
        load_model("stabilityai/stable-diffusion-2-1")


def remove(path: str) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        target = folder / path
        shutil.rmtree(target) if target.is_dir() else target.unlink()

    return damage


def overwrite(path: str, content: str | bytes) -> Callable[[Path], None]:
    return lambda folder: (
        (folder / path).write_bytes(content.encode() if isinstance(content, str) else content) and None
    )


def truncate(path: str, share: float) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        data = (folder / path).read_bytes()
        (folder / path).write_bytes(data[: int(share * len(data))])

    return damage


WEIGHTS = "diffusion_pytorch_model.safetensors"
DAMAGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "no folder": (shutil.rmtree, "no model"),
    "no index": (remove("model_index.json"), "no model"),
    "an index that is not JSON": (overwrite("model_index.json", "{"), "cannot load"),
    "an index that is a list": (overwrite("model_index.json", "[]"), "cannot load"),
    "an index that is not text": (overwrite("model_index.json", b"\xff\xfe\xff"), "cannot load"),
    "an index of other parts": (
        lambda folder: edit(folder / "model_index.json", unet=["diffusers", "UNet2DConditionModel"]),
        "this release reads models of",
    ),
    "an index that names another kind of autoencoder": (
        lambda folder: edit(folder / "model_index.json", vae=["diffusers", "AutoencoderTiny"]),
        "weights of vae do not fit",
    ),
    "an index of no parts": (overwrite("model_index.json", "{}"), "this release reads models of"),
    "an index of empty parts": (overwrite("model_index.json", '{"vae": []}'), "cannot load"),
    "too few class names": (lambda folder: edit(folder / "model_index.json", classes=["one"]), "class names need 2"),
    "no vae": (remove("vae"), "cannot load"),
    "no weights": (remove(f"unet/{WEIGHTS}"), "cannot load"),
    "weights cut short": (truncate(f"vae/{WEIGHTS}", 0.5), "cannot load"),
    "weights cut in the header": (truncate(f"unet/{WEIGHTS}", 0.01), "cannot load"),
    "weights that are empty": (overwrite(f"unet/{WEIGHTS}", b""), "cannot load"),
    "weights that are pickled": (
        lambda folder: (folder / f"unet/{WEIGHTS}").rename(folder / "unet" / "diffusion_pytorch_model.bin") and None,
        "weights of unet are pickled",
    ),
    "weights of another network": (
        lambda folder: edit(folder / "unet/config.json", block_out_channels=[8, 16]),
        "cannot load",
    ),
    "weights that lack a layer": (lambda folder: edit(folder / "unet/config.json", layers_per_block=2), "cannot load"),
    "a config that is not JSON": (overwrite("unet/config.json", "{"), "cannot load"),
    "a scheduler config that is not JSON": (overwrite("scheduler/scheduler_config.json", "{"), "cannot load"),
    "no scheduler": (remove("scheduler"), "cannot load"),
    "no class embedding": (lambda folder: edit(folder / "unet/config.json", num_class_embeds=None), "cannot load"),
    "a clipping scheduler": (
        lambda folder: edit(folder / "scheduler/scheduler_config.json", clip_sample=True),
        "clip_sample",
    ),
    "a thresholding scheduler": (
        lambda folder: edit(folder / "scheduler/scheduler_config.json", thresholding=True),
        "thresholding",
    ),
    "sample prediction": (
        lambda folder: edit(folder / "scheduler/scheduler_config.json", prediction_type="sample"),
        "prediction type 'sample'",
    ),
    "epsilon prediction at zero SNR": (
        lambda folder: edit(
            folder / "scheduler/scheduler_config.json", prediction_type="epsilon", rescale_betas_zero_snr=True
        ),
        "zero SNR",
    ),
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_damaged_or_unsupported_model_is_refused_in_the_words_of_the_toolkit(kind: str, folder: Path) -> None:
    damage, message = DAMAGES[kind]
    damage(folder)
    with pytest.raises(ModelError, match=message) as caught:
        load_model(folder)
    assert str(caught.value).isprintable()


def test_a_name_with_control_characters_is_shown_escaped() -> None:
    with pytest.raises(ModelError, match="no model") as caught:
        load_model("\x1b[31mred")
    assert str(caught.value).isprintable()


# --- encode and decode ------------------------------------------------------------------------------------------------


def test_encode_is_the_scaled_mode_of_the_posterior_and_never_a_sample(tiny_folder: Path) -> None:
    loaded = parts(tiny_folder)
    model = ClassConditionalModel("tiny", **loaded, classes=("a", "b", "c"))  # type: ignore[arg-type]
    image = torch.rand(2, 3, 128, 128, generator=torch.Generator().manual_seed(0)) * 2 - 1
    posterior = loaded["vae"].encode(image).latent_dist  # type: ignore[attr-defined]
    torch.testing.assert_close(model.encode(image), posterior.mean * 1.5, rtol=0, atol=1e-6)
    assert torch.equal(model.encode(image), model.encode(image))
    assert float((posterior.sample() - posterior.mean).abs().max()) > 1e-3


def test_decode_undoes_scale_and_shift_and_does_not_clamp(tiny_folder: Path) -> None:
    loaded = parts(tiny_folder)
    loaded["vae"].register_to_config(shift_factor=0.25)  # type: ignore[attr-defined]
    model = ClassConditionalModel("tiny", **loaded, classes=("a", "b", "c"))  # type: ignore[arg-type]
    plain = noise(model)
    expected = loaded["vae"].decode(plain).sample  # type: ignore[attr-defined]
    torch.testing.assert_close(model.decode((plain - 0.25) * 1.5), expected, rtol=1e-4, atol=1e-4)
    with torch.no_grad():
        loaded["vae"].decoder.conv_out.weight.mul_(1000)  # type: ignore[attr-defined]
    assert float(model.decode(plain).abs().max()) > 1


def test_without_a_posterior_encode_and_decode_scale_and_shift_alike(folder: Path) -> None:
    vae = give_tiny_autoencoder(folder)
    model = load_model(folder)
    image = torch.rand(2, 3, 128, 128, generator=torch.Generator().manual_seed(0)) * 2 - 1
    torch.testing.assert_close(model.encode(image), (vae.encode(image).latents - 0.25) * 1.5, rtol=0, atol=1e-5)
    raw = noise(model)
    torch.testing.assert_close(model.decode((raw - 0.25) * 1.5), vae.decode(raw).sample, rtol=1e-4, atol=1e-4)


# --- the grid ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
@pytest.mark.parametrize("steps", [2, 7, 10, 50, 333, 999])
def test_the_grid_has_a_point_more_than_steps_falling_in_time_and_rising_in_signal(
    steps: int, spacing: str, folder: Path
) -> None:
    edit(folder / "scheduler/scheduler_config.json", timestep_spacing=spacing)
    model = ClassConditionalModel("tiny", **parts_without_weights(folder), classes=("a", "b", "c"))
    grid = model.timesteps(steps)
    scheduler = DDIMScheduler.from_pretrained(folder, subfolder="scheduler")
    scheduler.set_timesteps(steps)
    assert [at.index for at in grid[:-1]] == scheduler.timesteps.tolist()
    assert len(grid) == steps + 1
    # trailing and linspace end at index 0 themselves when the steps are many: the last step is then of length 0.
    assert all(a.index >= b.index and a.alpha <= b.alpha for a, b in pairwise(grid))
    assert all(a.index > b.index and a.alpha < b.alpha for a, b in pairwise(grid[:-1]))
    assert 0 < grid[0].alpha < grid[-1].alpha <= 1
    assert grid[-1].alpha == float(scheduler.final_alpha_cumprod)


def parts_without_weights(folder: Path) -> dict[str, object]:
    """Scheduler for real; of the others their configuration only, which is all that a grid needs."""
    with torch.device("meta"):
        vae = AutoencoderKL.from_config(AutoencoderKL.load_config(folder, subfolder="vae"))
        unet = UNet2DModel.from_config(UNet2DModel.load_config(folder, subfolder="unet"))
    return {"vae": vae, "unet": unet, "scheduler": DDIMScheduler.from_pretrained(folder, subfolder="scheduler")}


@pytest.mark.parametrize("steps", [0, -1, 1000, 1001])
def test_numbers_of_steps_without_a_grid_are_refused(steps: int, tiny_model: LatentModel) -> None:
    # At 1000 steps the offset of 1 would lead to index 1000, which the schedule does not have.
    with pytest.raises(UsageError, match="choose 1 to 999"):
        tiny_model.timesteps(steps)


def test_asking_for_a_grid_changes_no_other_grid(tiny_model: LatentModel) -> None:
    before = tiny_model.timesteps(10)
    tiny_model.timesteps(25)
    assert tiny_model.timesteps(10) == before


# --- the network ------------------------------------------------------------------------------------------------------


def test_estimates_add_up_to_the_point_they_were_made_at(tiny_model: LatentModel) -> None:
    z = noise(tiny_model)
    for at in tiny_model.timesteps(5):
        latent, eps = tiny_model.denoise(z, at, ["dawn", None])
        torch.testing.assert_close(at.alpha**0.5 * latent + (1 - at.alpha) ** 0.5 * eps, z, rtol=0, atol=1e-5)


def test_velocity_and_noise_predictions_are_two_readings_of_one_output(tiny_folder: Path) -> None:
    loaded = parts(tiny_folder)
    other = copy.deepcopy(loaded["scheduler"])
    other.register_to_config(prediction_type="epsilon")  # type: ignore[attr-defined]
    velocity = ClassConditionalModel("v", **loaded, classes=("a", "b", "c"))  # type: ignore[arg-type]
    epsilon = ClassConditionalModel("e", **{**loaded, "scheduler": other}, classes=("a", "b", "c"))  # type: ignore[arg-type]
    z, at = noise(velocity), velocity.timesteps(3)[1]
    latent, eps = velocity.denoise(z, at, ["a", None])
    output = epsilon.denoise(z, at, ["a", None])[1]
    signal, sigma = at.alpha**0.5, (1 - at.alpha) ** 0.5
    torch.testing.assert_close(signal * eps - sigma * latent, output, rtol=0, atol=1e-5)
    torch.testing.assert_close(signal * epsilon.denoise(z, at, ["a", None])[0] + sigma * output, z, rtol=0, atol=1e-5)


def test_guidance_extrapolates_from_no_condition_through_the_condition(tiny_model: LatentModel) -> None:
    z, at = noise(tiny_model), tiny_model.timesteps(4)[1]
    unconditional, conditional = (tiny_model.denoise(z, at, [c] * 2)[1] for c in (None, "noon"))
    assert float((conditional - unconditional).abs().max()) > 1e-3
    for guidance in (0.0, 1.0, 2.0, 5.5):
        guided = tiny_model.denoise(z, at, ["noon"] * 2, guidance)[1]
        torch.testing.assert_close(
            guided, unconditional + guidance * (conditional - unconditional), rtol=1e-4, atol=1e-4
        )
    assert torch.equal(tiny_model.denoise(z, at, ["noon"] * 2, 1.0)[1], conditional)
    torch.testing.assert_close(tiny_model.denoise(z, at, [None] * 2, 5.5)[1], unconditional, rtol=1e-4, atol=1e-4)


def test_guidance_one_asks_the_network_once(tiny_folder: Path) -> None:
    loaded = parts(tiny_folder)
    calls: list[torch.Tensor] = []
    loaded["unet"].register_forward_pre_hook(  # type: ignore[attr-defined]
        lambda module, args, kwargs: calls.append(kwargs["class_labels"]), with_kwargs=True
    )
    model = ClassConditionalModel("tiny", **loaded, classes=("a", "b", "c"))  # type: ignore[arg-type]
    model.denoise(noise(model), model.timesteps(1)[0], ["b", None])
    assert [labels.tolist() for labels in calls] == [[1, 3]]
    model.denoise(noise(model), model.timesteps(1)[0], ["b", None], 2.0)
    assert [labels.tolist() for labels in calls[1:]] == [[1, 3], [3, 3]]


def test_an_unknown_class_is_refused_with_the_known_ones(tiny_model: LatentModel) -> None:
    with pytest.raises(UsageError, match="no class 'midnight': choose one of dawn, noon, dusk"):
        tiny_model.denoise(noise(tiny_model), tiny_model.timesteps(1)[0], ["dawn", "midnight"])
