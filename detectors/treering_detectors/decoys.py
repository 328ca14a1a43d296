"""A Monte-Carlo cross-check of the exact test: how many keys that nobody wrote do as well as the key that was looked for.

The exact p-value is a theorem about keys drawn from N(0, I_d). Decoys are such keys, drawn afresh by a public generator,
and go through the same statistic on the same features, so they check the theorem, the tail's computation and the code at
once, without using any of them. What n of them cannot see is a p-value below 1 / (n + 1).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from treering_detectors.evidence import Evidence
from treering_detectors.exact import _reals, _unit
from treering_detectors.rates import clopper_pearson

DECOY_SEED = 20_240_918  # public and fixed beforehand, so that nobody can pick decoys that fit
AGREES, UNSEEN, DISAGREES = "agrees", "agrees as far as it sees", "disagrees"
CONFIDENCE = 0.999  # so that a sound test is called into question by one image in a thousand, not by one in twenty
_BLOCK_NUMBERS = 1 << 19  # numbers drawn at a time: 4 MiB, whatever the count of decoys


@dataclass(frozen=True)
class DecoyCheck:
    """What decoy keys say about one p-value.

    Attributes
    ----------
    decoys : int
        Keys drawn, n >= 1.
    reached : int
        How many had a statistic at least as large as the key's.
    log10_exact : float
        Base-10 logarithm of the p-value that is checked.
    seed : int
        Of the generator that drew them.
    """

    decoys: int
    reached: int
    log10_exact: float
    seed: int = DECOY_SEED

    @property
    def pvalue(self) -> float:
        """Monte-Carlo p-value (1 + reached) / (1 + n): valid in itself, and never below 1 / (n + 1)."""
        return (1 + self.reached) / (1 + self.decoys)

    @property
    def interval(self) -> tuple[float, float]:
        """Clopper-Pearson interval, at confidence .999, of the chance that a decoy reaches the statistic."""
        return clopper_pearson(self.reached, self.decoys, CONFIDENCE)

    @property
    def agreement(self) -> str:
        """Whether the exact p lies in the interval.

        ``agrees``; ``agrees as far as it sees`` if it does, but is below 1 / (n + 1), where n decoys tell it from nothing
        smaller; ``disagrees``: happens by chance once in a thousand images, else the key's numbers or the code are not
        what the test supposes.
        """
        low, high = self.interval
        exact = 10.0 ** max(self.log10_exact, -300.0)
        if not low <= exact <= high * (1 + 1e-12):
            return DISAGREES
        return UNSEEN if exact < 1 / (1 + self.decoys) else AGREES


def decoy_checks(
    features: ArrayLike, evidence: Sequence[Evidence], decoys: int, seed: int = DECOY_SEED
) -> list[DecoyCheck]:
    """Check answers of `treering_detectors.cosine_tests` by decoy keys, the same ones for every image.

    Parameters
    ----------
    features : array_like, shape (B, d)
        One row per image, as the test saw it.
    evidence : sequence of Evidence, length B
        What the test answered; may be that of the best of several keys, since decoys know none of them.
    decoys : int
        Keys to draw, n >= 1, each of d numbers i.i.d. N(0, 1).
    seed : int
        Of NumPy's Philox generator. Its normal numbers may differ between releases of NumPy; their law does not.

    Returns
    -------
    list of DecoyCheck
        One per image. Checks of several images share their decoys, so they are not independent of each other.

    Raises
    ------
    ValueError
        If the shapes do not fit, there is no decoy, or features are not finite.

    Notes
    -----
    Decoys are drawn block by block, so memory does not grow with their number; time does: about 2.5 s for 100,000 decoys
    of 1024 numbers on one core, nearly whatever B is.

    References
    ----------
    B. Phipson, G. K. Smyth, "Permutation p-values should never be zero", Stat. Appl. Genet. Mol. Biol. 9, 2010.
    """
    reached = count_reaching(features, [e.statistic for e in evidence], decoys, seed)
    return [DecoyCheck(decoys, int(count), e.log10_pvalue, seed) for count, e in zip(reached, evidence, strict=True)]


def count_reaching(
    features: ArrayLike, statistics: ArrayLike, decoys: int, seed: int = DECOY_SEED
) -> NDArray[np.int64]:
    """Count decoy keys whose cosine with the features is at least the statistic: (B, d), (B,) -> (B,).

    Parameters and errors as those of `decoy_checks`.
    """
    a, wanted = _reals("features", features, (2,)), np.asarray(statistics, dtype=np.float64)
    if wanted.shape != a.shape[:1]:
        raise ValueError(f"features has shape {a.shape} and statistics {wanted.shape}; pass (B, d) and (B,)")
    if decoys < 1:
        raise ValueError(f"decoys is {decoys}; draw at least 1, and more than 1 / p to see a p-value p")
    directions = _unit(a).T
    generator = np.random.Generator(np.random.Philox(seed))
    size = max(1, _BLOCK_NUMBERS // a.shape[1])
    reached = np.zeros(len(a), dtype=np.int64)
    for start in range(0, decoys, size):
        keys = generator.standard_normal((min(size, decoys - start), a.shape[1]))
        cosines = keys @ directions / np.sqrt(np.einsum("ij,ij->i", keys, keys))[:, None]
        reached += (cosines >= wanted).sum(axis=0)
    return reached
