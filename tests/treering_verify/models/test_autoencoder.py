"""Every kind of autoencoder, with its own normalisation: marks, generates, inverts and verifies, in float32."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DModel, VQModel
from helpers.models import pipelines
from helpers.models.pipelines import relative

import treering_verify as tv
from treering_verify.errors import ModelError
from treering_verify.generation.generator import initial_noise
from treering_verify.inversion import decoder as decoder_inversion
from treering_verify.inversion.decoder import Problem
from treering_verify.inversion.noise import invert
from treering_verify.models import AUTOENCODERS, LatentModel, from_pipeline, load_model, lowered
from treering_verify.models.autoencoder import decode, encode, latent_channels, own_float32, pixels_per_cell
from treering_verify.models.sampling import denoise
from treering_verify.training.landscape.scenes import render

SCALE = 4.0
STEPS = 4
KINDS: dict[str, Callable[[], Any]] = {
    "AsymmetricAutoencoderKL": lambda: pipelines.asymmetric_autoencoder(SCALE),
    "AutoencoderDC": lambda: pipelines.deep_compression_autoencoder(SCALE),
    "VQModel": lambda: pipelines.quantised_autoencoder(SCALE),
}


@pytest.fixture(params=KINDS)
def vae(request: pytest.FixtureRequest) -> Any:
    made = KINDS[request.param]()
    assert type(made).__name__ == request.param and request.param in AUTOENCODERS
    return made


def folder_of(vae: Any, folder: Path) -> Path:
    """Write a class-conditional model behind an autoencoder, in the layout of diffusers."""
    channels = latent_channels(vae.config)
    with pipelines.seeded():
        unet = UNet2DModel(
            sample_size=pipelines.CELLS,
            in_channels=channels,
            out_channels=channels,
            layers_per_block=1,
            block_out_channels=(8, 8),
            down_block_types=("DownBlock2D",) * 2,
            up_block_types=("UpBlock2D",) * 2,
            norm_num_groups=4,
            add_attention=False,
            num_class_embeds=3,
        )
    index: dict[str, object] = {"_class_name": "TinyPipeline", "classes": ["day", "night"]}
    parts = {"vae": vae, "unet": unet, "scheduler": pipelines.diffusion_scheduler("v_prediction")}
    for name, part in parts.items():
        part.save_pretrained(folder / name)
        index[name] = ["diffusers", type(part).__name__]
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


def check_marks(model: LatentModel) -> None:
    key = tv.Key.generate(model.latent_shape, channels=pipelines.KEPT, seed=1)
    for marked in (True, False):
        (made,) = tv.generate(model, key if marked else None, seeds=[3], steps=STEPS, guidance=1.0)
        verdict = tv.verify(made.image, key, model=model, search=None, alpha=1e-6 if marked else 1e-3)
        assert verdict.verdict == ("detected" if marked else "no evidence")


def test_a_folder_behind_each_kind_marks_inverts_and_verifies(vae: Any, tmp_path: Path) -> None:
    model = load_model(folder_of(vae, tmp_path))
    assert model.latent_shape == (latent_channels(vae.config), pipelines.CELLS, pipelines.CELLS)
    noise, labels = initial_noise(model.latent_shape, [0, 1]), ["day", None]
    with torch.inference_mode():
        latent = denoise(model, noise, steps=STEPS, conditions=labels)
        back = invert(model, latent, "exact", steps=STEPS, conditions=labels)
    assert relative(back, noise) < 1e-2
    check_marks(model)


def test_a_callers_pipeline_with_each_kind_is_served_and_stays_as_it_was(vae: Any) -> None:
    pipe = pipelines.stable_diffusion("v_prediction")
    if latent_channels(vae.config) != 4:
        with pytest.raises(ModelError, match="takes 4 channels"):
            from_pipeline(_with(pipe, vae))
        with pipelines.seeded():
            pipe.register_modules(unet=pipelines.unet(3, cross_attention_dim=32))
    _with(pipe, vae.half())
    weights = {name: (value.data_ptr(), value.dtype) for name, value in pipe.vae.state_dict().items()}
    check_marks(from_pipeline(pipe))
    assert {name: (value.data_ptr(), value.dtype) for name, value in pipe.vae.state_dict().items()} == weights


def test_latents_are_normalised_as_configured(vae: Any) -> None:
    own = own_float32(vae, "cpu")
    image = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        found = vae.encode(image)
        raw = found.latent_dist.mode() if "latent_dist" in found else found[0]
        torch.testing.assert_close(encode(own, image), raw * SCALE)
        torch.testing.assert_close(decode(own, raw * SCALE), vae.decode(raw).sample)


def test_means_and_deviations_of_channels_go_before_the_scale() -> None:
    means, deviations = [0.5, -1.0, 0.25, 0.0], [2.0, 0.5, 1.0, 4.0]
    vae = pipelines.linear_autoencoder(4, SCALE, latents_mean=means, latents_std=deviations)
    image = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        raw = vae.encode(image).latent_dist.mode()
        wanted = (raw - torch.tensor(means).view(1, 4, 1, 1)) / torch.tensor(deviations).view(1, 4, 1, 1) * SCALE
        torch.testing.assert_close(encode(vae, image), wanted)
        torch.testing.assert_close(decode(vae, wanted), vae.decode(raw).sample)


def test_a_deep_compression_autoencoder_shrinks_a_side_by_32() -> None:
    vae = pipelines.deep_compression_autoencoder(SCALE, stages=6)
    assert pixels_per_cell("m", vae.config) == 32
    z = initial_noise((4, 3, 2), [0])
    own = own_float32(vae, "cpu")
    image = decode(own, z)
    assert image.shape == (1, 3, 96, 64)
    assert relative(encode(own, image)[:, :3], z[:, :3]) < 1e-3


def test_a_codebook_is_looked_up_on_the_way_out_and_not_on_the_way_in() -> None:
    vae = pipelines.quantised_autoencoder(SCALE)
    z = initial_noise((3, 8, 8), [0])
    with torch.no_grad():
        entries = vae.quantize(z / SCALE)[0] * SCALE
        assert relative(encode(vae, decode(vae, z)), entries) < 1e-3  # the image shows the entry
        assert relative(entries, z) > 0.05
        off = encode(vae, decode(vae, z) + 0.01)
    assert relative(off, entries) > 1e-2  # a latent between entries stays there


def test_a_callers_autocast_does_not_reach_an_autoencoder_and_lowered_precision_does(vae: Any) -> None:
    own = own_float32(vae, "cpu")
    image = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    wanted = encode(own, image)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(encode(own, image), wanted)
        assert decode(own, wanted).dtype == torch.float32
    with lowered(), torch.autocast("cpu", torch.bfloat16):
        assert relative(encode(own, image).float(), wanted) > 1e-4


def test_numbers_that_are_not_finite_are_refused(vae: Any) -> None:
    with torch.no_grad():
        vae.encoder.conv_out.bias[0] = float("nan")
    with pytest.raises(ModelError, match="not finite"):
        encode(own_float32(vae, "cpu"), torch.zeros(1, 3, 16, 16))


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    tokens = pipelines.quantised_autoencoder(SCALE, side=2)
    tokens.register_to_config(lookup_from_codebook=True)
    with pytest.raises(ModelError, match="indices of a codebook"):
        from_pipeline(_with(pipelines.stable_diffusion(), tokens))
    folder = folder_of(pipelines.deep_compression_autoencoder(SCALE), tmp_path)
    AutoencoderKL(latent_channels=8).save_pretrained(folder / "vae")
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps({**index, "vae": ["diffusers", "AutoencoderKL"]}))
    with pytest.raises(ModelError, match="the autoencoder makes latents of 8"):
        load_model(folder)


@pytest.mark.slow
def test_looking_entries_up_in_the_inversion_costs_little_and_rounding_the_estimate_helps_nothing() -> None:
    """Measure what docs/models.md says of codebooks, on a small `VQModel` trained on crops of the scenes."""
    vae, draw = _trained_codebook(), torch.Generator().manual_seed(2)
    with torch.no_grad():
        latents = vae.encode(render(6, stream="train", index=41_000_000)[0].float() * 2 - 1).latents
    for amount in (0.0, 0.15):  # latents that lie off the entries, as a diffusion model's do
        wanted = latents + amount * latents.std() * torch.randn(latents.shape, generator=draw)
        with torch.no_grad():
            image = ((vae.decode(wanted).sample.clamp(-1, 1) + 1) * 127.5).round() / 127.5 - 1
        errors = {"encoder": relative(vae.encode(image).latents, wanted)}
        for looked_up in (True, False):
            problem = Problem(
                image,
                lambda x: vae.encode(x).latents,
                lambda z, free=not looked_up: vae.decode(z, force_not_quantize=free).sample,
            )
            for method in ("forward-step", "anderson"):
                found = decoder_inversion.invert(problem, method).latent
                errors[f"{method}, looked up: {looked_up}"] = relative(found, wanted)
                assert relative(vae.quantize(found)[0], wanted) > relative(
                    found, wanted
                )  # the nearest entry is a wrong one
        print(amount, errors)  # the figures of docs/models.md
        for method in ("forward-step", "anderson"):
            with_codebook, without = (errors[f"{method}, looked up: {looked_up}"] for looked_up in (True, False))
            assert without - 0.01 < with_codebook < without + 0.02 and with_codebook < 0.95 * errors["encoder"]


def _trained_codebook(steps: int = 400, free: int = 80) -> VQModel:
    """Train without the codebook first, then fill it with latents that come up, and go on with it."""
    with pipelines.seeded():
        vae = VQModel(
            down_block_types=("DownEncoderBlock2D",) * 3,
            up_block_types=("UpDecoderBlock2D",) * 3,
            block_out_channels=(12, 12, 16),
            latent_channels=4,
            norm_num_groups=4,
            num_vq_embeddings=256,
            mid_block_add_attention=False,
            scaling_factor=1.0,
        )
    vae.quantize.legacy = False  # the term that draws entries to latents is the heavy one, as it was meant
    scenes = render(24, stream="train", index=40_000_000)[0].float() * 2 - 1
    draw, optimiser = torch.Generator().manual_seed(1), torch.optim.AdamW(vae.parameters(), 3e-3)
    for step in range(steps):
        places = [torch.randint(0, most, (8,), generator=draw).tolist() for most in (len(scenes), 96, 96)]
        image = torch.stack([scenes[i, :, y : y + 32, x : x + 32] for i, y, x in zip(*places, strict=True)])
        latent = vae.encode(image).latents
        if step == free:
            seen = latent.detach().permute(0, 2, 3, 1).flatten(0, 2)
            vae.quantize.embedding.weight.data = seen[torch.randperm(len(seen), generator=draw)[:256]].clone()
        said = vae.decode(latent, force_not_quantize=step < free)
        loss = (said.sample - image).pow(2).mean() + said.commit_loss.mean()
        optimiser.param_groups[0]["lr"] = 3e-3 * (1 - step / steps)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return vae.eval().requires_grad_(False)


def _with(pipe: Any, vae: Any) -> Any:
    pipe.register_modules(vae=vae)
    return pipe
