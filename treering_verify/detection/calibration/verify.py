"""Verify by a calibrated detector: conformal p-values, the worst stratum's, and no answer where nothing was calibrated.

`verification` needs none of this: its p-value is exact. Here are the detectors of the literature, and the classifier, with
thresholds that mean something, for comparison and for whoever has to use them.
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
from treering_verify.media.images import fit, open_image
from treering_verify.models import LatentModel
from treering_verify.results import INCONCLUSIVE, KeyEvidence, Verdict
from treering_verify.watermark.keys.key import Key

if TYPE_CHECKING:
    import torch
    from PIL import Image

    from treering_verify.detection.judge import Invert, Source


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
    """Judge images, lazily, one verdict per source in the order of the sources.

    An image gets no answer, `inconclusive` and p = 1, if it is among the calibration's images (code ``in_calibration``), if
    it had to be fitted to the model's size and none of those had, or the other way round (``size``), or if its residual lies
    outside their range (``outside``), which an image like them does with probability at most 2 / (n + 1).

    Parameters
    ----------
    sources : iterable of paths, bytes or PIL images
    keys : Key or sequence of Key
        All of the calibration's family; p-values are Holm-corrected over them.
    calibration : Calibration
    detector : str
        One of the calibration's.
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
    inversion = unshrunk(inversion or InversionOptions())
    chosen = fitting_keys(keys, model)
    _check(calibration, detector, chosen, model, alpha, inversion)
    judge = Judge.of(model, CalibratedTest(chosen, calibration, detector), alpha=alpha, inversion=inversion)
    remaining = iter(sources)
    while batch := list(islice(remaining, inversion.batch_size)):
        opened, names = zip(*(_opened(source, model) for source in batch), strict=True)
        for source, name, verdict in zip(batch, names, judge.verdicts(opened), strict=True):
            path = str(source) if isinstance(source, (str, Path)) else ""
            named = replace(verdict, path=path, detector=detector, calibration_images=calibration.count)
            yield _limited(named, name, calibration)


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
            f"the calibration has no {detector!r} but {', '.join(calibration.detectors)}: choose one of those, or calibrate "
            "again (the classifier with --classifier-images)"
        )
    for key in keys:
        differences = calibration.setting.differences(setting_of(model, key.family, inversion))
        if differences:
            raise UsageError(f"the calibration is for {'; for '.join(differences)}: calibrate for what you have")
    smallest = len(keys) / (calibration.count + 1)
    if not smallest <= alpha * (1 + 1e-12):
        raise UsageError(
            f"with {calibration.count} images a stratum and {len(keys)} key(s) p is never below {smallest:.2g}: choose "
            f"--alpha {smallest * 1.005:.2g} or more, calibrate on {int(np.ceil(len(keys) / alpha)) - 1} images, or use the "
            "exact test"
        )


def _opened(source: Source, model: LatentModel) -> tuple[Source | Image.Image, str]:
    """Open a source once, so that digest and verdict are of the same pixels; what cannot be read is left to the judge."""
    try:
        image = open_image(source)
    except ImageError:
        return source, ""
    return image, digest(fit(image, model.image_size)[0])


@dataclass(frozen=True, eq=False)
class CalibratedTest:
    """The test of keys by a calibrated detector: conformal p-values, the worst stratum's."""

    keys: list[Key]
    calibration: Calibration
    detector: str

    @property
    def keys_tried(self) -> int:
        """Count of keys that the p-values are corrected for."""
        return len(self.keys)

    def evidence(
        self, noise_hat: torch.Tensor, image: torch.Tensor, invert: Invert, alpha: float
    ) -> list[tuple[KeyEvidence, ...]]:
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
    """Take the answer back where the image is not like those that were calibrated."""
    if verdict.best is None:
        return verdict
    low, high = calibration.residual or (-np.inf, np.inf)
    if name in calibration.digests:
        code, reason = (
            "in_calibration",
            "the calibration was made with this very image; judge it by another, or exactly",
        )
    elif verdict.note and not calibration.resized:
        code, reason = (
            "size",
            f"{verdict.note}: no image of the calibration was; calibrate on such images, or judge exactly",
        )
    elif not verdict.note and calibration.resized == calibration.count:
        code, reason = (
            "size",
            "every image of the calibration was resized and this one was not; calibrate on such images",
        )
    elif calibration.residual and not low <= verdict.residual <= high:
        code = "outside"
        reason = (
            f"the decoder inversion left a residual of {verdict.residual:.3g}, the calibration's images {low:.3g} to "
            f"{high:.3g}: it is not like them; calibrate on such images, or judge exactly"
        )
    else:
        return verdict
    unknown = tuple(replace(e, log10_pvalue=0.0, log10_adjusted=0.0) for e in verdict.evidence)
    return replace(verdict, verdict=INCONCLUSIVE, code=code, reason=reason, evidence=unknown)
