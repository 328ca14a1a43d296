"""The recipe of the embedded model: initial weights, training batches, and resumed training."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL

from treering_verify.training.landscape import train
from treering_verify.training.landscape.measure import colour_error
from treering_verify.training.landscape.pyramid_start import begin_as_pyramid
from treering_verify.training.landscape.scenes import render


@pytest.fixture(scope="module")
def scenes() -> torch.Tensor:
    return render(16, stream="test", index=3)[0] * 2 - 1


@cache
def begun(seed: int = 0) -> AutoencoderKL:
    torch.manual_seed(seed)
    model = train.build_autoencoder()
    begin_as_pyramid(model, render(8, stream="train", index=0)[0] * 2 - 1)
    return model


def psnr(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(-10 * torch.log10(((a - b) / 2).pow(2).mean()))


@torch.no_grad()
def test_it_begins_with_the_colours_of_every_image(scenes: torch.Tensor) -> None:
    model = begun()
    output = model.decode(model.encode(scenes).latent_dist.mean).sample
    assert psnr(output, scenes) > 26
    assert colour_error(output, scenes) < 0.2 * colour_error(scenes.flip(0), scenes)
    torch.manual_seed(0)
    fresh = train.build_autoencoder()
    assert psnr(fresh.decode(fresh.encode(scenes).latent_dist.mean).sample, scenes) < 10


@torch.no_grad()
def test_the_beginning_is_nearly_linear_in_the_image(scenes: torch.Tensor) -> None:
    model = begun()

    def encode(image: torch.Tensor) -> torch.Tensor:
        return model.encode(image).latent_dist.mean

    a, b = scenes[:8], scenes[8:]
    mixed, mixture = encode((a + b) / 2), (encode(a) + encode(b)) / 2
    assert float((mixed - mixture).norm() / mixture.norm()) < 0.2


@torch.no_grad()
def test_the_fourth_channel_is_what_makes_a_blocks_upper_half_brighter() -> None:
    model = begun()
    flat = torch.zeros(1, 3, 32, 32)
    image = flat.clone()
    image[:, :, 12:14, 12:16] = 0.4  # upper half of cell (3, 3)
    image[:, :, 14:16, 12:16] = -0.4
    change = (model.encode(image).latent_dist.mean - model.encode(flat).latent_dist.mean)[0]
    assert int(change[3].argmax()) == 3 * 8 + 3
    assert float(change[3].max()) > 5 * float(change[:3].abs().max())
    latent = model.encode(flat).latent_dist.mean
    latent[0, 3, 3, 3] += 3.0
    drawn = (model.decode(latent).sample - model.decode(model.encode(flat).latent_dist.mean).sample)[0].mean(0)
    assert float(drawn[12:14, 12:16].mean()) > 0 > float(drawn[14:16, 12:16].mean())


def test_the_first_steps_see_windows_and_the_last_whole_scenes() -> None:
    def batch(step: int) -> torch.Tensor:
        return train.autoencoder_batch(step, 10, 4, torch.Generator().manual_seed(step))

    assert batch(0).shape == batch(7).shape == (4, 3, 64, 64)
    assert batch(8).shape == (2, 3, 128, 128)
    whole = render(4, stream="train", index=5)[0] * 2 - 1
    window = batch(5)
    found = [
        (top, left)
        for top in range(65)
        for left in range(65)
        if torch.equal(whole[:, :, top, left], window[:, :, 0, 0])
        and torch.equal(whole[:, :, top : top + 64, left : left + 64], window)
    ]
    assert len(found) == 1


def test_training_resumes_and_ends_where_an_unbroken_one_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(train, "_CROP", 16)
    monkeypatch.setattr(
        train, "render", lambda count, *, stream, index: render(count, stream=stream, index=index, size=32)
    )
    run = train.Trainer.run
    unbroken = train.train_autoencoder(tmp_path / "a", steps=5, batch=2)

    def interrupted(self: train.Trainer, loss_of: Callable[[int], dict[str, torch.Tensor]]) -> None:
        def until_the_fourth(step: int) -> dict[str, torch.Tensor]:
            if step == 3:
                raise KeyboardInterrupt
            return loss_of(step)

        run(self, until_the_fourth, checks=2)

    monkeypatch.setattr(train.Trainer, "run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train.train_autoencoder(tmp_path / "b", steps=5, batch=2)
    monkeypatch.setattr(train.Trainer, "run", run)
    resumed = train.train_autoencoder(tmp_path / "b", steps=5, batch=2)
    assert "autoencoder: resuming at step 2" in capsys.readouterr().out
    assert all(torch.equal(a, b) for a, b in zip(unbroken.parameters(), resumed.parameters(), strict=True))
    log = [json.loads(line) for line in (tmp_path / "b" / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in log] == [2, 3, 4, 5] and log[0]["loss"] > 0 and log[0]["processor seconds"] > 0


def test_the_diffusion_parts_second_training_sees_most_of_its_times_where_detail_forms() -> None:
    times = train.detail_times(torch.linspace(0, 1, 10_001)[:-1])
    assert float(times.min()) == 0 and float(times.max()) < 1
    assert bool((times.diff() > 0).all())
    assert float((times < 0.4).float().mean()) == pytest.approx(0.7, abs=1e-3)
    assert float((times < 0.2).float().mean()) == pytest.approx(0.35, abs=1e-3)
    assert float((times > 0.7).float().mean()) == pytest.approx(0.15, abs=1e-3)


def test_the_diffusion_parts_second_training_goes_on_from_the_first_and_resumes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    generator = torch.Generator().manual_seed(0)
    cache = {
        "moments": torch.randn(4, 8, 32, 32, generator=generator).half(),
        "labels": torch.arange(4) % train.NULL_CLASS,
    }
    torch.manual_seed(3)
    first = train.build_unet()
    untouched = [value.clone() for value in first.state_dict().values()]
    unbroken = train.train_detail(first, cache, tmp_path / "a", steps=2, batch=2)
    pairs = list(zip(unbroken.state_dict().values(), untouched, strict=True))
    moved = sum(float((a - b).pow(2).sum()) for a, b in pairs) / sum(float(b.pow(2).sum()) for _, b in pairs)
    assert 0 < moved < 0.01  # begun where the first training ended
    assert all(torch.equal(a, b) for a, b in zip(first.state_dict().values(), untouched, strict=True))
    again = train.train_detail(first, cache, tmp_path / "a", steps=2, batch=2)
    assert "detail: resuming at step 2" in capsys.readouterr().out
    assert all(torch.equal(a, b) for a, b in zip(unbroken.parameters(), again.parameters(), strict=True))
