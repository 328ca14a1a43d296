"""The held-out autoencoder: it fits the model, its halves are unmarked, and its recipe keeps them so."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderTiny
from safetensors.torch import load_file

from treering_verify.detection.verification import verify
from treering_verify.generation.generator import generate
from treering_verify.models import LatentModel, latent_shape, load_model, source
from treering_verify.models.networks.refiner import Refiner
from treering_verify.training.landscape import train_tiny
from treering_verify.training.landscape.scenes import render
from treering_verify.watermark.keys.key import Key


@pytest.fixture(scope="module")
def landscape() -> LatentModel:
    return load_model("landscape")


@pytest.fixture(scope="module")
def held_out() -> LatentModel:
    return load_model("landscape-tiny")


@pytest.fixture(scope="module")
def scenes() -> torch.Tensor:
    return render(8, stream="test", index=7)[0] * 2 - 1


def nmse(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).pow(2).mean() / b.pow(2).mean())


# --- the shipped one --------------------------------------------------------------------------------------------------


def test_only_the_autoencoder_is_another(landscape: LatentModel, held_out: LatentModel, scenes: torch.Tensor) -> None:
    assert held_out.name == "landscape-tiny"
    assert held_out.classes == landscape.classes
    assert held_out.latent_shape == latent_shape("landscape-tiny") == landscape.latent_shape
    assert held_out.image_size == landscape.image_size
    grid = held_out.timesteps(10)
    assert grid == landscape.timesteps(10)
    z = torch.randn(2, *held_out.latent_shape, generator=torch.Generator().manual_seed(0))
    for mine, theirs in zip(
        held_out.denoise(z, grid[3], ["lake", None]), landscape.denoise(z, grid[3], ["lake", None]), strict=True
    ):
        assert torch.equal(mine, theirs)
    assert not torch.allclose(held_out.encode(scenes), landscape.encode(scenes), atol=0.01)
    assert not torch.allclose(held_out.decode(z), landscape.decode(z), atol=0.01)


def test_the_refiner_of_another_decoder_does_not_come_along(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path(shutil.copytree(source.EMBEDDED["landscape"], tmp_path / "landscape"))
    Refiner(4, 4, width=8, blocks=1).save(folder / "refiner")
    monkeypatch.setattr(source, "EMBEDDED", dict.fromkeys(source.EMBEDDED, folder))
    assert load_model("landscape").refine is not None
    assert load_model("landscape-tiny").refine is None


def test_both_autoencoders_speak_of_the_same_latents(
    landscape: LatentModel, held_out: LatentModel, scenes: torch.Tensor
) -> None:
    latents = landscape.encode(scenes)
    assert nmse(held_out.encode(scenes), latents) < 0.1
    for decoded in (held_out.decode(latents), held_out.decode(held_out.encode(scenes))):
        distances = (decoded[:, None] - scenes[None]).pow(2).mean(dim=(2, 3, 4))
        own = distances.diagonal()
        others = distances + torch.diag(torch.full_like(own, torch.inf))
        assert bool((own < 0.25 * others.min(dim=1).values).all())


def test_its_halves_are_farther_from_each_others_inverse_than_those_trained_together(
    landscape: LatentModel, held_out: LatentModel
) -> None:
    latents = torch.stack([made.latent for made in generate(landscape, None, seeds=range(40, 44), steps=10)])
    unmarked, pair = (nmse(model.encode(model.decode(latents)), latents) for model in (held_out, landscape))
    assert pair < unmarked < 1


def test_a_mark_is_found_through_it(held_out: LatentModel) -> None:
    key = Key.generate(held_out.latent_shape, seed=5)
    marked, twin = (next(iter(generate(held_out, k, seeds=[3], steps=10))).image for k in (key, None))
    assert verify(marked, key, model=held_out, alpha=1e-6).verdict == "detected"
    assert verify(twin, key, model=held_out, alpha=1e-6).verdict == "no evidence"


# --- its recipe -------------------------------------------------------------------------------------------------------


def build() -> AutoencoderTiny:
    return train_tiny.build_tiny(encoder_width=8, decoder_width=8)


def train(model: LatentModel, work: Path, *, encoder: int = 30, decoder: int = 30) -> AutoencoderTiny:
    return train_tiny.train(model, work, build(), scenes=16, encoder=encoder, decoder=decoder, batch=2)


def same(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    return all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))


@pytest.fixture(scope="module")
def trained(tiny_model: LatentModel, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, AutoencoderTiny]:
    work = tmp_path_factory.mktemp("work")
    return work, train(tiny_model, work)


def test_both_halves_learn_what_holds_for_other_scenes(
    tiny_model: LatentModel, trained: tuple[Path, AutoencoderTiny], scenes: torch.Tensor
) -> None:
    def errors(tiny: AutoencoderTiny) -> tuple[float, float]:
        latents, scale = tiny_model.encode(scenes), tiny.config.scaling_factor
        with torch.no_grad():
            return nmse(tiny.encoder(scenes) * scale, latents), nmse(tiny.decoder(latents / scale), scenes)

    after, before = errors(trained[1]), errors(build())
    assert after[0] < 0.8 * before[0]
    assert after[1] < 0.8 * before[1]


def test_training_one_half_leaves_the_other_as_it_was(trained: tuple[Path, AutoencoderTiny], tmp_path: Path) -> None:
    pairs = load_file(trained[0] / "pairs-16.safetensors")
    tiny, untouched = build(), build()
    train_tiny.train_encoder(tiny, pairs, tmp_path, steps=2, batch=2)
    assert same(tiny.decoder, untouched.decoder) and not same(tiny.encoder, untouched.encoder)
    after = [p.clone() for p in tiny.encoder.parameters()]
    train_tiny.train_decoder(tiny, pairs, tmp_path, steps=2, batch=2)
    assert all(torch.equal(p, q) for p, q in zip(tiny.encoder.parameters(), after, strict=True))
    assert not same(tiny.decoder, untouched.decoder)


def test_the_decoder_comes_out_the_same_whatever_encoder_was_trained(
    tiny_model: LatentModel, trained: tuple[Path, AutoencoderTiny], tmp_path: Path
) -> None:
    other = train(tiny_model, tmp_path, encoder=3)
    assert same(other.decoder, trained[1].decoder)
    assert not same(other.encoder, trained[1].encoder)


def test_the_recipe_resumes_each_half_from_its_own_checkpoint(
    tiny_model: LatentModel, trained: tuple[Path, AutoencoderTiny], capsys: pytest.CaptureFixture[str]
) -> None:
    work, first = trained
    (work / "tiny-decoder.safetensors").unlink()
    again = train(tiny_model, work)
    assert same(first, again)
    assert "tiny-encoder: resuming at step 30" in capsys.readouterr().out


def test_pairs_are_made_once_and_whole_or_not_at_all(tiny_model: LatentModel, tmp_path: Path) -> None:
    class Failing:
        def encode(self, image: torch.Tensor) -> torch.Tensor:
            raise KeyboardInterrupt

    failing: Any = Failing()
    with pytest.raises(KeyboardInterrupt):
        train_tiny.cache_pairs(failing, tmp_path, 3)
    assert list(tmp_path.iterdir()) == []
    made = train_tiny.cache_pairs(tiny_model, tmp_path, 3)
    read = train_tiny.cache_pairs(failing, tmp_path, 3)  # not asked again
    assert made["images"].shape == (3, 3, 128, 128) and made["images"].dtype == torch.uint8
    assert all(torch.equal(made[name], read[name]) for name in made)
    latents = tiny_model.encode(made["images"].float() / 127.5 - 1)
    torch.testing.assert_close(made["latents"].float(), latents, rtol=1e-3, atol=1e-3)
