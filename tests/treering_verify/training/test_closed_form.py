"""A fit finds the filter that made the data, chooses among attacks, and belongs to its model."""

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
from torch.nn import functional

import treering_verify as tv
from treering_verify.cli.main import main
from treering_verify.cli.options.inversion import offered_fit
from treering_verify.detection.evidence import evidence_of
from treering_verify.detection.screening import SCREENS, Screening
from treering_verify.detection.search import noise_map
from treering_verify.detection.verification import verify
from treering_verify.errors import ModelError, UsageError
from treering_verify.inversion import noise as noise_inversion
from treering_verify.inversion.decoder import Problem, invert
from treering_verify.inversion.recovery import problem_of, recover_noise
from treering_verify.media.conversion import to_tensor
from treering_verify.models import LatentModel
from treering_verify.models.inverter import CONFIG, WEIGHTS, Inverter, attach, carrying, fitted
from treering_verify.training.attack_table import EXPERTS, REPORTED, check_table, read_table
from treering_verify.training.closed_form import fit, fit_chooser
from treering_verify.training.decoder_stages import FORWARD, NONE, REGRESSION, chosen, regressed
from treering_verify.training.examples import FitOptions, generated
from treering_verify.training.fit_report import CLASSICAL, FILTERED, conclusion, held_out_report, summary_rows
from treering_verify.training.regression import bank_of, fit_filter

SMALL = FitOptions(images=8, generation_steps=4, kernel=3, stages=2, points=(1, 10))
TABLE = {"clean": ("clean",), "JPEG": ("jpeg:quality=60", "jpeg:quality=40")}


@pytest.fixture(scope="module")
def model() -> LatentModel:
    return tv.from_pipeline(pipelines.stable_diffusion("v_prediction"))


@pytest.fixture(scope="module")
def saved(model: LatentModel, tmp_path_factory: pytest.TempPathFactory) -> tuple[Inverter, Path]:
    folder = tmp_path_factory.mktemp("fit") / "inverter"
    return fit(model, options=SMALL, attacks=TABLE).save(folder, "card"), folder


