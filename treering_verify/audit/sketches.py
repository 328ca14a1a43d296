"""Sketches of judged images: the features of the test, as the statistics of chance need them and no one else can use them.

The features of marked images are estimates of their key, and a folder of results may be handed on without its images. So a
sketch is turned: multiplied by an orthogonal matrix that is derived from a key. Cosines of sketches are those of the
features, and without the key nothing tells where the key's direction lies. Of a detected image the part along its key is
left out first: what is left is what chance detections would have in common.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from treering_verify.audit.output.feature_sample import Bounds, Sketch, rank_of
from treering_verify.results import DETECTED
from treering_verify.watermark.embedding import extract, features, groups
from treering_verify.watermark.key_derivation import derive_bytes
from treering_verify.watermark.keys.index import KeyIndex, named_keys
from treering_verify.watermark.keys.key_family import Family

if TYPE_CHECKING:
    import torch

    from treering_verify.audit.output.rows import Row

MOST_NUMBERS = 1024
"""Numbers of a sketch; longer features are projected onto as many, so that cosines are known to about .03."""

_TURNS = 3


@dataclass(frozen=True, eq=False)
class Sketcher:
    """Makes sketches of the features of one family of keys.

    Attributes
    ----------
    family : Family
        The one with the most keys; keys of other families are tested on other features, of which no sketch is made.
    indexes : list of KeyIndex
        Those of the family.
    signs : (3, d) float64
        The secret turn: signs before each of three cosine transforms.
    """

    family: Family
    indexes: list[KeyIndex] = field(repr=False)
    signs: npt.NDArray[np.float64] = field(repr=False)

    @classmethod
    def of(cls, indexes: Sequence[KeyIndex]) -> Sketcher:
        """Return the sketcher for indexes; its secret turn is derived from the key with the smallest fingerprint."""
        counts: dict[Family, int] = {}
        for index in indexes:
            counts[index.family] = counts.get(index.family, 0) + len(index)
        family = max(counts, key=lambda each: (counts[each], str(each)))
        own = [each for each in indexes if each.family == family]
        _, at, row = min(
            (fingerprint, place, row)
            for place, each in enumerate(own)
            for row, fingerprint in enumerate(each.facts["fingerprint"].tolist())
        )
        numbers = np.asarray(own[at].numbers[row], dtype=np.float64)
        d = family.degrees_of_freedom
        bits = np.frombuffer(derive_bytes(numbers.tobytes(), "sketch", -(-_TURNS * d // 8)), np.uint8)
        signs = 1.0 - 2.0 * np.unpackbits(bits, count=_TURNS * d).reshape(_TURNS, d).astype(np.float64)
        return cls(family, own, signs)

    @property
    def digest(self) -> str:
        """Digest of family and turn: sketches with different digests cannot be compared."""
        return hashlib.sha256(f"{self.family}".encode() + derive_bytes(self.signs.tobytes(), "digest", 32)).hexdigest()

    def sketch(self, noise_hat: torch.Tensor, fingerprints: Sequence[str]) -> npt.NDArray[np.float16]:
        """Return the sketches, (B, n), of noise estimates, (B, C, h, w), without the parts along some keys, "" for none."""
        from scipy import fft

        rows = np.asarray(features(extract(noise_hat, self.family), self.family), dtype=np.float64)
        keys = named_keys(self.indexes, set(fingerprints) - {""}) if any(fingerprints) else {}
        for row, fingerprint in zip(rows, fingerprints, strict=True):
            if key := keys.get(fingerprint):
                row -= self._along(key.numbers, row)
        for signs in self.signs:
            rows = fft.dct(rows * signs, axis=1, norm="ortho")
        rows = rows[:, :MOST_NUMBERS]
        lengths = np.linalg.norm(rows, axis=1, keepdims=True)
        return (rows / np.where(lengths > 0, lengths, 1.0)).astype(np.float16)

    def _along(self, numbers: npt.NDArray[np.float64], row: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Return the part of features along a key, ring by ring: inversion recovers rings unequally well, in all images."""
        parts = (
            groups(self.family) if self.family.pattern in ("random", "rings") else np.zeros(len(row), dtype=np.int64)
        )
        own, power = np.bincount(parts, row * numbers), np.bincount(parts, numbers**2)
        return np.asarray((own / power)[parts] * numbers)


class Sketches:
    """Makes the sketches of judged images that a sample wants, and gives them to it.

    Parameters
    ----------
    sketcher : Sketcher
    settings_id : str
    add : callable
        `FeatureSample.add`, or a proxy of it.
    """

    def __init__(self, sketcher: Sketcher, settings_id: str, add: Callable[[Sequence[Sketch]], Bounds]) -> None:
        self._sketcher, self._settings_id, self._add = sketcher, settings_id, add
        self._bounds = Bounds()

    def take(self, rows: Sequence[Row], noise_hats: Sequence[torch.Tensor]) -> None:
        """Sketch those judged images that the sample wants, from their rows and noise estimates (C, h, w)."""
        import torch

        wanted: list[tuple[bytes, Row, torch.Tensor]] = []
        for row, noise_hat in zip(rows, noise_hats, strict=True):
            if row.sha256 is not None:
                rank = rank_of(row.sha256, self._settings_id)
                if rank <= self._bounds.all or (row.verdict == DETECTED and rank <= self._bounds.detected):
                    wanted.append((rank, row, noise_hat))
        if not wanted:
            return
        # An image that agrees with a key too well to be detected shows the key all the more.
        shown = [
            row.fingerprint or "" if (row.log10_adjusted or 0.0) <= math.log10(row.alpha) else ""
            for _, row, _ in wanted
        ]
        vectors = self._sketcher.sketch(torch.stack([noise_hat for _, _, noise_hat in wanted]), shown)
        sketches = []
        for (rank, row, _), vector in zip(wanted, vectors, strict=True):
            detected = row.fingerprint or "" if row.verdict == DETECTED else ""
            sketches.append(Sketch(rank, bytes.fromhex(row.sha256 or ""), detected, vector.tobytes()))
        self._bounds = self._add(sketches)
