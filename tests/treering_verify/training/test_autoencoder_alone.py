"""Filters of an autoencoder alone: fitted to photographs, and of use to every model that has the autoencoder."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from helpers.models import pipelines

import treering_verify as tv
from treering_verify.cli.main import main
from treering_verify.detection.screening import SCREENS, Screening
from treering_verify.errors import ModelError, UsageError
from treering_verify.inversion import noise as noise_inversion
from treering_verify.inversion.recovery import recover_noise
from treering_verify.models.inverter import Inverter, carrying
from treering_verify.training.closed_form import fit
from treering_verify.training.examples import FitOptions
from treering_verify.training.fit_report import CLASSICAL, FILTERED

SMALL = FitOptions(images=8, generation_steps=4, kernel=3, stages=1, points=(1, 10))
TABLE = {"clean": ("clean",), "JPEG": ("jpeg:quality=60", "jpeg:quality=40")}


@pytest.fixture(scope="module")
def autoencoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of an `AutoencoderTiny` of five channels with random weights."""
    from diffusers import AutoencoderTiny

    folder = tmp_path_factory.mktemp("autoencoder")
    widths, blocks = (8, 8), (1, 1)
    with pipelines.seeded():
        AutoencoderTiny(
            encoder_block_out_channels=widths,
            decoder_block_out_channels=widths,
            num_encoder_blocks=blocks,
            num_decoder_blocks=blocks,
            latent_channels=5,
        ).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from PIL import Image
    from skimage import data

    folder = tmp_path_factory.mktemp("photographs")
    for name in ("astronaut", "coffee", "chelsea", "rocket", "camera", "brick", "grass", "gravel", "coins"):
        Image.fromarray(getattr(data, name)()).convert("RGB").save(folder / f"{name}.png")
    return folder


def test_an_autoencoder_alone_is_fitted_to_photographs_and_reported(
    autoencoder: Path, photographs: Path, tmp_path: Path
) -> None:
    options = ["--images", "8", "--held-out", "4", "--kernel", "3", "--stages", "1", "--image-size", "32"]
    arguments = ["models", "fit", str(autoencoder), "--output", str(tmp_path / "filters"), *options]
    ran = CliRunner().invoke(main, arguments)
    assert ran.exit_code == 2 and "name a folder of photographs" in ran.stderr
    ran = CliRunner().invoke(main, [*arguments, "--photographs", str(photographs)], catch_exceptions=False)
    assert ran.exit_code == 0 and "log10 p" not in ran.stdout and "nearer than the encoder" in ran.stdout
    inverter = Inverter.load(tmp_path / "filters")
    assert inverter.noise is None and inverter.screen is None
    assert "Warning: 7 different photographs to fit to are few" in ran.stderr
    assert "**Warning**: 7 different photographs" in (tmp_path / "filters" / "README.md").read_text()
    assert inverter.facts["source"] == "crops of 7 photographs that the autoencoder coded"
    found = inverter.facts["report"]["attacks"]["clean"]  # of photographs that it was not fitted to
    assert np.mean(found[FILTERED]["latent_db"]) < np.mean(found[CLASSICAL]["latent_db"])


def test_an_autoencoder_alone_says_what_it_cannot_do(autoencoder: Path, tmp_path: Path) -> None:
    alone = tv.load_model(autoencoder, image_size=(32, 48))
    assert alone.latent_shape == tv.models.latent_shape(tv.models.ModelSource(str(autoencoder), image_size=(32, 48)))
    assert alone.latent_shape == (5, 16, 24) and alone.encode(torch.zeros(1, 3, 32, 48)).shape == (1, 5, 16, 24)
    with pytest.raises(UsageError, match="autoencoder alone"):
        next(iter(tv.generate(alone, None, seeds=[1])))
    with pytest.raises(UsageError, match="autoencoder alone"):
        recover_noise(alone, torch.zeros(1, 3, 32, 48))
    with pytest.raises(UsageError, match="multiple of 2"):
        tv.load_model(autoencoder, image_size=(33, 32))
    with pytest.raises(UsageError, match="leave out the photographs"):
        fit(tv.load_model("landscape-tiny"), photographs=["x.png"])
    shutil.copytree(autoencoder, tmp_path / "other")
    record = json.loads((tmp_path / "other" / "config.json").read_text())
    (tmp_path / "other" / "config.json").write_text(json.dumps({**record, "_class_name": "UNet2DModel"}))
    with pytest.raises(ModelError, match="UNet2DModel alone"):
        tv.load_model(tmp_path / "other")


def test_filters_of_an_autoencoder_serve_every_model_that_has_it(photographs: Path, tmp_path: Path) -> None:
    pipe = pipelines.stable_diffusion("v_prediction")
    pipe.save_pretrained(tmp_path / "model")
    model = tv.load_model(tmp_path / "model")
    alone = tv.load_model(tmp_path / "model" / "vae", image_size=model.image_size)
    options = replace(SMALL, kernel=1)
    found = fit(alone, options=options, attacks=TABLE, photographs=sorted(photographs.iterdir())).save(
        tmp_path / "filters"
    )
    assert not found.differences(model)
    carrier = carrying(model, found)
    image = torch.rand(1, 3, *model.image_size, generator=torch.Generator().manual_seed(0)) * 2 - 1
    noise_hat, solution = recover_noise(carrier, image)
    assert solution.shares is not None  # filtered, then the model's own noise inversion
    torch.testing.assert_close(noise_hat, noise_inversion.invert(model, solution.latent, "naive"))
    assert SCREENS and Screening().of(carrier).method == "latent"
    other = tv.from_pipeline(pipelines.stable_diffusion("epsilon"))  # its latents are scaled otherwise
    assert any("scale" in each for each in found.differences(other))
    with pytest.raises(ModelError, match="scale"):
        found.check(other)