def gaussian(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


# --- regression -------------------------------------------------------------------------------------------------------


def test_ridge_finds_the_convolution_that_made_the_target() -> None:
    inputs = gaussian(12, 2, 16, 16, seed=0) * torch.tensor([1.0, 40.0])[:, None, None]
    true = gaussian(3, 2, 3, 3, seed=1)
    padded = functional.pad(inputs, (1, 1, 1, 1), mode="replicate")
    target = functional.conv2d(padded, true) + torch.tensor([0.5, -1.0, 2.0])[:, None, None]
    found = fit_filter(inputs, target, 5)
    assert found.side == 3 and found.explained > 1 - 1e-6
    bank = bank_of([found])
    assert bank.weights.shape == (1, 3, 2, 5, 5)
    torch.testing.assert_close(bank(inputs, torch.ones(12, 1)), target, rtol=1e-3, atol=1e-2)


def test_weights_are_drawn_to_the_base_and_not_to_zero() -> None:
    inputs, noise = gaussian(8, 2, 12, 12, seed=2), 3 * gaussian(8, 2, 12, 12, seed=3)
    found = fit_filter(inputs, 0.7 * inputs + noise, 5, base=torch.eye(2))
    centre = torch.zeros(2, 2, 5, 5)
    centre[range(2), range(2), 2, 2] = 0.7
    # A weight is a mean over 1152 cells of noise whose deviation is 3; the largest of 100 lies within four deviations.
    assert float((found.weights / found.scale[None, :, None, None] - centre).abs().max()) < 4 * 3 / 1152**0.5


def test_experts_are_taken_by_share() -> None:
    inputs = gaussian(8, 1, 8, 8, seed=4)
    bank = bank_of([fit_filter(inputs, 2 * inputs, 3), fit_filter(inputs, -6 * inputs + 1, 3)])
    mixed = bank(inputs[:1], torch.tensor([[0.75, 0.25]]))
    torch.testing.assert_close(mixed, 0.75 * 2 * inputs[:1] + 0.25 * (1 - 6 * inputs[:1]), rtol=1e-3, atol=1e-3)


def test_a_harmless_step_is_as_long_as_the_worst_validation_image_allows() -> None:
    inputs = gaussian(16, 1, 16, 16, seed=6)
    signs = torch.ones(16, 1, 1, 1)
    assert fit_filter(inputs, signs * inputs, 1, harmless=True).share == 1
    # Seven images of eight want the step, the validation image 7 the opposite: no share of it does that image no harm.
    signs[7] = -1
    found = fit_filter(inputs, signs * inputs, 1, harmless=True)
    assert found.share == 0 and not found.weights.any() and not found.bias.any() and found.explained == 0
    assert fit_filter(inputs, signs * inputs, 1).weights.any()
    # An image that wants two fifths of it ends above its start after all of it, and below after half.
    signs[7] = 0.4
    assert fit_filter(inputs, signs * inputs, 1, harmless=True).share == 0.5


def test_the_chooser_tells_groups_apart_and_its_shares_sum_to_one() -> None:
    groups = [gaussian(40, 5, seed=k) + 4 * k for k in range(3)]
    chooser = fit_chooser(groups)
    for k, group in enumerate(groups):
        shares = chooser(group)
        torch.testing.assert_close(shares.sum(dim=1), torch.ones(40))
        assert float((shares.argmax(dim=1) == k).float().mean()) > 0.95
    two = fit_chooser(groups[:2])
    assert float((two(groups[1])[:, 1] > 0.5).float().mean()) > 0.95
    assert torch.equal(fit_chooser(groups[:1])(groups[2]), torch.ones(40, 1))
    assert bool(chooser(torch.full((1, 5), 1e9)).isfinite().all())


# --- the fit of a model -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [
        lambda: pipelines.stable_diffusion("epsilon"),
        lambda: pipelines.stable_diffusion("v_prediction"),
        pipelines.stable_diffusion_3,
        pipelines.dit,
    ],
    ids=["UNet, epsilon", "UNet, v", "transformer, flow, 16 channels", "transformer, classes"],
)
def test_every_kind_of_model_is_fitted_and_found_more_surely(make: object) -> None:
    model = tv.from_pipeline(make())  # type: ignore[operator]
    inverter = fit(model, options=SMALL, attacks={"clean": ("clean",)})
    keys = [tv.Key.generate(model.latent_shape, seed=i) for i in range(4)]
    made = list(tv.generate(model, keys, seeds=range(4), steps=4))
    pixels = torch.cat([to_tensor(one.image) for one in made])

    def log10(carrier: LatentModel, inversion: tv.InversionOptions) -> float:
        noise_hat, _ = recover_noise(carrier, pixels, inversion)
        found = [evidence_of(noise_hat[i : i + 1], [key])[0][0].log10_pvalue for i, key in enumerate(keys)]
        return float(np.mean(found))

    classical = log10(model, tv.InversionOptions(method="encoder", noise_method="naive"))
    assert log10(carrying(model, inverter), tv.InversionOptions()) < classical


def test_the_report_is_paired_and_on_other_images(model: LatentModel, saved: tuple[Inverter, Path]) -> None:
    report = held_out_report(model, saved[0], images=4, attacks=("clean", "jpeg:quality=50"), options=SMALL)
    rows = summary_rows(report)
    assert [row["attack"] for row in rows] == ["clean", "jpeg:quality=50"]
    clean = report["attacks"]["clean"]
    assert len(set(clean[CLASSICAL]["log10_pvalue"])) == 4
    assert rows[0][f"median {FILTERED}"] == pytest.approx(np.median(clean[FILTERED]["log10_pvalue"]))
    low, high = rows[0][f"interval over {CLASSICAL}"]
    assert low <= rows[0][f"gain over {CLASSICAL}"] <= high < 0
    both = [found[FILTERED]["log10_pvalue"] for found in report["attacks"].values()]
    assert f"found at 1e-6 by {FILTERED}: {sum(p <= -6 for some in both for p in some)}/8" in conclusion(report)
    assert fitted(model) is None


