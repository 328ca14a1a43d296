"""A network on top of fitted filters is trained within a budget, goes on where it was stopped, and is taken if it pays."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from helpers.models import pipelines

import treering_verify as tv
from treering_verify.cli.main import main
from treering_verify.errors import ModelError, UsageError
from treering_verify.inversion.recovery import recover_noise
from treering_verify.media.conversion import to_tensor
from treering_verify.models import LatentModel
from treering_verify.models.filter_bank import CorrectedBank
from treering_verify.models.inverter import CONFIG, Inverter, carrying, fitted, without_network
from treering_verify.models.networks.correction import Correction
from treering_verify.training import correction, network_examples
from treering_verify.training.closed_form import fit
from treering_verify.training.correction import FOLDER, NAME, NetworkOptions, resumed, train_correction
from treering_verify.training.examples import FitOptions, generated
from treering_verify.training.fit_report import FILTERED, NETWORK, conclusion, held_out_report, ways_of
from treering_verify.training.trainer import LOG

SMALL = FitOptions(images=8, generation_steps=4, kernel=3, stages=1, points=(1,))
TABLE = {"clean": ("clean",)}
QUICK = NetworkOptions(budget=1.0, width=8, blocks=1)


@pytest.fixture(scope="module")
def model() -> LatentModel:
    return tv.from_pipeline(pipelines.stable_diffusion("v_prediction"))


@pytest.fixture(scope="module")
def fitted_folder(model: LatentModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("network")
    fit(model, options=SMALL, attacks=TABLE).save(folder, "card")
    return folder


@pytest.fixture(scope="module")
def trained(model: LatentModel, fitted_folder: Path) -> Inverter:
    with pytest.MonkeyPatch.context() as patch:
        few_attacks(patch)
        return train_correction(
            model, Inverter.load(fitted_folder), fitted_folder, options=QUICK, fit_options=SMALL, attacks=TABLE
        )


def few_attacks(patch: pytest.MonkeyPatch) -> None:
    """Attack each image once, and by the table's attacks alone."""
    for module in (correction, network_examples):
        patch.setattr(module, "OTHERS", ())
    patch.setattr(network_examples, "COPIES", 1)


def with_network(inverter: Inverter, size: float) -> Inverter:
    """Filters with a network on top that adds a constant."""
    bank = inverter.noise
    assert bank is not None
    network = Correction(len(bank.scale), bank.bias.shape[1], width=4, blocks=1).requires_grad_(False)
    network.last.bias.fill_(size)
    return replace(inverter, noise=CorrectedBank(bank.scale, bank.weights, bank.bias, network))


def test_a_network_is_saved_and_read_and_adds_to_the_estimate(
    model: LatentModel, fitted_folder: Path, tmp_path: Path
) -> None:
    plain = Inverter.load(fitted_folder)
    saved = with_network(plain, 0.5).save(tmp_path)
    assert saved.digest not in ("", plain.digest)
    pixels = to_tensor(generated(model, SMALL).images[0])
    before, _ = recover_noise(carrying(model, plain), pixels)
    after, _ = recover_noise(carrying(model, saved), pixels)
    torch.testing.assert_close(after, before + 0.5, rtol=1e-4, atol=1e-3)
    alone, _ = recover_noise(carrying(model, without_network(saved)), pixels)
    torch.testing.assert_close(alone, before)


@pytest.mark.parametrize(
    ("field", "value"), [("inputs", 3), ("width", 5), ("width", 10**9), ("blocks", 10**9), ("blocks", "x")]
)
def test_a_record_that_does_not_fit_its_network_is_refused(
    fitted_folder: Path, tmp_path: Path, field: str, value: object
) -> None:
    with_network(Inverter.load(fitted_folder), 0.5).save(tmp_path)
    record = json.loads((tmp_path / CONFIG).read_text())
    record["network"][field] = value
    (tmp_path / CONFIG).write_text(json.dumps(record))
    with pytest.raises(ModelError, match="damaged"):
        Inverter.load(tmp_path)


def test_training_writes_examples_a_checkpoint_and_a_log(fitted_folder: Path, trained: Inverter) -> None:
    folder = fitted_folder / FOLDER
    assert len(list(folder.glob("examples-*.safetensors"))) >= 2
    assert (folder / f"{NAME}.safetensors").exists() and not list(folder.glob("*.tmp"))
    lines = [json.loads(line) for line in (folder / LOG).read_text().splitlines()]
    facts = trained.facts["network"]
    assert lines[-1]["step"] == lines[-1]["steps"] == facts["steps"] and facts["share"] in (0, *correction.SHARES)


