"""Averaging and imprinting, on a model without networks whose noise, latent and image are the same to a factor."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from helpers.models.white_model import WhiteModel
from PIL import Image

from treering_verify.attacks.averaging import add_trace, estimate_trace, subtract_trace
from treering_verify.attacks.imprinting import BAND, average_carrier, erase, estimate_noise, imprint, reprompt
from treering_verify.attacks.regeneration import fresh_noise
from treering_verify.detection.evidence import evidence_of
from treering_verify.errors import UsageError
from treering_verify.media.conversion import to_pil, to_tensor
from treering_verify.models.sampling import denoise
from treering_verify.watermark import spectrum
from treering_verify.watermark.embedding import embed
from treering_verify.watermark.keys.key import Key

MODEL = WhiteModel()
KEY = Key.generate(MODEL.latent_shape, seed=3, inner_radius=4, outer_radius=9)


def generated_images(count: int, first: int, key: Key | None) -> torch.Tensor:
    noise = fresh_noise(MODEL.latent_shape, range(first, first + count))
    noise = embed(noise, key) if key else noise
    x = MODEL.decode(denoise(MODEL, noise, steps=20, conditions=[None] * count)).clamp(-1, 1)
    return torch.cat([to_tensor(to_pil(one)) for one in x])


def evidence(images: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Cosine with the key and log10 p of each image."""
    found = [of_one[0] for of_one in evidence_of(estimate_noise(MODEL, images), [KEY])]
    return np.array([e.statistic for e in found]), np.array([e.log10_pvalue for e in found])


def as_images(x: torch.Tensor) -> list[Image.Image]:
    return [to_pil(one) for one in x]


def as_tensor(images: Sequence[Image.Image]) -> torch.Tensor:
    return torch.cat([to_tensor(image) for image in images])


def cosine(carrier: torch.Tensor) -> float:
    return float(evidence_of(carrier[None], [KEY])[0][0].statistic)


def test_the_model_of_these_tests_shows_marked_from_unmarked() -> None:
    assert evidence(generated_images(4, 0, KEY))[1].max() < -50
    assert evidence(generated_images(4, 0, None))[1].min() > -3


def test_averaging_in_the_noise_recovers_the_planted_spectrum_better_the_more_images_there_are() -> None:
    marked, unmarked = generated_images(32, 100, KEY), generated_images(32, 200, None)
    few, many = average_carrier(MODEL, marked[:2]), average_carrier(MODEL, marked, unmarked, batch_size=10)
    assert cosine(many) > 0.98
    # Off the key the mean loses all but 1 / N of its power: a carrier of one shows nothing, one of many shows the annulus.
    bins = spectrum.half_plane(32, 32)
    power = spectrum.read(many[None], bins)[0].abs().square().mean(0).numpy()
    keyed = (bins.ring >= KEY.inner_radius) & (bins.ring <= KEY.outer_radius)
    assert power[keyed].mean() > 8 * power[~keyed].mean()
    outside = [
        float(spectrum.read(carrier[None], bins.select(~keyed)).abs().square().mean()) for carrier in (few, many)
    ]
    assert outside[1] < outside[0] / 4


def test_averaging_images_forges_and_removes_without_a_model() -> None:
    marked, unmarked = as_images(generated_images(32, 300, KEY)), as_images(generated_images(32, 400, None))
    trace = estimate_trace(iter(marked), iter(unmarked))
    assert trace.shape == (32, 32, 3)
    foreign, targets = as_images(generated_images(4, 500, None)), as_images(generated_images(4, 600, KEY))
    assert evidence(as_tensor([add_trace(f, trace) for f in foreign]))[1].max() < -20
    before, after = evidence(as_tensor(targets))[0], evidence(as_tensor([subtract_trace(t, trace) for t in targets]))[0]
    assert np.abs(after).max() < 0.5 * before.min()
    assert add_trace(foreign[0], trace, 0.0).tobytes() == foreign[0].tobytes()
    noise_only = estimate_trace(as_images(generated_images(32, 700, None)), unmarked)
    assert evidence(as_tensor([add_trace(f, noise_only) for f in foreign]))[1].min() > -4


def test_a_trace_is_exact_for_twins_and_is_clipped_never_wrapped() -> None:
    flat = [Image.new("RGB", (8, 8), (grey, grey, grey)) for grey in (50, 100, 200)]
    pattern = np.random.default_rng(0).integers(-40, 40, (8, 8, 3))
    marked = [Image.fromarray((np.asarray(f).astype(int) + pattern).astype(np.uint8)) for f in flat]
    trace = estimate_trace(marked, flat)
    np.testing.assert_allclose(trace, pattern)
    assert subtract_trace(marked[1], trace).tobytes() == flat[1].tobytes()
    white = np.asarray(add_trace(Image.new("RGB", (8, 8), "white"), trace)).astype(int)
    np.testing.assert_array_equal(white, np.minimum(255 + pattern, 255))


