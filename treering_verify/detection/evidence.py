"""Evidence from noise estimates: the test of each key, its decoys, the search, and the correction for all keys tried."""

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
    """Return the evidence for every key in noise estimates (B, C, h, w): per image the strongest first, Holm-adjusted.

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
    """Return the evidence with the decoys' check of each image's strongest key; keys of one length share the decoys.

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
    invert: Callable[[torch.Tensor], torch.Tensor],
    alpha: float,
    timeline: Timeline | None = None,
) -> list[tuple[KeyEvidence, ...]]:
    """Return the evidence as `evidence_of`, after a search for what was done to the images in which no key reaches alpha.

    The search has two stages. The first tests every hypothesis on the spectrum of the noise estimate at hand. The second
    undoes the best `search.budget` hypotheses in the image, inverts the result, and tests again. Each p-value is divided by
    a weight that is fixed beforehand, so that the best of them all stays valid.

    Parameters
    ----------
    noise_hat : (B, C, h, w)
    image : (B, 3, H, W)
        The images that it was estimated from.
    keys : sequence of Key
    search : Search
    invert : callable
        Images (n, 3, H, W) -> their noise estimates (n, C, h, w), for any n.
    alpha : float
        An image in which a key reaches it is not searched any further.
    timeline : Timeline, optional
        Frames of the model's videos; without it nothing is searched in time.
    """
    best = [[as_it_is(*tested) for tested in zip(row, keys, strict=True)] for row in _tests(noise_hat, keys)]
    ranked = [_rank_guesses(row, keys) for row in best]

    def improve(row: int, position: int, found: Guess) -> None:
        if found.evidence.log10_pvalue < best[row][position].evidence.log10_pvalue:
            best[row][position] = found
            ranked[row] = _rank_guesses(best[row], keys)

    def undecided(row: int) -> bool:
        return ranked[row][0].log10_adjusted > np.log10(alpha)

    # Stage 1, on the spectrum: no further inversion
    to_invert: list[tuple[int, int, Guess]] = []
    for row in filter(undecided, range(len(noise_hat))):
        guesses = _guesses(noise_hat[row], keys, search, timeline)
        for position, found in guesses:
            improve(row, position, found)
        if undecided(row):
            to_invert += [(row, position, found) for position, found in guesses[: search.budget]]

    # Stage 2, on images with a hypothesis undone: one inversion for each
    if to_invert:
        import torch

        rows = {row for row, _, _ in to_invert}
        visible = {row: visible_area(image[row : row + 1]) for row in rows}
        uncovered = {row: fill_occluded(image[row : row + 1], visible[row]) for row in rows}
        undone = torch.cat([undo(uncovered[row], found.hypothesis) for row, _, found in to_invert])
        for (row, position, found), noise in zip(to_invert, invert(undone), strict=True):
            improve(row, position, confirm(noise, keys[position], found, visible[row]))
    return ranked


def _guesses(
    noise_hat: torch.Tensor, keys: Sequence[Key], search: Search, timeline: Timeline | None
) -> list[tuple[int, Guess]]:
    """Return the best hypotheses for one image, (C, h, w), each with its key's position, the strongest first."""
    guesses = [
        (position, found)
        for position, of_key in enumerate(guess(noise_hat, keys, search, timeline))
        for found in of_key
        if found.evidence.log10_pvalue < 0  # a p-value of 1 is no reason to invert the image again
    ]
    return sorted(guesses, key=lambda item: item[1].evidence.log10_pvalue)


def _tests(noise_hat: torch.Tensor, keys: Sequence[Key]) -> list[list[Evidence]]:
    """Return the uncorrected evidence for every key in (B, C, h, w): per image, in the order of the keys."""
    return [list(row) for row in zip(*(key_evidence(noise_hat, key) for key in keys), strict=True)]


def _rank_guesses(guesses: Sequence[Guess], keys: Sequence[Key]) -> tuple[KeyEvidence, ...]:
    named = [(key.name, key.fingerprint, one.evidence) for key, one in zip(keys, guesses, strict=True)]
    changes = {(key.name, key.fingerprint): one.hypothesis.changes for key, one in zip(keys, guesses, strict=True)}
    return tuple(replace(e, hypothesis=changes[e.key, e.fingerprint]) for e in rank(named, len(keys)))


def rank(found: Sequence[tuple[str, str, Evidence]], keys_tried: int) -> tuple[KeyEvidence, ...]:
    """Order the evidence of one image, the strongest first, and adjust it by Holm for all keys tried.

    Parameters
    ----------
    found : sequence of (name, fingerprint, Evidence)
        Evidence for the keys with the smallest p-values; among equals the earlier comes first.
    keys_tried : int
        Count of all keys that were tried, also of those that are not in `found`.
    """
    from treering_detectors import holm_leading

    ordered = sorted(found, key=lambda item: item[2].log10_pvalue)  # a stable order
    adjusted = holm_leading([evidence.log10_pvalue for _, _, evidence in ordered], keys_tried)
    return tuple(
        KeyEvidence(name, fingerprint, e.statistic, e.log10_pvalue, float(log10), e.degrees_of_freedom)
        for (name, fingerprint, e), log10 in zip(ordered, adjusted, strict=True)
    )
