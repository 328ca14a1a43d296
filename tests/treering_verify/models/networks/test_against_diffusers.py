"""The embedded model's networks are plain torch: they give what diffusers' classes give, to the last bit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch

from treering_verify.models import EMBEDDED, load_model
from treering_verify.models.ddim import DDIMScheduler
from treering_verify.models.networks.autoencoder_kl import AutoencoderKL
from treering_verify.models.networks.config import Config
from treering_verify.models.networks.estimator import Estimator
from treering_verify.models.networks.unet import UNet2DModel
from treering_verify.models.weights import fingerprint

AUTOENCODERS = {
    "one resolution": {"block_out_channels": (8,), "norm_num_groups": 4, "latent_channels": 3},
    "a layer more": {"block_out_channels": (8, 12), "norm_num_groups": 2, "layers_per_block": 2},
    "three resolutions": {"block_out_channels": (8, 8, 16), "norm_num_groups": 1, "latent_channels": 4},
}
UNETS = {
    "no attention but in the middle": (("DownBlock2D",) * 2, ("UpBlock2D",) * 2, (8, 16), 1),
    "attention everywhere": (("AttnDownBlock2D",) * 2, ("AttnUpBlock2D",) * 2, (8, 16), 2),
    "attention where it is coarse": (
        ("DownBlock2D", "DownBlock2D", "AttnDownBlock2D"),
        ("AttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
        (8, 16, 32),
        3,
    ),
}


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def pair(theirs: torch.nn.Module, folder: Path, kind: Any) -> tuple[Any, Any]:
    """Return a network of diffusers with random weights, and ours of the same files."""
    for i, parameter in enumerate(
        theirs.parameters()
    ):  # some of the weights are 0 or 1 at first, and would hide errors
        parameter.data = 0.2 * drawn(*parameter.shape, seed=i)
    theirs.save_pretrained(folder)  # type: ignore[operator]
    layout = torch.channels_last
    return theirs.eval().to(memory_format=layout), kind.load(folder).eval().to(memory_format=layout)


@pytest.mark.parametrize("name", AUTOENCODERS)
def test_an_autoencoder_encodes_and_decodes_alike(name: str, tmp_path: Path) -> None:
    config: dict[str, Any] = AUTOENCODERS[name]
    stages = len(config["block_out_channels"])
    theirs, ours = pair(
        diffusers.AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * stages,
            up_block_types=("UpDecoderBlock2D",) * stages,
            mid_block_add_attention=False,
            **config,
        ),
        tmp_path,
        AutoencoderKL,
    )
    image, latent = drawn(2, 3, 32, 32), drawn(2, ours.config.latent_channels, 8, 8)
    assert torch.equal(ours.encode(image).latent, theirs.encode(image).latent_dist.mode())
    assert torch.equal(ours.decode(latent).sample, theirs.decode(latent).sample)
    assert ours.config.scaling_factor == theirs.config.scaling_factor


@pytest.mark.parametrize("name", UNETS)
@pytest.mark.parametrize("batch", [1, 3, 64])
def test_a_denoiser_predicts_alike(name: str, batch: int, tmp_path: Path) -> None:
    down, up, widths, layers = UNETS[name]
    theirs, ours = pair(
        diffusers.UNet2DModel(
            sample_size=8,
            in_channels=4,
            out_channels=4,
            down_block_types=down,
            up_block_types=up,
            block_out_channels=widths,
            layers_per_block=layers,
            norm_num_groups=4,
            attention_head_dim=4,
            num_class_embeds=3,
        ),
        tmp_path,
        UNet2DModel,
    )
    z, labels = drawn(batch, 4, 8, 8), torch.arange(batch) % 3
    for index in (0, 1, 517, 999):
        with torch.no_grad():
            assert torch.equal(ours(z, index, labels).sample, theirs(z, index, class_labels=labels).sample)


@pytest.mark.parametrize("steps", [1, 2, 7, 10, 50, 333, 999])
def test_the_grid_and_the_schedule_are_alike(steps: int) -> None:
    folder = EMBEDDED["landscape"] / "scheduler"
    theirs, ours = diffusers.DDIMScheduler.from_pretrained(folder), DDIMScheduler.load(folder)
    theirs.set_timesteps(steps)
    ours.set_timesteps(steps)
    assert list(ours.timesteps) == theirs.timesteps.tolist()
    assert torch.equal(ours.alphas_cumprod, theirs.alphas_cumprod)
    assert torch.equal(ours.final_alpha_cumprod, theirs.final_alpha_cumprod)


def test_the_embedded_model_is_the_same_when_diffusers_loads_its_folder() -> None:
    ours: Any = load_model("landscape")
    theirs: Any = load_model(EMBEDDED["landscape"])
    assert type(ours._unet).__module__.startswith("treering_verify")
    assert type(theirs._unet).__module__.startswith("diffusers")
    assert fingerprint(ours) == fingerprint(theirs)
    assert ours.timesteps(10) == theirs.timesteps(10)
    image, z = drawn(2, 3, *ours.image_size).tanh(), drawn(2, *ours.latent_shape)
    with torch.inference_mode():
        assert torch.equal(ours.encode(image), theirs.encode(image))
        assert torch.equal(ours.decode(z), theirs.decode(z))
        for at in ours.timesteps(3)[:-1]:
            answers = [model.denoise(z, at, ["lake", None], 2.0) for model in (ours, theirs)]
            assert torch.equal(answers[0][0], answers[1][0]) and torch.equal(answers[0][1], answers[1][1])


# --- files ------------------------------------------------------------------------------------------------------------


def test_a_network_is_read_as_it_was_written(tmp_path: Path) -> None:
    network = Estimator(4, 3, (0, 3), width=8, blocks=1)
    for i, parameter in enumerate(network.parameters()):
        parameter.data = drawn(*parameter.shape, seed=i)
    network.save(tmp_path)
    state, read = torch.get_rng_state(), Estimator.load(tmp_path)
    assert torch.equal(torch.get_rng_state(), state), "loading draws none of the caller's random numbers"
    assert read.config == network.config and read.points == (0, 3)
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), read.parameters(), strict=True))
    network.half().save(tmp_path)
    assert Estimator.load(tmp_path).mix.weight.dtype == torch.float32


def test_weights_that_do_not_fit_or_are_damaged_are_refused(tmp_path: Path) -> None:
    Estimator(4, 3, (0, 3), width=8, blocks=1).save(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    for change in ({"width": 9}, {"blocks": 2}):
        (tmp_path / "config.json").write_text(json.dumps({**config, **change}))
        with pytest.raises(ValueError, match="do not fit"):
            Estimator.load(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({**config, "depth": 3}))
    with pytest.raises(TypeError, match="depth"):
        Estimator.load(tmp_path)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(ValueError, match="no JSON object"):
        Estimator.load(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config))
    weights = tmp_path / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    with pytest.raises(ValueError, match="damaged"):
        Estimator.load(tmp_path)


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("vae", {"act_fn": "gelu"}),
        ("vae", {"mid_block_add_attention": True}),
        ("vae", {"down_block_types": ["DownEncoderBlock2D"]}),
        ("vae", {"use_quant_conv": False}),
        ("unet", {"resnet_time_scale_shift": "scale_shift"}),
        ("unet", {"down_block_types": ["DownBlock2D", "DownBlock2D", "SkipDownBlock2D"]}),
        ("scheduler", {"timestep_spacing": "trailing"}),
        ("scheduler", {"beta_schedule": "linear"}),
        ("scheduler", {"clip_sample": True}),
    ],
)
def test_what_is_not_implemented_is_refused(part: str, change: dict[str, object]) -> None:
    name = "scheduler_config.json" if part == "scheduler" else "config.json"
    config = Config({**Config.read(EMBEDDED["landscape"] / part / name), **change})
    with pytest.raises(ValueError, match="implemented"):
        if part == "scheduler":
            DDIMScheduler(config)
        else:
            (AutoencoderKL if part == "vae" else UNet2DModel)(**config)
