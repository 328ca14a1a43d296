"""A Monte-Carlo check of the exact test: count random keys whose statistic is as large as the tested key's.

The exact p-value is a theorem about keys drawn from N(0, I_d). Decoys are such keys, drawn afresh by a public generator. The
same statistic is computed for them on the same features. So they check the theorem, the computation of the tail and the code
at once, without using any of these. A p-value below 1 / (n + 1) is beyond what n decoys can resolve.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from treering_detectors.arrays import real_array, unit_rows
from treering_detectors.evidence import Evidence
from treering_detectors.rates import clopper_pearson

DECOY_SEED = 20_240_918  # public and fixed beforehand, so that nobody can pick decoys that fit
AGREES, UNSEEN, DISAGREES = "agrees", "agrees as far as it sees", "disagrees"
CONFIDENCE = 0.999  # a sound test is doubted for one image in a thousand, not for one in twenty
_BLOCK_NUMBERS = 1 << 19  # numbers drawn at a time: 4 MiB, whatever the count of decoys


@dataclass(frozen=True)
class DecoyCheck:
    """Result of checking one p-value by decoy keys.

    Attributes
    ----------
    decoys : int
        Keys drawn, n >= 1.
    reached : int
        Decoys whose statistic is at least as large as the key's.
    log10_exact : float
        Base-10 logarithm of the p-value that is checked.
    seed : int
        Seed of the generator that drew the decoys.
    """

    decoys: int
    reached: int
    log10_exact: float
    seed: int = DECOY_SEED

    @property
    def pvalue(self) -> float:
        """Monte-Carlo p-value (1 + reached) / (1 + n): valid by itself, never below 1 / (n + 1)."""
        return (1 + self.reached) / (1 + self.decoys)

    @property
    def interval(self) -> tuple[float, float]:
        """Clopper-Pearson interval, at confidence .999, of the probability that a decoy reaches the statistic."""
        return clopper_pearson(self.reached, self.decoys, CONFIDENCE)

    @property
    def agreement(self) -> str:
        """Whether the exact p-value lies in the interval.

        ``agrees``: it does. ``agrees as far as it sees``: it does, but it is below 1 / (n + 1), the smallest p-value that n
        decoys can resolve. ``disagrees``: it does not. By chance that happens for one image in a thousand; otherwise the
        key's numbers or the code are not what the test assumes.
        """
        low, high = self.interval
        exact = 10.0 ** max(self.log10_exact, -300.0)
        if not low <= exact <= high * (1 + 1e-12):
            return DISAGREES
        return UNSEEN if exact < 1 / (1 + self.decoys) else AGREES


def decoy_checks(
    features: ArrayLike, evidence: Sequence[Evidence], decoys: int, seed: int = DECOY_SEED
) -> list[DecoyCheck]:
    """Check results of `treering_detectors.cosine_tests` by decoy keys, the same ones for every image.

    Parameters
    ----------
    features : array_like, shape (B, d)
        One row per image, as given to the test.
    evidence : sequence of Evidence, length B
        Results of the test. That of the best of several keys will do, because decoys depend on no key.
    decoys : int
        Keys to draw, n >= 1, each of d numbers i.i.d. N(0, 1).
    seed : int
        Seed of NumPy's Philox generator. Its normal numbers may differ between releases of NumPy; their distribution
        does not.

    Returns
    -------
    list of DecoyCheck
        One per image. Checks of several images share their decoys, so they are not independent of each other.

    Raises
    ------
    ValueError
        If the shapes do not match, `decoys` < 1, or features are not finite.

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
    a, wanted = real_array("features", features, (2,)), np.asarray(statistics, dtype=np.float64)
    if wanted.shape != a.shape[:1]:
        raise ValueError(f"features has shape {a.shape} and statistics {wanted.shape}; pass (B, d) and (B,)")
    if decoys < 1:
        raise ValueError(f"decoys is {decoys}; draw at least 1, and more than 1 / p to resolve a p-value p")
    directions = unit_rows(a).T
    generator = np.random.Generator(np.random.Philox(seed))
    size = max(1, _BLOCK_NUMBERS // a.shape[1])
    reached = np.zeros(len(a), dtype=np.int64)
    for start in range(0, decoys, size):
        keys = generator.standard_normal((min(size, decoys - start), a.shape[1]))
        cosines = keys @ directions / np.sqrt(np.einsum("ij,ij->i", keys, keys))[:, None]
        reached += (cosines >= wanted).sum(axis=0)
    return reached
