"""What was done to an image's geometry is found again, with a p-value that has paid for the search."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from helpers.places import SAMPLES
from treering_detectors import clopper_pearson

import treering_verify as tv
from treering_verify.attacks import parse
from treering_verify.detection.search.geometry import (
    IDENTITY_WEIGHT,
    KINDS,
    SMALLEST_SHARE,
    Group,
    Hypothesis,
    candidates,
    coefficients,
    mask,
    undo,
)
from treering_verify.detection.search.search import Search, as_it_is, confirm, guess
from treering_verify.errors import UsageError
from treering_verify.media.images import open_image
from treering_verify.models import LatentModel
from treering_verify.watermark.embedding import embed, extract, features, key_evidence

SHAPE = (4, 32, 32)


def noise(seed: int, shape: tuple[int, ...] = SHAPE) -> torch.Tensor:
    made = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return made - made.mean(dim=(-2, -1), keepdim=True)


def read(z: torch.Tensor, key: tv.Key, hypothesis: Hypothesis) -> np.ndarray:
    group = Group(replace(hypothesis, shift=(0.0, 0.0)), np.array([hypothesis.shift]), 0.1)
    ((_, values),) = coefficients(z, key, [group])
    return values[0]


@pytest.mark.parametrize(
    ("hypothesis", "change"),
    [
        (Hypothesis(), lambda z: z),
        (Hypothesis(mirrored=True), lambda z: z.flip(-1)),
        (Hypothesis(shift=(3 / 32, -5 / 32)), lambda z: z.roll((3, -5), dims=(-2, -1))),
    ],
)
def test_what_keeps_every_cell_is_undone_exactly_on_the_spectrum(hypothesis: Hypothesis, change: object) -> None:
    key, z = tv.Key.generate(SHAPE, seed=1), noise(2)
    found = read(change(z), key, hypothesis)  # type: ignore[operator]
    assert np.abs(found - extract(z[None], key)[0]).max() < 1e-10


@pytest.mark.parametrize("quarter", [1, 2, 3])
def test_quarter_turns_are_undone_up_to_the_corners_that_the_disc_leaves_out(quarter: int) -> None:
    key, z = tv.Key.generate(SHAPE, seed=1), noise(2)
    found = read(torch.rot90(z, quarter, (-2, -1)), key, Hypothesis(degrees=90.0 * quarter))
    wanted = extract(z[None], key)[0]
    assert np.real(np.vdot(found, wanted)) / np.linalg.norm(found) / np.linalg.norm(wanted) > 0.8
    wrong = read(torch.rot90(z, quarter, (-2, -1)), key, Hypothesis(degrees=(90.0 * quarter + 180) % 360))
    assert abs(np.real(np.vdot(wrong, wanted))) / np.linalg.norm(wrong) / np.linalg.norm(wanted) < 0.3


@pytest.mark.parametrize(
    ("attack", "hypothesis"),
    [
        ("flip", Hypothesis(mirrored=True)),
        ("rotate:degrees=40", Hypothesis(degrees=40)),
        ("crop_scale:share=0.75", Hypothesis(scale=1 / 0.75)),
        ("flip+rotate:degrees=-20", Hypothesis(mirrored=True, degrees=340)),
    ],
)
def test_undoing_brings_back_the_pixels_that_the_mask_says_are_known(attack: str, hypothesis: Hypothesis) -> None:
    smooth = torch.nn.functional.interpolate(noise(3, (1, 3, 8, 8)), size=128, mode="bicubic") / 5  # no kinks
    from treering_verify.media.images import to_pil, to_tensor

    back = undo(to_tensor(parse(attack).apply(to_pil(smooth[0]), seed=0)), hypothesis)
    shown = mask((4, 128, 128), hypothesis)[0, 0] > 0.999
    if hypothesis.degrees:  # what the turn cut off is black in the attacked image, which nobody can know
        rows, columns = torch.meshgrid(torch.arange(128) - 63.5, torch.arange(128) - 63.5, indexing="ij")
        shown &= torch.hypot(rows, columns) < 62
    assert shown.float().mean() > 0.5
    assert (back - smooth).abs()[0, :, shown].max() < 0.05


def test_weights_are_shared_out_once_and_the_angles_and_crops_lie_close() -> None:
    groups = candidates(9, KINDS)
    assert sum(g.weight * len(g.shifts) for g in groups) == pytest.approx(1 - IDENTITY_WEIGHT)
    turns = sorted({g.frame.degrees for g in groups})
    assert max(np.diff([*turns, 360.0])) * math.pi / 180 * 9 <= 0.32
    scales = sorted({g.frame.scale for g in groups})
    assert scales[-1] == pytest.approx(1 / SMALLEST_SHARE)
    assert max(b / a for a, b in pairwise(scales)) < 1.05
    for group in groups:
        assert np.abs(group.shifts).max() <= (group.frame.scale - 1) / 2 + 1e-12
    assert Hypothesis() not in [g.frame for g in groups]


@pytest.mark.parametrize("kinds", [("rotation",), ("crop",), ("flip", "rotation")])
def test_the_searched_p_is_never_more_often_small_than_it_says_whatever_the_noise(kinds: tuple[str, ...]) -> None:
    coloured = torch.nn.functional.avg_pool2d(noise(5)[None], 3, 1, 1)[0] * 3
    keys = [tv.Key.generate(SHAPE, seed=s, inner_radius=2, outer_radius=4) for s in range(400)]
    for z in (noise(4), coloured):
        best = [some[0].evidence.log10_pvalue for some in guess(z, keys, Search(kinds, budget=0))]
        for alpha in (0.5, 0.2, 0.05):
            # The search has half of alpha; the image as it is has the other half.
            count = sum(log10 <= math.log10(alpha) for log10 in best)
            assert clopper_pearson(count, len(best), 0.999)[0] <= alpha * (1 - IDENTITY_WEIGHT)


def test_a_marked_noise_that_was_turned_or_moved_is_found_and_named() -> None:
    key = tv.Key.generate(SHAPE, seed=9)
    z = embed(noise(6)[None], key)[0]
    for change, words in (
        (lambda z: torch.rot90(z, 1, (-2, -1)), "turned by 90 degrees"),
        (lambda z: z.flip(-1), "mirrored"),
    ):
        best = guess(change(z), [tv.Key.generate(SHAPE, seed=8), key], Search())
        assert best[1][0].evidence.log10_pvalue < -20
        assert best[1][0].hypothesis.changes == words
        assert best[0][0].evidence.log10_pvalue > -3


def test_confirmation_reads_the_whole_key_where_nothing_is_missing() -> None:
    key = tv.Key.generate(SHAPE, seed=9)
    z = embed(noise(6)[None], key)[0]
    (some,) = guess(z.flip(-1), [key], Search(("flip",)))
    again = confirm(z, key, some[0])
    estimate = features(extract(z[None], key), key)[0]
    cosine = estimate @ key.numbers / np.linalg.norm(estimate) / np.linalg.norm(key.numbers)
    assert again.evidence.statistic == pytest.approx(cosine, rel=1e-9)


def test_a_pattern_that_is_not_in_the_spectrum_is_not_searched_and_pays_nothing_for_it() -> None:
    z = noise(6)
    searched, other = (tv.Key.generate(SHAPE, pattern=p, seed=3) for p in ("random", "gaussian-shading"))
    assert guess(z, [other, searched], Search(budget=1))[0] == []
    for key, factor in ((searched, 1 / IDENTITY_WEIGHT), (other, 1)):
        (evidence,) = key_evidence(embed(z[None], key), key)
        assert as_it_is(evidence, key).evidence.log10_pvalue == pytest.approx(
            evidence.log10_pvalue + math.log10(factor)
        )


def test_kinds_and_budget_are_checked() -> None:
    with pytest.raises(UsageError, match="flip, rotation, crop"):
        Search(("shear",))
    with pytest.raises(UsageError, match="at least one"):
        Search(())
    with pytest.raises(UsageError, match="budget"):
        Search(budget=-1)
    assert Search(("crop", "flip")).kinds == ("flip", "crop")


def test_a_model_gets_at_most_the_budget_of_pictures_again(tiny_model: LatentModel, monkeypatch: object) -> None:
    from treering_verify.inversion import recovery

    seen: list[int] = []
    plain = recovery.recover_noise_by

    def counted(model: LatentModel, image: torch.Tensor, *settings: object) -> object:
        seen.append(len(image))
        return plain(model, image, *settings)  # type: ignore[arg-type]

    monkeypatch.setattr(recovery, "recover_noise_by", counted)  # type: ignore[attr-defined]
    key = tv.Key.generate(SHAPE, seed=1)
    pictures = [open_image(SAMPLES / "photograph.png")] * 3
    inversion = tv.InversionOptions(method="encoder", steps=1, batch_size=2)
    for budget in (0, 2):
        seen.clear()
        verdicts = list(
            tv.detection.verify_many(pictures, key, model=tiny_model, inversion=inversion, search=Search(budget=budget))
        )
        assert [v.verdict for v in verdicts] == ["no evidence"] * 3
        assert sum(seen) <= 3 * (1 + budget)
        assert max(seen) <= 2


@pytest.mark.parametrize(
    ("attack", "words"), [("rotate:degrees=75", "turned by 7"), ("random_crop_scale:share=0.75", "cropped to 0.7")]
)
def test_a_turned_or_cropped_sample_is_detected_and_what_was_done_is_said(
    sample_key: tv.Key, attack: str, words: str
) -> None:
    picture = parse(attack).apply(open_image(SAMPLES / "marked-0.png"), seed=1)
    model = tv.load_model("landscape")
    plain = tv.detection.verify(picture, sample_key, model=model, search=None)
    assert plain.verdict != "detected"
    found = tv.detection.verify(picture, sample_key, model=model)
    assert found.verdict == "detected"
    assert found.best is not None and words in found.best.hypothesis
    assert words in (found.record()["hypothesis"] or "")
    foreign = tv.detection.verify(picture, tv.Key.generate(SHAPE, seed=77), model=model)
    assert foreign.verdict == "no evidence"
    assert foreign.record()["hypothesis"] is None
