"""Autoencoders on tiles give what the whole pass gives, but for seams; and torch.compile changes nothing."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from helpers.models import pipelines

import treering_verify as tv
from treering_verify.cli.main import main
from treering_verify.errors import UsageError
from treering_verify.generation.generator import initial_noise
from treering_verify.models import ModelSource, from_pipeline, load_model
from treering_verify.models.autoencoder import decode, encode
from treering_verify.models.tiling import by_tiles


def relative(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((found - wanted).norm() / wanted.norm())


@pytest.mark.parametrize("side", [(32, 32), (33, 70), (8, 100), (16, 17)])
def test_what_looks_at_one_cell_only_is_the_same_on_tiles(side: tuple[int, int]) -> None:
    z = initial_noise((2, *side), [0, 1])
    grown, pixels = (
        partial(torch.nn.functional.interpolate, scale_factor=3),
        z.repeat_interleave(3, 2).repeat_interleave(3, 3),
    )
    seen: list[int] = []

    def grow(part: torch.Tensor) -> torch.Tensor:
        seen.extend(part.shape[-2:])
        return grown(part)

    assert relative(by_tiles(grow, z, 16, grow=3), pixels) < 1e-6
    assert max(seen) <= 16
    assert relative(by_tiles(lambda part: torch.nn.functional.avg_pool2d(part, 3), pixels, 16, shrink=3), z) < 1e-6


def test_a_gradient_reaches_every_cell_through_tiles() -> None:
    z = initial_noise((1, 20, 30), [0]).requires_grad_()
    (gradient,) = torch.autograd.grad(by_tiles(lambda part: 2 * part, z, 8).sum(), z)
    torch.testing.assert_close(gradient, torch.full_like(z, 2))


def test_where_outputs_disagree_they_are_blended_and_not_cut() -> None:
    parts = iter(range(9))
    found = by_tiles(lambda part: torch.full_like(part, next(parts)), torch.zeros(1, 1, 8, 26), 8)[0, 0, 0]
    assert found[0] == 0 and found[-1] == 3
    steps = found.diff()
    assert set(steps.tolist()) == {
        0.0,
        0.25,
        0.5,
    }  # two cells are shared: a quarter and three quarters of the next tile's


def test_a_pipelines_autoencoder_on_tiles_agrees_with_the_whole_and_never_sees_more(tmp_path: Path) -> None:
    pipe = pipelines.stable_diffusion()
    whole, tiled = (from_pipeline(pipe, image_size=(96, 128), tile=tile) for tile in (0, 48))
    seen: list[int] = []
    for half in (tiled._vae.encoder, tiled._vae.decoder):
        half.register_forward_hook(lambda _, given, out: seen.extend((*given[0].shape[-2:], *out.shape[-2:])))
    (made,) = tv.generate(whole, None, seeds=[3], prompts=["a cat"], steps=2)
    latent = made.latent[None]
    image = whole.decode(latent)
    # This autoencoder's kernels reach one cell, and its norms are held by an anchor: what differs is at the tiles' edges.
    assert 0 < relative(tiled.decode(latent), image) < 0.02
    assert 0 < relative(tiled.encode(image)[:, :3], whole.encode(image)[:, :3]) < 0.02
    assert max(seen) == 48
    assert tiled.tile == 48 and whole.tile == 0


def test_an_autoencoder_whose_norms_see_the_tile_alone_agrees_the_better_the_larger_tiles_are() -> None:
    from diffusers import AutoencoderKL

    with pipelines.seeded():
        vae = AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            block_out_channels=(8, 8),
            norm_num_groups=4,
            latent_channels=4,
        ).eval()
    vae.requires_grad_(False)
    image = torch.nn.functional.interpolate(initial_noise((3, 16, 16), [0]), size=128, mode="bicubic").clamp(-1, 1)
    latent = encode(vae, image)
    output = decode(vae, latent)
    for run, given, whole in ((encode, image, latent), (decode, latent, output)):
        errors = [relative(run(vae, given, tile), whole) for tile in (32, 64, 96, 128)]
        assert errors[0] > errors[1] > errors[2] > errors[3] == 0


def test_a_marked_image_is_found_on_tiles_by_the_command_too(tmp_path: Path) -> None:
    pipelines.stable_diffusion().save_pretrained(tmp_path / "model")
    model = load_model(tmp_path / "model", image_size=(96, 96), tile=48)
    key = tv.Key.generate(model.latent_shape, channels=pipelines.KEPT, name="my", seed=1)
    key.save(tmp_path / "my.key.json")
    for name, written in (("marked", key), ("unmarked", None)):
        (made,) = tv.generate(model, written, seeds=[3], prompts=["a cat"], steps=4)
        made.image.save(tmp_path / f"{name}.png")
    asked = ["--key", tmp_path / "my.key.json", "--model", tmp_path / "model", "--image-size", 96, "--search", "off"]
    images = [tmp_path / "marked.png", tmp_path / "unmarked.png"]
    ran = CliRunner().invoke(main, [str(a) for a in ("verify", *images, *asked, "--tile", 48)], catch_exceptions=False)
    assert [line[:13].strip() for line in ran.stdout.splitlines()] == ["detected", "no evidence"], ran.output
    refused = CliRunner().invoke(main, [str(a) for a in ("verify", *images, *asked, "--tile", 47)])
    assert refused.exit_code == 2 and "choose a multiple of 2 from 8" in refused.stderr


def test_small_models_have_no_tiles(tiny_folder: Path) -> None:
    with pytest.raises(UsageError, match="leave out the tile"):
        load_model(tiny_folder, tile=64)


# --- torch.compile ----------------------------------------------------------------------------------------------------


def test_compiled_networks_say_the_same_and_keep_their_fingerprint(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from treering_verify.models.weights import fingerprint

    compiled: list[object] = []

    def traced(function: object, *_: object, **__: object) -> object:
        compiled.append(function)
        return function

    monkeypatch.setattr(torch, "compile", traced)
    plain, fast = load_model(tiny_folder), load_model(tiny_folder, compiled=True)
    assert len(compiled) == 6  # both halves of the autoencoder, the network, the refiner, the estimator and the screen
    assert fingerprint(fast) == fingerprint(plain)
    image = initial_noise((3, 128, 128), [0]).clamp(-1, 1)
    assert torch.equal(fast.encode(image), plain.encode(image))


@pytest.mark.slow
def test_a_compiled_model_agrees_to_rounding(tiny_folder: Path) -> None:
    plain, fast = load_model(tiny_folder), load_model(tiny_folder, compiled=True)
    image = initial_noise((3, 128, 128), [0]).clamp(-1, 1)
    noise = initial_noise(plain.latent_shape, [0, 1])
    with torch.inference_mode():
        assert relative(fast.encode(image), plain.encode(image)) < 1e-4
        assert relative(fast.decode(noise), plain.decode(noise)) < 1e-4
        at, conditions = plain.timesteps(2)[0], ["dawn", None]
        assert relative(fast.denoise(noise, at, conditions)[0], plain.denoise(noise, at, conditions)[0]) < 1e-4


def test_compiling_without_a_compiler_says_so(tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(UsageError, match="needs a C\\+\\+ compiler"):
        load_model(ModelSource(str(tiny_folder), compiled=True))
