"""The restoration of over-exposed images; every other image keeps its numbers, bit for bit."""

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats
from treering_detectors import cosine_tests

from treering_verify.attacks import ATTACKS
from treering_verify.detection.screening import Screening
from treering_verify.detection.two_pass import FIRST, FULL, RESTORED, find
from treering_verify.detection.verification import key_test, verify
from treering_verify.inversion.brightness import clipped_values, divided
from treering_verify.inversion.over_exposure import complete
from treering_verify.inversion.recovery import (
    InversionOptions,
    recover_noise,
    recover_with_naive,
    restorer_used,
    restores,
)
from treering_verify.media.conversion import to_tensor
from treering_verify.models import LatentModel, load_model
from treering_verify.models.class_conditional import ClassConditionalModel
from treering_verify.models.networks.correction import Correction
from treering_verify.models.restorer import POINTS, STEPS, Restorer
from treering_verify.models.weights import fingerprint
from treering_verify.watermark.embedding import extract, features
from treering_verify.watermark.keys.key import Key

_KNOWN = 6 * 4**2 + 2
SAMPLES = Path(__file__).parents[3] / "samples"


def sample(name: str, factor: float = 1.0) -> Image.Image:
    image = Image.open(SAMPLES / name).convert("RGB")
    return ATTACKS["brightness"](image, factor=factor) if factor != 1 else image


def loud(inputs: int) -> Correction:
    """Return a network whose output is not zero."""
    network = Correction(inputs, 4, 8, 1)
    torch.nn.init.normal_(network.last.weight, std=0.1)
    return network


@pytest.fixture(scope="module")
def restoring(tiny_model: LatentModel) -> LatentModel:
    """Return the tiny model with a restorer of random weights."""
    model = copy.copy(tiny_model)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        restorer = Restorer.of(loud(_KNOWN), loud(4 * (1 + len(POINTS)) + _KNOWN))
    model.restorer = restorer  # type: ignore[attr-defined]
    return model


@pytest.fixture(scope="module")
def batch() -> torch.Tensor:
    """Return images as they are, darker, steeper, after JPEG, hardly clipped, and, as the last, over-exposed."""
    image = sample("marked-0.png")
    barely = np.asarray(image).copy()
    barely[:16, :16] = 255  # 1.6 % of the area
    jpeg = Image.open(SAMPLES / "marked-0-jpeg25.jpg").convert("RGB")
    others = [sample("marked-0.png", 0.5), ATTACKS["contrast"](image, factor=4.0), jpeg, Image.fromarray(barely)]
    photograph = sample("photograph.png").resize(image.size)
    return torch.cat([to_tensor(one) for one in (image, *others, photograph, sample("marked-0.png", 3.0))])


def test_images_that_are_not_over_exposed_keep_every_number_bit_for_bit(
    tiny_model: LatentModel, restoring: LatentModel, batch: torch.Tensor
) -> None:
    default = InversionOptions()
    before, solution = recover_noise(tiny_model, batch)
    after, changed = recover_noise(restoring, batch)
    assert torch.equal(before[:-1], after[:-1]) and not torch.equal(before[-1], after[-1])
    for one, other in ((solution.latent, changed.latent), (solution.residual, changed.residual)):
        assert torch.equal(one[:-1], other[:-1]) and not torch.equal(one[-1], other[-1])
    assert solution.status[:-1] == changed.status[:-1] and solution.visible == changed.visible
    both = [recover_with_naive(model, batch, default) for model in (tiny_model, restoring)]
    assert torch.equal(both[0][1], both[1][1])  # published statistics are of the image as it is
    assert torch.equal(both[1][0], after)