def test_one_marked_image_imprints_its_key_on_foreign_images_and_keeps_their_composition() -> None:
    carrier = estimate_noise(MODEL, generated_images(1, 800, KEY))[0]
    foreign = generated_images(3, 900, None)
    forged = imprint(foreign, MODEL, carrier)
    assert evidence(forged)[1].max() < -50
    bins = spectrum.half_plane(32, 32)
    inside = (bins.ring >= BAND[0]) & (bins.ring <= BAND[1])
    own, new = (spectrum.read(x, bins.select(~inside)) for x in (foreign, forged))
    torch.testing.assert_close(new, own, atol=0.02, rtol=0.0)
    redrawn = imprint(foreign, MODEL, carrier, redraw=True)
    assert evidence(redrawn)[1].max() < -50
    weights = [evidence(imprint(foreign, MODEL, carrier, weight=w))[0].mean() for w in (0.0, 0.3, 0.6, 1.0)]
    assert weights == sorted(weights)
    torch.testing.assert_close(imprint(foreign, MODEL, carrier, weight=0.0), foreign, atol=1e-3, rtol=0.0)


def test_an_average_imprints_too_and_an_unmarked_carrier_imprints_nothing() -> None:
    foreign = generated_images(3, 900, None)
    average = average_carrier(MODEL, generated_images(16, 1000, KEY))
    assert evidence(imprint(foreign, MODEL, average, weight=0.7))[1].max() < -20
    empty = estimate_noise(MODEL, generated_images(1, 1100, None))[0]
    assert evidence(imprint(foreign, MODEL, empty))[1].min() > -4


def test_erasing_the_averages_direction_removes_the_mark() -> None:
    targets = generated_images(3, 1200, KEY)
    average = average_carrier(MODEL, generated_images(32, 1300, KEY))
    erased = erase(targets, MODEL, average, [1, 2, 3])
    assert np.abs(evidence(erased)[0]).max() < 0.2 < evidence(targets)[0].min()
    bins = spectrum.annulus_bins(32, 32, KEY.inner_radius, KEY.outer_radius)
    before, after = (
        float(spectrum.read(estimate_noise(MODEL, x), bins).abs().square().mean()) for x in (targets, erased)
    )
    assert 0.7 < after / before < 1.3  # the gap was filled
    assert torch.equal(erased, erase(targets, MODEL, average, [1, 2, 3]))
    unchanged = erase(targets, MODEL, average, [1, 2, 3], strength=0.0)
    torch.testing.assert_close(unchanged, targets, atol=1e-3, rtol=0.0)


def test_reprompting_makes_many_marked_images_from_one() -> None:
    carrier = estimate_noise(MODEL, generated_images(1, 1400, KEY))[0]
    made = reprompt(MODEL, carrier, ["any", None], [1, 2], steps=10)
    assert evidence(made)[1].max() < -50
    assert float((made[0] - made[1]).abs().mean()) > 0.05
    whole = reprompt(MODEL, carrier, ["any", None], [1, 2], band=None, steps=10)
    assert torch.equal(whole[0], whole[1])
    again = reprompt(MODEL, carrier, ["any", None], [1, 2], steps=10)
    assert torch.equal(made, again)


def test_images_attacked_together_with_their_noise_come_out_as_one_by_one() -> None:
    carriers = estimate_noise(MODEL, generated_images(2, 1500, KEY))
    foreign = generated_images(2, 1600, None)
    noise, one_by_one = estimate_noise(MODEL, foreign), [*zip(foreign.split(1), carriers, strict=True)]
    for redraw in (False, True):
        together = imprint(foreign, MODEL, carriers, redraw=redraw, noise=noise)
        apart = torch.cat([imprint(x, MODEL, c, redraw=redraw) for x, c in one_by_one])
        torch.testing.assert_close(together, apart, atol=1e-4, rtol=0.0)
    apart = torch.cat([erase(x, MODEL, c, [i]) for i, (x, c) in enumerate(one_by_one)])
    torch.testing.assert_close(erase(foreign, MODEL, carriers, [0, 1], noise=noise), apart, atol=1e-4, rtol=0.0)
    apart = torch.cat([reprompt(MODEL, c, [None], [i]) for i, c in enumerate(carriers)])
    torch.testing.assert_close(reprompt(MODEL, carriers, [None, None], [0, 1]), apart, atol=1e-4, rtol=0.0)


def test_what_does_not_fit_is_refused() -> None:
    image, carrier = generated_images(1, 0, None), torch.zeros(3, 32, 32)
    with pytest.raises(UsageError, match="carrier has shape"):
        imprint(image, MODEL, torch.zeros(4, 32, 32))
    with pytest.raises(UsageError, match="carrier has shape"):
        imprint(image, MODEL, torch.zeros(2, 3, 32, 32))
    with pytest.raises(UsageError, match="band"):
        erase(image, MODEL, carrier, [1], band=(3, 40))
    with pytest.raises(UsageError, match="weight"):
        imprint(image, MODEL, carrier, weight=1.5)
    with pytest.raises(UsageError, match="strength"):
        erase(image, MODEL, carrier, [1], strength=-1.0)
    with pytest.raises(UsageError, match="one per seed"):
        reprompt(MODEL, carrier, ["any"], [1, 2])
    small = Image.new("RGB", (8, 8))
    with pytest.raises(UsageError, match="no unmarked"):
        estimate_trace([small], [])
    with pytest.raises(UsageError, match="make them equal"):
        estimate_trace([small, Image.new("RGB", (8, 9))], [small])
    with pytest.raises(UsageError, match="make them equal"):
        estimate_trace([small], [Image.new("RGB", (8, 9))])
    with pytest.raises(UsageError, match="RGB"):
        estimate_trace([Image.new("L", (8, 8))], [small])
    with pytest.raises(UsageError, match="trace has shape"):
        add_trace(small, np.zeros((9, 8, 3)))