def test_stages_are_chosen_by_the_evidence_that_they_leave(model: LatentModel) -> None:
    examples = generated(model, SMALL)
    latents, noise = examples.latents, examples.noise
    assert noise is not None
    error, other = (0.5 * gaussian(*latents.shape, seed=seed) for seed in (7, 8))

    def choose(start: torch.Tensor, first: torch.Tensor, target: torch.Tensor) -> tuple[str, torch.Tensor]:
        own = regressed(start, first, target, 2, 1, lambda points, _: torch.zeros_like(points))
        stages, log10 = chosen(model, own, latents, noise, SMALL.steps, lambda points, _: torch.zeros_like(points))
        assert stages.kind == min(log10, key=lambda kind: log10[kind]) and len(stages.filters) == 2
        return stages.kind, stages.points[-1]

    # Half the residual is missing, and the regression knows it: a forward step goes twice as far.
    kind, reached = choose(latents + error, 2 * error, latents)
    assert kind == REGRESSION
    torch.testing.assert_close(reached, latents, atol=0.05, rtol=0)
    # The whole residual is missing, and the regression was drawn to something else.
    kind, reached = choose(latents + error, error, other)
    assert kind == FORWARD
    torch.testing.assert_close(reached, latents)
    # Nothing is missing.
    kind, reached = choose(latents, error, other)
    assert kind == NONE and torch.equal(reached, latents)


def test_experts_that_are_not_named_are_kept(model: LatentModel, saved: tuple[Inverter, Path]) -> None:
    keep = saved[0]
    found = fit(model, options=SMALL, attacks={"JPEG": TABLE["JPEG"]}, keep=keep)
    assert found.experts == keep.experts and found.facts["fitted again"] == ["JPEG"]
    start = gaussian(2, *model.latent_shape, seed=9)
    inputs = torch.cat([start, 0 * start], dim=1)  # this autoencoder leaves no residual
    for expert in range(2):  # the images are the same, so the expert that was fitted again is as before, too
        shares = torch.eye(2)[[expert, expert]]
        for old, new in ((keep.stages[0], found.stages[0]), (keep.screen, found.screen)):
            assert old is not None and new is not None
            torch.testing.assert_close(new(inputs, shares), old(inputs, shares), rtol=0.01, atol=0.01)
    torch.testing.assert_close(found.bounds, keep.bounds, rtol=1e-3, atol=0)
    for attacks, options in (
        ({"JPEG": ("jpeg:quality=5",)}, SMALL),
        ({"blur": ("blur:radius=1",)}, SMALL),
        ({"JPEG": TABLE["JPEG"]}, replace(SMALL, seed=1)),
    ):
        with pytest.raises(UsageError, match="to keep"):
            fit(model, options=options, attacks=attacks, keep=keep)


# --- the folder -------------------------------------------------------------------------------------------------------


def test_a_folder_gives_back_the_filters_in_half_precision(saved: tuple[Inverter, Path], model: LatentModel) -> None:
    inverter, folder = saved
    again = Inverter.load(folder)
    assert again.digest == inverter.digest and again.experts == tuple(TABLE) and again.facts["images"] == 8
    start = gaussian(2, *model.latent_shape, seed=5)
    shares = torch.tensor([[0.5, 0.5], [1.0, 0.0]])
    inputs = torch.cat([start, start], dim=1)
    torch.testing.assert_close(again.stages[0](inputs, shares), inverter.stages[0](inputs, shares))
    assert {path.name for path in folder.iterdir()} == {CONFIG, WEIGHTS, "README.md"}


def test_filters_are_refused_on_another_model(saved: tuple[Inverter, Path]) -> None:
    other = tv.from_pipeline(pipelines.stable_diffusion("epsilon"))
    with pytest.raises(ModelError, match="fitted to sampler"):
        attach(other, saved[1])
    assert fitted(other) is None
    larger = tv.from_pipeline(pipelines.stable_diffusion("v_prediction"), image_size=(64, 64))
    with pytest.raises(ModelError, match="image_size"):
        attach(larger, saved[1])


@pytest.mark.parametrize("what", ["no folder", "cut weights", "another shape", "not a number", "another version"])
def test_damaged_folders_are_refused_with_what_to_do(what: str, saved: tuple[Inverter, Path], tmp_path: Path) -> None:
    folder = tmp_path / "inverter"
    if what != "no folder":
        shutil.copytree(saved[1], folder)
        record = json.loads((folder / CONFIG).read_text())
        if what == "cut weights":
            (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-5])
        elif what == "another shape":
            (folder / CONFIG).write_text(json.dumps({**record, "experts": ["clean"]}))
        elif what == "another version":
            (folder / CONFIG).write_text(json.dumps({**record, "version": 99}))
        else:
            bad = replace(saved[0].chooser, bias=torch.tensor([float("nan"), 0.0]))
            with pytest.raises(ModelError):
                replace(saved[0], chooser=bad).save(folder)
            return
    with pytest.raises(ModelError, match="fit"):
        Inverter.load(folder)