def test_the_same_training_again_is_read_and_not_repeated(
    model: LatentModel, fitted_folder: Path, trained: Inverter, monkeypatch: pytest.MonkeyPatch
) -> None:
    few_attacks(monkeypatch)
    monkeypatch.setattr(correction, "make_examples", lambda *_: iter(()))
    log = (fitted_folder / FOLDER / LOG).read_text()
    start = resumed(fitted_folder, model, SMALL, TABLE)
    assert start is not None
    again = train_correction(model, start, fitted_folder, options=QUICK, fit_options=SMALL, attacks=TABLE)
    assert again.facts["network"] == trained.facts["network"]
    assert (fitted_folder / FOLDER / LOG).read_text() == log
    other = NetworkOptions(budget=1.0, width=9)
    with pytest.raises(UsageError, match="another model, fit or settings"):
        train_correction(model, start, fitted_folder, options=other, fit_options=SMALL, attacks=TABLE)


@pytest.mark.parametrize(("gain", "expected"), [(1.0, 1.0), (0.5, 1.0), (2.0, 0.5), (-1.0, 0.0)])
def test_the_share_is_the_one_that_shows_most_of_the_noise(
    model: LatentModel, gain: float, expected: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The network adds `gain` times what is missing, and every share is tried."""
    noise = torch.randn((4, *model.latent_shape), generator=torch.Generator().manual_seed(0))
    hidden = torch.randn(noise.shape, generator=torch.Generator().manual_seed(1))
    some = {"inputs": hidden, "estimate": 0.3 * noise + hidden, "noise": noise}

    class Adds(torch.nn.Module):
        def forward(self, inputs: torch.Tensor, estimate: torch.Tensor) -> torch.Tensor:
            return -gain * inputs

    share, judged = correction._chosen_share(model, Adds(), {"clean": some})  # type: ignore[arg-type]
    assert share == expected
    assert judged["clean"][1] < judged["clean"][0] if share else judged["clean"][1] > judged["clean"][0]


def test_a_share_that_harms_under_one_attack_is_not_taken(model: LatentModel) -> None:
    noise = torch.randn((4, *model.latent_shape), generator=torch.Generator().manual_seed(0))
    hidden = torch.randn(noise.shape, generator=torch.Generator().manual_seed(1))
    good = {"inputs": hidden, "estimate": 0.3 * noise + hidden, "noise": noise}
    bad = {**good, "estimate": 0.3 * noise}

    class Adds(torch.nn.Module):
        def forward(self, inputs: torch.Tensor, estimate: torch.Tensor) -> torch.Tensor:
            return -inputs

    assert correction._chosen_share(model, Adds(), {"JPEG": good})[0] == 1  # type: ignore[arg-type]
    assert correction._chosen_share(model, Adds(), {"JPEG": good, "clean": bad})[0] == 0  # type: ignore[arg-type]


def test_the_report_compares_with_and_without_the_network(model: LatentModel, fitted_folder: Path) -> None:
    inverter = with_network(Inverter.load(fitted_folder), 0.01)
    report = held_out_report(model, inverter, images=2, attacks=["clean"], options=SMALL)
    assert ways_of(report)[-2:] == (FILTERED, NETWORK)
    assert "against filtered, filters and network find" in conclusion(report)


def test_filters_that_are_all_kept_are_not_fitted_again(tmp_path: Path) -> None:
    shipped = fitted(tv.load_model("landscape-tiny"))
    assert shipped is not None
    with_network(shipped, 0.5).save(tmp_path / "earlier")
    options = ["--keep", str(tmp_path / "earlier"), "--held-out", "0", "--output", str(tmp_path / "new")]
    found = CliRunner().invoke(main, ["models", "fit", "landscape-tiny", *options], catch_exceptions=False)
    assert found.exit_code == 0 and "10 experts fitted to 96 images" in found.output
    kept = Inverter.load(tmp_path / "new")
    assert kept.digest == shipped.digest and not isinstance(kept.noise, CorrectedBank)


def test_the_command_says_what_a_budget_is() -> None:
    found = CliRunner().invoke(
        main, ["models", "fit", "landscape-tiny", "--output", "x", "--networks", "--budget", "20"]
    )
    assert found.exit_code == 2 and "20m or 2h" in found.output
