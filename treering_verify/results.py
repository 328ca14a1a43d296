"""What the toolkit answers: frozen values, and the record that every format writes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from PIL import Image
    from treering_detectors import DecoyCheck

SCHEMA_VERSION = 1
DETECTED, NO_EVIDENCE, INCONCLUSIVE = "detected", "no evidence", "inconclusive"


@dataclass(frozen=True)
class KeyEvidence:
    """What one key found in one image.

    Attributes
    ----------
    key, fingerprint : str
        Name and public fingerprint of the key.
    statistic : float
        Cosine between the image's features and the key's numbers, or agreement of signs, in [-1, 1]; of a calibrated
        detector, its score.
    log10_pvalue : float
        log10 of the p-value of this key alone: exact, and corrected for the hypotheses searched, if any; or conformal
        where the detector is calibrated.
    log10_adjusted : float
        The same after Holm's correction over all keys that were tried.
    degrees_of_freedom : int
    hypothesis : str
        What was found to have been done to the image or video, in words; "" for nothing, or when nothing was searched.
    decoys : DecoyCheck, optional
        Monte-Carlo cross-check of `log10_pvalue`, where it was asked for.
    stratum : str
        Stratum of the calibration that decided the p-value, the worst; "" for the exact test.
    message : bytes
        The likeliest message that the image carries under the key, where messages are read; else empty.
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


@dataclass(frozen=True)
class Verdict:
    """The answer for one image.

    Attributes
    ----------
    path : str
        As it was given; "" for an image that came as an object.
    status : {"ok", "error"}
        Whether the image could be judged at all.
    verdict : {"detected", "no evidence", "inconclusive"}
        `no evidence` is never `authentic`.
    code, reason : str
        Why it is an error or inconclusive; "" otherwise.
    alpha : float
        False-positive rate that `detected` was held to, over all keys together.
    evidence : tuple of KeyEvidence
        Strongest first; empty on errors. `verify`: every key tried; `identify`: the best matches.
    note : str
        What was done to the image first, such as resizing.
    residual : float
        |E(D(z)) - E(x)| / |E(x)| where the decoder inversion stopped; NaN on errors.
    converged : bool
        Whether the decoder inversion stopped because nothing was left to gain.
    seconds : float
        This image's share of the wall-clock time of its batch.
    keys_tried : int
        Keys that were tried and that the p-values are corrected for; 0 on errors.
    message : str or None
        What `decode_many` read; None where no message was asked for.
    detector : str
        What gave the p-values: "exact-cosine", or the name of a calibrated detector.
    null_count : int
        Images that each stratum of the calibration holds; 0 for the exact test.
    profile : str
        Digest of the model's profile that the image was judged by; "" without one.
    shown : float
        Share of the image that shows anything, and was read; the rest is areas of one colour, cut off or covered. NaN on
        errors.
    """

    path: str
    status: str
    verdict: str
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
    null_count: int = 0
    profile: str = ""
    visible: float = float("nan")

    @property
    def best(self) -> KeyEvidence | None:
        """The strongest key, or None if the image could not be judged."""
        return self.evidence[0] if self.evidence else None

    @property
    def key(self) -> str:
        """Name of the key that was detected, or ""."""
        return self.evidence[0].key if self.verdict == DETECTED else ""

    @property
    def pvalue(self) -> float:
        """Adjusted p-value of the strongest key, rounded up to 1e-307 where it is smaller still; 1 on errors."""
        return 10.0 ** max(-307.0, self.evidence[0].log10_adjusted) if self.evidence else 1.0

    def record(self) -> dict[str, Any]:
        """Flat, JSON-ready form with a fixed set of fields (DESIGN section 5); None where nothing is known.

        A field more where it was asked for: `message`; `profile`; `decoys`, the cross-check; `calibration`, if the detector
        is calibrated.
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
            "pvalue": self.pvalue if best else None,
            "log10_pvalue": best.log10_adjusted if best else None,
            "statistic": best.statistic if best else None,
            "hypothesis": (best.hypothesis or None) if best and self.verdict == DETECTED else None,
            "detector": self.detector,
            "alpha": self.alpha,
            "keys_tried": self.keys_tried,
            "note": self.note,
            "residual": self.residual if best else None,
            "converged": self.converged,
            "visible": round(self.visible, 4) if best else None,
            "seconds": round(self.seconds, 4),
            **({} if self.message is None else {"message": self.message}),
            **({"profile": self.profile} if self.profile else {}),
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
        if self.null_count:
            record["calibration"] = {
                "stratum": best.stratum if best else None,
                "images": self.null_count,
                "smallest_pvalue": 1 / (self.null_count + 1),
            }
        return record

    def matches(self) -> list[dict[str, Any]]:
        """JSON-ready form of the evidence, strongest first; what `identify` adds to the record."""
        return [
            {
                "key": e.key,
                "fingerprint": e.fingerprint,
                "log10_pvalue": e.log10_adjusted,
                "log10_pvalue_alone": e.log10_pvalue,
                "statistic": e.statistic,
                "degrees_of_freedom": e.degrees_of_freedom,
            }
            for e in self.evidence
        ]


@dataclass(frozen=True, eq=False)
class Generated:
    """One generated image, its public description (the sidecar's content; no secret), and its latents.

    Attributes
    ----------
    image : PIL.Image.Image
    sidecar : dict
        Model, key fingerprint, seed, class, steps, guidance, schema_version.
    noise, latent : (C, h, w) float32
        The initial noise, key written in, and the latent that was decoded: ground truth for benchmarks.
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
    sidecar : dict
        As an image's, and the count of frames and their rate, fps.
    noise, latent : (C f, h, w) float32
        As an image's, the latent frames one after another.
    """

    frames: tuple[Image.Image, ...]
    sidecar: dict[str, Any]
    noise: torch.Tensor
    latent: torch.Tensor