# --- how it is used ---------------------------------------------------------------------------------------------------


def test_a_model_that_carries_filters_is_inverted_by_them(model: LatentModel, saved: tuple[Inverter, Path]) -> None:
    carrier = carrying(model, saved[0])
    image = next(iter(tv.generate(model, None, seeds=[9], steps=4))).image
    key = tv.Key.generate(model.latent_shape, seed=1)
    plain, found = (verify(image, key, model=each, search=None) for each in (model, carrier))
    assert found.inverter == found.record()["inverter"] == saved[0].digest
    assert plain.inverter == "" and "inverter" not in plain.record()
    solution = invert(problem_of(carrier, to_tensor(image)))
    assert solution.shares is not None and solution.status == ("refined",) and int(solution.iterations[0]) == 2
    noise_hat, _ = recover_noise(carrier, to_tensor(image))
    same = noise_inversion.invert(carrier, solution.latent, "filtered", shares=solution.shares)
    torch.testing.assert_close(noise_hat, same)
    other = verify(image, key, model=carrier, inversion=tv.InversionOptions(method="encoder"), search=None)
    assert other.inverter == ""


def test_the_screening_pass_reads_filters_and_maps_pages_of_any_size(
    model: LatentModel, saved: tuple[Inverter, Path]
) -> None:
    carrier = carrying(model, saved[0])
    assert Screening().of(carrier).method == "filter"
    page = torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    noise_hat, solution = SCREENS["filter"](carrier, page)
    assert noise_hat.shape == (1, model.latent_shape[0], 32, 48)
    assert solution.shares is not None
    # The search's map of pages is the same, where the model has no screen of its own.
    with torch.inference_mode():
        torch.testing.assert_close(noise_map.estimate(carrier, page, torch.ones_like(page[:, :1])), noise_hat)
        torch.testing.assert_close(noise_map.estimate(model, page, torch.ones_like(page[:, :1])), model.encode(page))
    with pytest.raises(UsageError, match="no fitted filters"):
        Screening("filter").of(model)


def test_what_does_not_fit_is_said(model: LatentModel, saved: tuple[Inverter, Path]) -> None:
    image = torch.zeros(1, 3, *model.image_size)
    with pytest.raises(UsageError, match="models fit"):
        recover_noise(model, image, tv.InversionOptions(method="filtered"))
    with pytest.raises(UsageError, match="models fit"):
        recover_noise(model, image, tv.InversionOptions(noise_method="filtered"))
    carrier = carrying(model, saved[0])
    with pytest.raises(UsageError, match="choose both"):
        recover_noise(carrier, image, tv.InversionOptions(method="encoder", noise_method="filtered"))
    with pytest.raises(UsageError, match="10 steps, not of 7"):
        recover_noise(carrier, image, tv.InversionOptions(noise_method="filtered", steps=7))


def test_p_values_of_filtered_images_are_uniform(model: LatentModel, saved: tuple[Inverter, Path]) -> None:
    from scipy.stats import kstest
    from skimage import data

    carrier, side = carrying(model, saved[0]), model.image_size[0]
    own = [to_tensor(one.image) for one in tv.generate(model, None, seeds=range(40, 48), steps=4)]
    photographs = [
        torch.from_numpy(photo[top : top + side, left : left + side].copy()).movedim(-1, 0)[None] / 127.5 - 1
        for photo in (data.astronaut(), data.coffee(), data.chelsea())
        for top, left in ((40, 60), (120, 180), (200, 30), (90, 250))
    ]
    noise_hat, _ = recover_noise(carrier, torch.cat([*own, *photographs]))
    keys = [tv.Key.generate(model.latent_shape, seed=1000 + i) for i in range(100)]
    # Keys are independent of each other, so the p-values of one image are a sample; of all images, 2000 of them.
    pvalues = np.array([[10**e.log10_pvalue for row in evidence_of(noise_hat, [key]) for e in row] for key in keys])
    for image in pvalues.T:
        assert kstest(image, "uniform").pvalue > 1e-4
    assert abs((pvalues <= 0.1).mean() - 0.1) < 4 * (0.09 / pvalues.size) ** 0.5


