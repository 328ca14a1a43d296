"""The recipe of the restorer."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from treering_verify.models import LatentModel, load_model
from treering_verify.models.restorer import POINTS, Restorer, latent_inputs, mirrored
from treering_verify.training.landscape import train_restorer


def test_the_recipe_trains_both_networks_and_resumes(
    tiny_model: LatentModel, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train_restorer, "_CHUNK", 4)
    monkeypatch.setattr(train_restorer, "_SIZES", {"latent": (8, 1, 3), "noise": (8, 1, 3)})
    made = train_restorer.make(tiny_model, tmp_path, images=4, scenes=4)
    assert made.latent.config["inputs"] == 98 and made.noise.config["inputs"] == 98 + 4 * (1 + len(POINTS))
    examples = [tmp_path / f"latent-examples-{kind}" / "0.safetensors" for kind in ("images", "scenes")]
    shapes = [load_file(path)["read"].shape for path in examples]
    assert shapes == [(12, 98, 32, 32), (8, 98, 32, 32)]
    assert float(made.latent.last.weight.abs().max()) > 0 and float(made.noise.last.weight.abs().max()) > 0
    again = train_restorer.make(tiny_model, tmp_path, images=4, scenes=4)  # from the checkpoints
    assert again.digest == made.digest
    made.save(tmp_path / "half")
    assert Restorer.load(tmp_path / "half").digest != ""


def test_what_a_network_reads_of_a_mirrored_image(tiny_model: LatentModel) -> None:
    image, clipped = torch.rand(2, 3, 128, 128), torch.rand(2, 3, 128, 128) > 0.5
    factors, others = torch.tensor([1.5, 3.0]), torch.rand(2, 5, 32, 32)
    read = torch.cat([others, latent_inputs(image, clipped, factors, 4)], dim=1)
    anew = torch.cat([others.flip(-1), latent_inputs(image.flip(-1), clipped.flip(-1), factors, 4)], dim=1)
    assert torch.equal(mirrored(read), anew)


def test_a_folder_with_both_networks_is_loaded_with_its_restorer(tiny_folder: Path, tmp_path: Path) -> None:
    import shutil

    from treering_verify.models.networks.correction import Correction

    folder = tmp_path / "model"
    shutil.copytree(tiny_folder, folder)
    Restorer.of(Correction(98, 4, 8, 1), Correction(114, 4, 8, 1)).save(folder)
    assert load_model(folder).restorer is not None  # type: ignore[attr-defined]
    shutil.rmtree(folder / "restorer_noise")
    assert load_model(folder).restorer is None  # type: ignore[attr-defined]
