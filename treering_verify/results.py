"""The results of verification and generation, as frozen dataclasses, and the record that every output format writes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from PIL import Image
    from treering_detectors import DecoyCheck

SCHEMA_VERSION = 2
"""Version of a verdict's record. In version 1 a file without an answer had the verdict "inconclusive"."""
SIDECAR_VERSION = 1
"""Version of the description beside an image."""
DETECTED, NO_EVIDENCE, INCONCLUSIVE = "detected", "no evidence", "inconclusive"
DERIVED, CHOSEN_MESSAGE, FREE_NUMBERS = "derived", "chosen message", "free numbers"
"""Origins of keys: all numbers are derived from the pseudorandom key in the file; all but a message; nothing shows that."""


@dataclass(frozen=True)
class KeyEvidence:
    """The evidence of one key in one image.

    Attributes
    ----------
    key, fingerprint : str
        Name and public fingerprint of the key.
    statistic : float
        Cosine between the image's features and the key's numbers, or agreement of signs, in [-1, 1]; with a calibrated
        detector, its score.
    log10_pvalue : float
        log10 of the p-value of this key alone. It is exact and corrected for the hypotheses searched, or, with a
        calibrated detector, conformal.
    log10_adjusted : float
        The same after Holm's correction over all keys tested.
    degrees_of_freedom : int
        How many numbers the test compares.
    hypothesis : str
        What was done to the image or video, in words: what a search found, or by which factor an over-exposed image was
        brightened; "" if nothing.
    decoys : DecoyCheck, optional
        Monte-Carlo check of `log10_pvalue`, if requested.
    stratum : str
        Stratum of the calibration with the largest p-value, which decides; "" for the exact test.
    placement : dict, optional
        Where the page shows the key's image, JSON-ready: box (left, top, right, bottom), corners (x, y), scale (across,
        down; in sizes of the model's image), degrees (counter-clockwise), mirrored. None where it was not searched for.
    message : bytes
        The likeliest message in the image under the key, if messages are read; else empty.
    retired : str
        Day from which on the key is retired, as 2026-11-29; "" if it is not retired.
    origin : str
        How the numbers of a key at or under alpha came about: "derived", "chosen message" or "free numbers"; "" above
        alpha.
    """

    key: str
    fingerprint: str
    statistic: float
    log10_pvalue: float
    log10_adjusted: float
    degrees_of_freedom: int
    hypothesis: str = ""
    decoys: DecoyCheck | None = None
    stratum: str = ""
    message: bytes = b""
    placement: dict[str, Any] | None = None
    retired: str = ""
    origin: str = ""