# --- tables and the command -------------------------------------------------------------------------------------------


def test_the_tables_hold_attacks_that_exist(tmp_path: Path) -> None:
    check_table(EXPERTS)
    assert not set(REPORTED[1:]) & {text for some in EXPERTS.values() for text in some} - {"jpeg:quality=25"}
    path = tmp_path / "attacks.json"
    path.write_text('{"JPEG": ["jpeg:quality=30"], "none": ["clean"]}')
    assert read_table(path) == {"JPEG": ("jpeg:quality=30",), "none": ("clean",)}
    for text in ('{"JPEG": []}', "[1]", '{"JPEG": ["jpg"]}', "{", '{"x": ["regenerate_vae"]}'):
        path.write_text(text)
        with pytest.raises(UsageError):
            read_table(path)


def test_a_residual_may_grow_as_far_as_the_fit_found_usual(model: LatentModel, saved: tuple[Inverter, Path]) -> None:
    inverter = saved[0]
    assert inverter.bounds.shape == (len(TABLE),) and bool((inverter.bounds >= 4).all())
    start = gaussian(1, *model.latent_shape, seed=11)

    def steps(bound: float, factor: float) -> int:
        """Steps taken where one step multiplies the residual."""
        bank = inverter.stages[0]
        push = replace(bank, weights=0 * bank.weights, bias=torch.full_like(bank.bias, 1.0))
        filters = replace(inverter, stages=(push,), bounds=torch.full((len(TABLE),), float(bound)))

        def encode(image: torch.Tensor) -> torch.Tensor:
            moved = len(calls) == 2  # E(x), then E(D(z_0)) and E(D(z_1))
            calls.append(1)
            return start * (1.0 if not calls[1:] else 1 + 0.2 * (factor if moved else 1.0))

        calls: list[int] = []
        image = torch.zeros(1, 3, *model.image_size)
        problem = Problem(image, encode, lambda latent: image.expand(len(latent), -1, -1, -1), filters=filters)
        return int(invert(problem, "filtered").iterations[0])

    assert [steps(4, factor) for factor in (3.9, 4.1)] == [1, 0]
    assert [steps(10, factor) for factor in (4.1, 9.9, 10.1)] == [1, 1, 0]


def test_options_out_of_range_are_refused() -> None:
    for changes in ({"images": 7}, {"kernel": 4}, {"stages": 0}, {"points": (3, 1)}, {"points": (11,)}, {"points": ()}):
        with pytest.raises(UsageError):
            FitOptions(**changes)  # type: ignore[arg-type]


def test_the_command_fits_reports_and_is_found_beside_the_model(tmp_path: Path) -> None:
    folder, attacks = tmp_path / "model", tmp_path / "attacks.json"
    pipelines.stable_diffusion("v_prediction").save_pretrained(folder)
    attacks.write_text('{"clean": ["clean"]}')
    options = ["--images", "8", "--held-out", "2", "--generation-steps", "2", "--kernel", "1", "--stages", "1"]
    arguments = [
        "models",
        "fit",
        str(folder),
        "--output",
        str(folder / "inverter"),
        "--attacks",
        str(attacks),
        *options,
    ]
    ran = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert ran.exit_code == 0 and "| clean |" in ran.stdout and "filters find more" in ran.stdout
    loaded = tv.load_model(folder)
    inverter = fitted(loaded)
    assert inverter is not None and inverter.digest in ran.stderr
    assert len(inverter.facts["report"]["attacks"]["clean"][FILTERED]["log10_pvalue"]) == 2
    assert "| clean |" in (folder / "inverter" / "README.md").read_text()
    # At another size they are not the model's, and are left aside, or refused where they are named.
    assert fitted(tv.load_model(folder, image_size=(64, 64))) is None
    with pytest.raises(ModelError, match="image_size"):
        tv.load_model(folder, image_size=(64, 64), inverter=folder / "inverter")


def test_a_fit_is_offered_where_nothing_is_fitted(model: LatentModel, saved: tuple[Inverter, Path]) -> None:
    assert "treering models fit" in offered_fit(model)
    assert offered_fit(carrying(model, saved[0])) == ""
    assert offered_fit(tv.load_model("landscape")) == ""