def test_weights_of_records_stay_the_same_and_settings_name_the_restorer(
    tiny_model: LatentModel, restoring: LatentModel
) -> None:
    assert fingerprint(tiny_model, without=()) == fingerprint(restoring, without=())
    named = [InversionOptions(), InversionOptions(method="encoder"), InversionOptions(noise_method="naive")]
    named.append(InversionOptions(steps=5))
    assert [restores(restoring, one) for one in named] == [True, False, False, False]
    assert len(restorer_used(restoring, named[0])) == 16 and not restorer_used(restoring, named[1])
    assert not restorer_used(tiny_model, named[0])


def test_what_is_not_clipped_stays_and_what_is_never_gets_darker_than_it_can_be(restoring: LatentModel) -> None:
    bright = to_tensor(sample("marked-0.png", 3.0))
    restorer = restoring.restorer  # type: ignore[attr-defined]
    with torch.no_grad():
        completed, _ = complete(restoring, restorer, bright, [3.0])
    clipped = clipped_values(bright)
    least = divided(bright, torch.tensor([3.0]), clipped)
    assert torch.equal(completed[~clipped], least[~clipped])
    assert (completed >= least).all() and completed.max() <= 1


def test_no_gate_stands_before_the_full_pass_of_an_over_exposed_image(
    tiny_model: LatentModel, restoring: LatentModel, batch: torch.Tensor
) -> None:
    key = Key.generate(tiny_model.latent_shape, seed=5)
    screening = Screening(gate=1e-12).of(tiny_model)

    def decided(model: LatentModel) -> list[tuple[str | None, str]]:
        found = find(model, batch, key_test(key, model).evidence, InversionOptions(), screening, 1e-6)
        return [(one.decided_by, one.evidence[0].hypothesis) for one in found]

    assert decided(tiny_model) == [(FIRST, "")] * len(batch)
    *others, last = decided(restoring)
    assert others == [(FIRST, "")] * (len(batch) - 1)
    assert last[0] == FULL and last[1].startswith(f"{RESTORED} 3.0")


def test_p_of_a_restored_image_is_uniform_over_keys(restoring: LatentModel) -> None:
    noise, _ = recover_noise(restoring, to_tensor(sample("unmarked-0.png", 3.0)))
    family = Key.generate(restoring.latent_shape, seed=1).family
    numbers = np.random.default_rng(3).standard_normal((2000, family.degrees_of_freedom))
    (row,) = features(extract(noise, family), family)
    p = [10**e.log10_pvalue for e in cosine_tests(row, numbers)]
    assert stats.kstest(p, "uniform").pvalue > 1e-4


def test_a_restorer_is_read_as_it_was_written(restoring: LatentModel, tmp_path: Path) -> None:
    restorer = restoring.restorer  # type: ignore[attr-defined]
    restorer.save(tmp_path)
    once = Restorer.load(tmp_path)
    once.save(tmp_path)
    assert Restorer.load(tmp_path).digest == once.digest
    assert InversionOptions().steps == STEPS


def test_the_embedded_model_finds_more_of_an_over_exposed_image(sample_key: Key) -> None:
    """Marked images at which the restoration gains much; docs/robustness.md has what it gains on the mean."""
    model = load_model("landscape")
    assert isinstance(model, ClassConditionalModel) and model.restorer is not None
    assert load_model("landscape-tiny").restorer is None  # type: ignore[attr-defined]
    unrestored = copy.copy(model)
    unrestored.restorer = None
    image = sample("marked-1.png", 2.0)
    after, before = (verify(image, sample_key, model=one, search=None) for one in (model, unrestored))
    assert after.verdict == "detected" and after.best.hypothesis.startswith(f"{RESTORED} 2.0")
    assert after.best.log10_pvalue < before.best.log10_pvalue - 5
    assert after.provenance["weights"] == before.provenance["weights"]
    settings = after.provenance["settings"]
    assert settings.pop("restorer") == model.restorer.digest and settings == before.provenance["settings"]
    plain = [verify(sample("marked-1.png"), sample_key, model=one, search=None) for one in (model, unrestored)]
    assert replace(plain[0].best, decoys=None) == replace(plain[1].best, decoys=None)