@dataclass(frozen=True)
class Verdict:
    """The verdict on one image, with its evidence.

    Attributes
    ----------
    path : str
        The path as given; "" for an image in memory.
    status : {"ok", "error"}
        Whether the image could be tested.
    verdict : {"detected", "no evidence", "inconclusive"} or None
        `no evidence` never means `authentic`. None on errors.
    code, reason : str
        Why the status is "error" or the verdict "inconclusive"; "" otherwise.
    alpha : float
        False-positive rate of `detected`, over all keys together.
    evidence : tuple of KeyEvidence
        Strongest first; empty on errors. For `verify` every key tested, for `identify` the best matches.
    note : str
        What was done to the image before the inversion, such as resizing.
    residual : float
        |E(D(z)) - E(x)| / |E(x)| at the end of the decoder inversion; NaN on errors.
    converged : bool
        Whether the decoder inversion converged.
    seconds : float
        This image's share of the wall-clock time of its batch.
    keys_tried : int
        How many keys were tested, which the p-values are corrected for; 0 on errors.
    message : str or None
        What `decode_many` read; None if no message was requested.
    detector : str
        The test that gave the p-values: "exact-cosine", or the name of a calibrated detector.
    calibration_images : int
        Unmarked images in each stratum of the calibration; 0 for the exact test.
    profile : str
        Digest of the model's profile that was used; "" without one.
    inverter : str
        Digest of the fitted filters that inverted the image; "" without.
    visible : float
        Share of the image that is visible. The rest is occluded: areas of one colour, cropped or covered. NaN on errors.
    search : dict, optional
        What was searched for in the page, JSON-ready (docs/records.md). None where nothing was
        searched, since it was off or a key was found without.
    sha256 : str or None
        SHA-256 of the file, or of the bytes; None for an image in memory.
    time : str
        When it was judged, UTC, as 2026-11-29T13:00:00Z.
    provenance : dict
        Model, weights, keys, settings and versions, JSON-ready (docs/records.md).
    """

    path: str
    status: str
    verdict: str | None
    alpha: float
    code: str = ""
    reason: str = ""
    evidence: tuple[KeyEvidence, ...] = ()
    note: str = ""
    residual: float = float("nan")
    converged: bool = False
    seconds: float = 0.0
    keys_tried: int = 0
    message: str | None = None
    detector: str = "exact-cosine"
    calibration_images: int = 0
    profile: str = ""
    visible: float = float("nan")
    inverter: str = ""
    search: dict[str, Any] | None = None

    sha256: str | None = None
    time: str = field(default="", compare=False)
    provenance: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @property
    def best(self) -> KeyEvidence | None:
        """The evidence of the strongest key, or None if the image could not be tested."""
        return self.evidence[0] if self.evidence else None

    @property
    def key(self) -> str:
        """Name of the detected key, or ""."""
        return self.evidence[0].key if self.verdict == DETECTED else ""

    @property
    def pvalue(self) -> float:
        """Adjusted p-value of the strongest key, rounded up to 1e-307 if it is smaller; 1 on errors."""
        return 10.0 ** max(-307.0, self.evidence[0].log10_adjusted) if self.evidence else 1.0

    def record(self) -> dict[str, Any]:
        """Return the verdict as a flat dict for JSON, always with the same fields; None where nothing is known.

        Further fields appear on request: `message`, `profile`, `decoys`, and, with a calibrated detector, `calibration`.
        """
        best = self.best
        record: dict[str, Any] = {
            "schema_version": SCHEMA_VERSION,
            "path": self.path,
            "status": self.status,
            "code": self.code,
            "reason": self.reason,
            "verdict": self.verdict,
            "key": self.key or None,
            "fingerprint": best.fingerprint if best and self.verdict == DETECTED else None,
            "key_retired": (best.retired or None) if best and self.verdict == DETECTED else None,
            "key_origin": (best.origin or None) if best else None,
            "pvalue": self.pvalue if best else None,
            "log10_pvalue": best.log10_adjusted if best else None,
            "statistic": best.statistic if best else None,
            "hypothesis": (best.hypothesis or None) if best and self.verdict == DETECTED else None,
            "placement": best.placement if best and self.verdict == DETECTED else None,
            "search": self.search,
            "detector": self.detector,
            "alpha": self.alpha,
            "keys_tried": self.keys_tried,
            "note": self.note,
            "residual": self.residual if best else None,
            "converged": self.converged,
            "visible": round(self.visible, 4) if best else None,
            "seconds": round(self.seconds, 4),
            "sha256": self.sha256,
            "time": self.time or None,
            "provenance": self.provenance or None,
            **({} if self.message is None else {"message": self.message}),
            **({"profile": self.profile} if self.profile else {}),
            **({"inverter": self.inverter} if self.inverter else {}),
        }
        if best and best.decoys:
            check = best.decoys
            record["decoys"] = {
                "count": check.decoys,
                "reached": check.reached,
                "pvalue": check.pvalue,
                "interval": list(check.interval),
                "log10_pvalue_exact": check.log10_exact,
                "agreement": check.agreement,
                "seed": check.seed,
            }
        if self.calibration_images:
            record["calibration"] = {
                "stratum": best.stratum if best else None,
                "images": self.calibration_images,
                "smallest_pvalue": 1 / (self.calibration_images + 1),
            }
        return record

    def matches(self) -> list[dict[str, Any]]:
        """Return the evidence as dicts for JSON, strongest first, which `identify` adds to the record."""
        return [
            {
                "key": e.key,
                "fingerprint": e.fingerprint,
                "key_retired": e.retired or None,
                "key_origin": e.origin or None,
                "log10_pvalue": e.log10_adjusted,
                "log10_pvalue_alone": e.log10_pvalue,
                "statistic": e.statistic,
                "degrees_of_freedom": e.degrees_of_freedom,
            }
            for e in self.evidence
        ]


@dataclass(frozen=True, eq=False)
class Generated:
    """One generated image, its public description (the sidecar file; no secret), and its latents.

    Attributes
    ----------
    image : PIL.Image.Image
        The image, RGB.
    sidecar : dict
        Model, key fingerprint, seed, class, steps, guidance, schema_version.
    noise, latent : (C, h, w) float32
        The initial noise with the key, and the latent that was decoded: ground truth for benchmarks.
    """

    image: Image.Image
    sidecar: dict[str, Any]
    noise: torch.Tensor
    latent: torch.Tensor


@dataclass(frozen=True, eq=False)
class GeneratedVideo:
    """One generated video, its public description, and its latents.

    Attributes
    ----------
    frames : tuple of PIL.Image.Image
        Its frames, RGB.
    sidecar : dict
        As of an image, and the number of frames and their rate, fps.
    noise, latent : (C f, h, w) float32
        As of an image, the latent frames one after another.
    """

    frames: tuple[Image.Image, ...]
    sidecar: dict[str, Any]
    noise: torch.Tensor
    latent: torch.Tensor
