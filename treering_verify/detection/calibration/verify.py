"""Verification by a calibrated detector: the worst stratum's conformal p-value; images unlike all strata get none.

The detectors of the literature and the classifier get valid p-values here, for comparison with the exact test of
`verification`, which needs no calibration, and for those who have to use them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from treering_verify.detection.calibration.calibration_file import Calibration, digest
from treering_verify.detection.calibration.scores import score, setting_of, unshrunk
from treering_verify.detection.evidence import rank
from treering_verify.detection.judge import Judge
from treering_verify.detection.verification import fitting_keys
from treering_verify.errors import ImageError, UsageError
from treering_verify.inversion.recovery import InversionOptions
from treering_verify.media.conversion import fit
from treering_verify.media.digests import sha256_of
from treering_verify.media.isolation.decoding import decode_image
from treering_verify.models import LatentModel
from treering_verify.results import INCONCLUSIVE, KeyEvidence, Verdict
from treering_verify.watermark.keys.key import Key

if TYPE_CHECKING:
    import torch
    from PIL import Image

    from treering_verify.detection.judge import Source


def verify_calibrated(
    sources: Iterable[Source],
    keys: Key | Sequence[Key],
    calibration: Calibration,
    detector: str,
    *,
    model: LatentModel,
    alpha: float,
    inversion: InversionOptions | None = None,
) -> Iterator[Verdict]:
    """Say for each image whether it carries one of the keys, by a calibrated detector: one verdict per source, in order.

    The verdict is `inconclusive` with p = 1 if the image is one of the calibration's images (code ``in_calibration``), if it
    had to be fitted to the model's size and none of those had, or the other way round (``size``), or if its residual lies
    outside their range (``outside``), which happens to an image like them with probability at most 2 / (n + 1).

    Parameters
    ----------
    sources : iterable of paths, bytes or PIL images
    keys : Key or sequence of Key
        Keys of the calibration's family; p-values are Holm-corrected over them.
    calibration : Calibration
    detector : str
        One of the calibration's detectors.
    model, alpha, inversion
        As `verify_many`; `auto` noise inversion stands for `naive` here.

    Yields
    ------
    Verdict
        Its statistic is the detector's score.

    Raises
    ------
    UsageError
        If the calibration was made for another model, size, family, inversion or version, lacks the detector, or is too
        small for alpha.
    """
    return CalibratedJudge.of(keys, calibration, detector, model=model, alpha=alpha, inversion=inversion).verdicts(
        sources
    )


@dataclass(frozen=True, eq=False)
class CalibratedJudge:
    """A judge by a calibrated detector; `CalibratedJudge.of` checks that calibration, keys and model fit each other."""

    judge: Judge
    calibration: Calibration
    detector: str

    @classmethod
    def of(
        cls,
        keys: Key | Sequence[Key],
        calibration: Calibration,
        detector: str,
        *,
        model: LatentModel,
        alpha: float,
        inversion: InversionOptions | None = None,
    ) -> CalibratedJudge:
        """Return the judge; parameters and errors as of `verify_calibrated`."""
        inversion = unshrunk(inversion or InversionOptions())
        chosen = fitting_keys(keys, model)
        _check(calibration, detector, chosen, model, alpha, inversion)
        test = CalibratedTest(chosen, calibration, detector)
        return cls(Judge.of(model, test, alpha=alpha, inversion=inversion), calibration, detector)

    def verdicts(self, sources: Iterable[Source]) -> Iterator[Verdict]:
        """Yield one verdict per source, in order, batch by batch."""
        remaining, model = iter(sources), self.judge.model
        while batch := list(islice(remaining, self.judge.inversion.batch_size)):
            opened, names = zip(*(_opened(source, model) for source in batch), strict=True)
            for source, name, verdict in zip(batch, names, self.judge.verdicts(opened), strict=True):
                yield _limited(self._named(verdict, source), name, self.calibration)

    def _named(self, verdict: Verdict, source: Source) -> Verdict:
        """Return the verdict on an opened image with what is known of its source, and of the calibration."""
        return replace(
            verdict,
            path=str(source) if isinstance(source, (str, Path)) else "",
            detector=self.detector,
            calibration_images=self.calibration.count,
            sha256=verdict.sha256 or sha256_of(source),
            provenance={**verdict.provenance, "calibration": self.calibration.checksum},
        )


def _check(
    calibration: Calibration,
    detector: str,
    keys: list[Key],
    model: LatentModel,
    alpha: float,
    inversion: InversionOptions,
) -> None:
    if detector not in calibration.detectors:
        raise UsageError(
            f"the calibration has no detector {detector!r}; it has {', '.join(calibration.detectors)}: choose one of those, "
            "or calibrate again (the classifier with --classifier-images)"
        )
    for key in keys:
        differences = calibration.setting.differences(setting_of(model, key.family, inversion))
        if differences:
            raise UsageError(f"the calibration is for {'; for '.join(differences)}: calibrate for this setting")
    smallest = len(keys) / (calibration.count + 1)
    if not smallest <= alpha * (1 + 1e-12):
        raise UsageError(
            f"with {calibration.count} images a stratum and {len(keys)} key(s) p is never below {smallest:.2g}: choose "
            f"--alpha {smallest * 1.005:.2g} or more, calibrate on {int(np.ceil(len(keys) / alpha)) - 1} images, or use the "
            "exact test"
        )


def _opened(source: Source, model: LatentModel) -> tuple[Source | Image.Image, str]:
    """Return the opened image and its digest, so that both are of the same pixels; a source that cannot be read as it is."""
    try:
        image = decode_image(source)
    except ImageError:
        return source, ""
    return image, digest(fit(image, model.image_size)[0])


@dataclass(frozen=True, eq=False)
class CalibratedTest:
    """The test of keys by a calibrated detector: each key's conformal p-value in the worst stratum."""

    keys: list[Key]
    calibration: Calibration
    detector: str

    @property
    def keys_tried(self) -> int:
        """Count of keys that the p-values are corrected for."""
        return len(self.keys)

    @property
    def tried(self) -> Sequence[Key]:
        """The keys that are looked for."""
        return self.keys

    def evidence(self, noise_hat: torch.Tensor) -> list[tuple[KeyEvidence, ...]]:
        """Test noise estimates; see `judge.EvidenceTest`."""
        from treering_detectors import Evidence, worst_stratum

        degrees = self.keys[0].degrees_of_freedom
        ranked = []
        for row in score(self.detector, noise_hat, self.keys, self.calibration.learned):
            worst = [worst_stratum(float(value), self.calibration.scores[self.detector]) for value in row]
            found = [
                (key.name, key.fingerprint, Evidence.from_log10(self.detector, value, float(np.log10(p)), degrees))
                for key, value, (p, _) in zip(self.keys, row.tolist(), worst, strict=True)
            ]
            strata = {key.name: stratum for key, (_, stratum) in zip(self.keys, worst, strict=True)}
            ranked.append(tuple(replace(e, stratum=strata[e.key]) for e in rank(found, len(self.keys))))
        return ranked


