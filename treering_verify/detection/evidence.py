"""Weigh recovered noise: the test of each key, its decoys, the search, and the correction for all keys that were tried."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from treering_verify.detection.search.geometry import undo
from treering_verify.detection.search.search import Guess, Search, as_it_is, confirm, guess
from treering_verify.detection.search.video_offsets import Timeline
from treering_verify.errors import UsageError
from treering_verify.media.blank_areas import fill_occluded, visible_area
from treering_verify.results import KeyEvidence
from treering_verify.watermark.embedding import extract, features, key_evidence
from treering_verify.watermark.keys.key import Key
from treering_verify.watermark.patterns import PATTERNS

if TYPE_CHECKING:
    import torch
    from treering_detectors import Evidence


def evidence_of(noise_hat: torch.Tensor, keys: Sequence[Key], decoys: int = 0) -> list[tuple[KeyEvidence, ...]]:
    """Test every key on noise_hat, (B, C, h, w): per image all keys, the strongest first, Holm-adjusted.

    With `decoys`, that many decoy keys cross-check the strongest key's p-value.
    """
    tests = _tests(noise_hat, keys)
    ranked = [
        rank([(key.name, key.fingerprint, e) for key, e in zip(keys, row, strict=True)], len(keys)) for row in tests
    ]
    return _checked(ranked, tests, noise_hat, keys, decoys) if decoys else ranked


def _checked(
    ranked: list[tuple[KeyEvidence, ...]],
    tests: Sequence[list[Evidence]],
    noise_hat: torch.Tensor,
    keys: Sequence[Key],
    decoys: int,
) -> list[tuple[KeyEvidence, ...]]:
    """Add the decoys' check of each image's strongest key; keys with as many numbers share the decoys.

    Raises
    ------
    UsageError
        If a key's pattern is not tested by the cosine.
    """
    from treering_detectors import decoy_checks

    for key in keys:
        if not PATTERNS[key.pattern].cosine:
            raise UsageError(f"decoys check the cosine test, and {key.pattern} has another: leave decoys out")
    strongest = [min(range(len(keys)), key=lambda k: row[k].log10_pvalue) for row in tests]
    checked = list(ranked)
    for degrees in {keys[k].degrees_of_freedom for k in strongest}:
        rows = [row for row, k in enumerate(strongest) if keys[k].degrees_of_freedom == degrees]
        chosen = [(noise_hat[row : row + 1], keys[strongest[row]]) for row in rows]
        estimates = np.concatenate([features(extract(noise, key), key) for noise, key in chosen])
        checks = decoy_checks(estimates, [tests[row][strongest[row]] for row in rows], decoys)
        for row, check in zip(rows, checks, strict=True):
            checked[row] = (replace(ranked[row][0], decoys=check), *ranked[row][1:])
    return checked


def searched_evidence(
    noise_hat: torch.Tensor,
    image: torch.Tensor,
    keys: Sequence[Key],
    search: Search,
    again: Callable[[torch.Tensor], torch.Tensor],
    alpha: float,
    timeline: Timeline | None = None,
) -> list[tuple[KeyEvidence, ...]]:
    """As `evidence_of`, and where no key reaches alpha search for what was done to the image.

    Parameters
    ----------
    noise_hat : (B, C, h, w)
    image : (B, 3, H, W)
        The images that it was recovered from.
    keys : sequence of Key
    search : Search
    again : callable
        Images (n, 3, H, W) -> their noise (n, C, h, w), for any n.
    alpha : float
        An image in which a key reaches it is not searched any further.
    timeline : Timeline, optional
        Of the videos, where they are videos; without it nothing is searched in time.
    """
    found = [[as_it_is(*one) for one in zip(row, keys, strict=True)] for row in _tests(noise_hat, keys)]
    ranked = [_rank_guesses(row, keys) for row in found]

    def improve(row: int, position: int, better: Guess) -> None:
        if better.evidence.log10_pvalue < found[row][position].evidence.log10_pvalue:
            found[row][position] = better
            ranked[row] = _rank_guesses(found[row], keys)

    def unsettled(row: int) -> bool:
        return ranked[row][0].log10_adjusted > np.log10(alpha)

    dear: list[tuple[int, int, Guess]] = []
    for row in filter(unsettled, range(len(noise_hat))):
        guesses = [
            (position, one)
            for position, some in enumerate(guess(noise_hat[row], keys, search, timeline))
            for one in some
            if one.evidence.log10_pvalue < 0  # a p-value of 1 promises nothing
        ]
        guesses.sort(key=lambda item: item[1].evidence.log10_pvalue)
        for position, one in guesses:
            improve(row, position, one)
        if unsettled(row):
            dear += [(row, position, one) for position, one in guesses[: search.budget]]
    if dear:
        import torch

        visible = {row: visible_area(image[row : row + 1]) for row in {row for row, _, _ in dear}}
        whole = {row: fill_occluded(image[row : row + 1], mask) for row, mask in visible.items()}
        undone = again(torch.cat([undo(whole[row], one.hypothesis) for row, _, one in dear]))
        for (row, position, one), noise in zip(dear, undone, strict=True):
            improve(row, position, confirm(noise, keys[position], one, visible[row]))
    return ranked


def _tests(noise_hat: torch.Tensor, keys: Sequence[Key]) -> list[list[Evidence]]:
    """Test every key on noise_hat, (B, C, h, w): per image, in the order of the keys, uncorrected."""
    return [list(row) for row in zip(*(key_evidence(noise_hat, key) for key in keys), strict=True)]


def _rank_guesses(guesses: Sequence[Guess], keys: Sequence[Key]) -> tuple[KeyEvidence, ...]:
    named = [(key.name, key.fingerprint, one.evidence) for key, one in zip(keys, guesses, strict=True)]
    said = {(key.name, key.fingerprint): one.hypothesis.changes for key, one in zip(keys, guesses, strict=True)}
    return tuple(replace(e, hypothesis=said[e.key, e.fingerprint]) for e in rank(named, len(keys)))


def rank(found: Sequence[tuple[str, str, Evidence]], keys_tried: int) -> tuple[KeyEvidence, ...]:
    """Order the evidence of one image, the strongest first, and adjust it by Holm for all keys tried.

    Parameters
    ----------
    found : sequence of (name, fingerprint, Evidence)
        Of the keys with the smallest p-values; the earlier first among equals.
    keys_tried : int
        Count of all, also of those that are not in `found`.
    """
    from treering_detectors import holm_leading

    ordered = sorted(found, key=lambda item: item[2].log10_pvalue)  # a stable order
    adjusted = holm_leading([evidence.log10_pvalue for _, _, evidence in ordered], keys_tried)
    return tuple(
        KeyEvidence(name, fingerprint, e.statistic, e.log10_pvalue, float(log10), e.degrees_of_freedom)
        for (name, fingerprint, e), log10 in zip(ordered, adjusted, strict=True)
    )
