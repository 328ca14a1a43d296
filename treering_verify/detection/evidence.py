"""Evidence from noise estimates: the test of each key, its decoys, the search, and the correction for all keys tried."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from treering_verify.errors import UsageError
from treering_verify.results import KeyEvidence
from treering_verify.watermark.embedding import extract, features, key_evidence
from treering_verify.watermark.keys.key import Key
from treering_verify.watermark.patterns import PATTERNS

if TYPE_CHECKING:
    import torch
    from treering_detectors import Evidence

    from treering_verify.detection.search.outcome import Found
    from treering_verify.detection.search.target import Target


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
            raise UsageError(
                f"decoys check only the cosine test, and pattern {key.pattern} has another test: leave decoys out"
            )
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


def combined(
    evidence: Sequence[KeyEvidence],
    found: Mapping[str, Found],
    weights: Mapping[str, float],
    share: float,
    keys_tried: int,
    targets: Mapping[str, Target] | None = None,
) -> tuple[KeyEvidence, ...]:
    """Join the evidence of an image as it is with that of a search: per key the smaller of both corrected p-values.

    Parameters
    ----------
    evidence : sequence of KeyEvidence
        Evidence of the image as it is, uncorrected for the search.
    found : mapping of fingerprint to Found
        What the search found, corrected for all that it tried.
    weights : mapping of fingerprint to float
        Share of alpha that a key's image as it is has; 1 where it is missing.
    share : float
        Share of alpha of the pass that gave `evidence`.
    keys_tried : int
        Count of keys that p is corrected for.
    targets : mapping of fingerprint to Target, optional
        Keys that `found` may name and `evidence` does not.

    Returns
    -------
    tuple of KeyEvidence
        Strongest first, Holm-adjusted.
    """
    from treering_detectors import holm_leading, weighted_bonferroni

    joined: list[tuple[float, KeyEvidence]] = []
    for e in evidence:
        log10 = float(weighted_bonferroni(e.log10_pvalue, weights.get(e.fingerprint, 1.0)))
        own = (log10 if share == 1 else min(0.0, log10 - math.log10(share)), replace(e, log10_pvalue=log10))
        better = found.get(e.fingerprint)
        joined.append(_of_search(e, better) if better and better.log10_pvalue < own[0] else own)
    named = {e.fingerprint for e in evidence}
    for fingerprint, one in found.items():
        if fingerprint not in named and targets:
            target = targets[fingerprint]
            bare = KeyEvidence(target.name, fingerprint, 0.0, 0.0, 0.0, len(target.numbers))
            joined.append(_of_search(bare, one))
    joined.sort(key=lambda item: item[0])  # a stable order
    adjusted = holm_leading([log10 for log10, _ in joined], keys_tried)
    return tuple(replace(e, log10_adjusted=float(log10)) for (_, e), log10 in zip(joined, adjusted, strict=True))


def _of_search(e: KeyEvidence, found: Found) -> tuple[float, KeyEvidence]:
    log10 = found.log10_pvalue
    made = replace(
        e, statistic=found.statistic, log10_pvalue=log10, hypothesis=found.hypothesis, placement=found.record
    )
    return log10, made


def _tests(noise_hat: torch.Tensor, keys: Sequence[Key]) -> list[list[Evidence]]:
    """Return the uncorrected evidence for every key in (B, C, h, w): per image, in the order of the keys."""
    return [list(row) for row in zip(*(key_evidence(noise_hat, key) for key in keys), strict=True)]


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