def _limited(verdict: Verdict, name: str, calibration: Calibration) -> Verdict:
    """Return the verdict, or an inconclusive one if the image is not like those of the calibration."""
    if verdict.best is None:
        return verdict
    low, high = calibration.residual or (-np.inf, np.inf)
    if name in calibration.digests:
        code, reason = (
            "in_calibration",
            "the calibration was made with this image; use another calibration, or the exact test",
        )
    elif verdict.note and not calibration.resized:
        code, reason = (
            "size",
            f"{verdict.note}, and no image of the calibration was; calibrate on such images, or use the exact test",
        )
    elif not verdict.note and calibration.resized == calibration.count:
        code, reason = (
            "size",
            "all images of the calibration were resized, this one was not; calibrate on such images, or use the exact test",
        )
    elif calibration.residual and not low <= verdict.residual <= high:
        code = "outside"
        reason = (
            f"the decoder inversion left a residual of {verdict.residual:.3g}, the calibration's images {low:.3g} to "
            f"{high:.3g}: it is not like them; calibrate on such images, or use the exact test"
        )
    else:
        return verdict
    unknown = tuple(replace(e, log10_pvalue=0.0, log10_adjusted=0.0) for e in verdict.evidence)
    return replace(verdict, verdict=INCONCLUSIVE, code=code, reason=reason, evidence=unknown)
