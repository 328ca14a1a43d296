"""The recipe of `landscape-sd`: a loadable pipeline after a few steps, resumed after a kill, and used by the main job."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import treering_verify as tv
from treering_verify.training.example_store import read_tensors
from treering_verify.training.landscape_sd import autoencoder, diffusion
from treering_verify.training.landscape_sd.scenes import render

STEPS = "--threads 1 --text-steps 3 --autoencoder-steps 3 --diffusion-steps 3 --decoder-steps 2 --scenes 4 --batch 2"
RECIPE = [sys.executable, "-m", "treering_verify.training.landscape_sd.train", *STEPS.split(), "--work"]


def test_the_loss_falls_where_the_image_is_closer_and_in_the_structure_too() -> None:
    image = render(1, stream="test", index=3, size=64)[0] * 2 - 1
    grain = 0.1 * torch.randn(image.shape, generator=torch.Generator().manual_seed(0))
    losses = [float(autoencoder.perceptual_loss(image + share * grain, image)) for share in (0.0, 0.5, 1.0)]
    assert losses == sorted(losses) and losses[0] == pytest.approx(0, abs=1e-5) and losses[2] > 1.8 * losses[1]
    grey = (image + 1).mean(dim=1, keepdim=True) / 2
    assert float(autoencoder.ssim(grey, grey)) == pytest.approx(1, abs=1e-5)
    flat = grey.mean().expand_as(grey)
    assert float(autoencoder.ssim(flat, grey)) < float(autoencoder.ssim(grey + 0.05, grey)) < 1


def test_crops_come_first_and_whole_scenes_last() -> None:
    def draw(step: int) -> torch.Tensor:
        return autoencoder.draw_images(step, 20, 4, torch.Generator().manual_seed(step))

    assert draw(16).shape == (4, 3, 128, 128) and draw(17).shape == (1, 3, 256, 256)
    assert torch.equal(draw(3), draw(3)) and not torch.equal(draw(3), draw(4))


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("recipe")
    subprocess.run([*RECIPE, str(folder)], check=True, capture_output=True)
    yield folder


@pytest.mark.slow
def test_the_recipe_writes_a_pipeline_that_is_marked_and_verified(work: Path) -> None:
    """A minute and a half of one core, with the next."""
    folder = work / "landscape-sd"
    index = json.loads((folder / "model_index.json").read_text())
    assert index["_class_name"] == "StableDiffusionPipeline" and index["tokenizer"][1].startswith("CLIPTokenizer")
    weights = list(folder.rglob("*.safetensors"))
    assert {path.parent.name for path in weights} == {"text_encoder", "unet", "vae"}
    assert sum(path.stat().st_size for path in weights) < 15e6
    assert not list(folder.rglob("*.bin")) and {"vocab.json", "merges.txt"} <= set(os.listdir(folder / "tokenizer"))
    card = (folder / "README.md").read_text()
    assert card.count("| 3 of 3 |") == 3 and "| 2 of 2 |" in card
    log = [json.loads(line) for line in (work / "log.jsonl").read_text().splitlines()]
    assert {line["part"] for line in log if "held-out loss" in line} == {"text", "autoencoder", "diffusion"}
    model = tv.load_model(folder)
    assert model.image_size == (256, 256) and model.latent_shape == (4, 32, 32)
    key = tv.Key.generate(model.latent_shape, seed=1)
    (made,) = tv.generate(model, key, seeds=[1], steps=2, prompts=["mountains by a lake at night"], guidance=2.0)
    assert made.image.size == (256, 256)
    options = tv.InversionOptions(steps=2)
    assert tv.Detector(key, model=model, inversion=options).verify(made.image).status == "ok"


@pytest.mark.slow
def test_a_killed_recipe_ends_where_an_unbroken_one_does(work: Path, tmp_path: Path) -> None:
    killed = 0
    for awaited in ("text.safetensors", "autoencoder.safetensors", "latents", "diffusion.safetensors"):
        run = subprocess.Popen([*RECIPE, str(tmp_path)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while run.poll() is None and not (tmp_path / awaited).exists():
            time.sleep(0.05)
        run.send_signal(signal.SIGKILL)
        killed += run.wait() == -signal.SIGKILL
    assert killed >= 3
    subprocess.run([*RECIPE, str(tmp_path)], check=True, capture_output=True)
    for name in ("text", "autoencoder", "diffusion", "decoder"):
        (a, facts), (b, others) = (read_tensors(folder / f"{name}.safetensors") for folder in (work, tmp_path))
        assert facts["step"] == others["step"] and all(torch.equal(a[part], b[part]) for part in a), name


def test_the_network_reads_the_prompt_and_learns_the_velocity() -> None:
    torch.manual_seed(0)
    unet = diffusion.build_unet()
    g = torch.Generator().manual_seed(1)
    batch = {
        "noisy": torch.randn(2, 4, 8, 8, generator=g),
        "times": torch.tensor([10, 900]),
        "states": torch.randn(2, 40, 96, generator=g),
        "velocity": torch.randn(2, 4, 8, 8, generator=g),
    }
    torch.nn.init.normal_(unet.conv_out.weight, std=0.1, generator=g)
    loss = diffusion.velocity_loss(unet, batch)["loss"]
    other = diffusion.velocity_loss(unet, {**batch, "states": batch["states"].flip(0)})["loss"]
    assert float(loss.detach()) != float(other.detach())
    loss.backward()  # type: ignore[no-untyped-call]
    layers = [layer for name, layer in unet.named_parameters() if "attn2.to_k" in name]
    assert layers and all(float(layer.grad.abs().sum()) > 0 for layer in layers if layer.grad is not None)
