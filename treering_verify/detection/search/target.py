"""A key that pages are searched for."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from numpy.typing import ArrayLike

from treering_verify.watermark.keys.key_family import Family


@dataclass(frozen=True, eq=False)
class Target:
    """A key, as its file or an index holds it.

    Attributes
    ----------
    name, fingerprint : str
    family : Family
    numbers : (d,) float64
    drift : float
        How far rounding turned them (`treering_detectors.direction_drift`).
    """

    name: str
    fingerprint: str
    family: Family
    numbers: npt.NDArray[np.float64] = field(repr=False)
    drift: float = 0.0

    def cosines(self, features: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Return cosines of features (n, d) with the key, less its drift; 0 where there are no features."""
        lengths = np.linalg.norm(features, axis=1) * np.linalg.norm(self.numbers)
        found = features @ self.numbers / np.where(lengths > 0, lengths, 1)
        return np.where(lengths > 0, found - self.drift, 0.0)

    def log10_pvalues(self, features: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Return log10 p of features (n, d) by the exact cosine test; 0 where there are none."""
        return np.where(features.any(axis=1), self.log10_of(self.cosines(features)), 0.0)

    def log10_of(self, cosines: ArrayLike) -> npt.NDArray[np.float64]:
        """Return log10 p of cosines."""
        from treering_detectors import cosine_log10_pvalue

        return cosine_log10_pvalue(np.clip(cosines, -1.0, np.nextafter(1.0, 0.0)), len(self.numbers))
