"""Summaries of calibrations: thresholds at target false-positive rates, as text or as a record."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from treering_verify.detection.calibration.calibration_file import Calibration
from treering_verify.report.text import table, to_json

if TYPE_CHECKING:
    from treering_detectors import Threshold

TARGETS = (0.1, 0.05, 0.01, 0.001, 1e-4)


def format_calibration(calibration: Calibration) -> Iterator[str]:
    """Yield lines: each detector's threshold at each reachable target and in each stratum, and the calibration's setting."""
    rows = []
    for detector, target, stratum, found, worst in _thresholds(calibration):
        interval = f"{100 * found.low:.2g} to {100 * found.high:.2g} %"
        rows.append(
            [detector, f"{100 * target:g} %", stratum, f"{found.value:.4g}", interval, "decides" if worst else ""]
        )
    if rows:
        yield table(["detector", "false positives", "stratum", "score above", "truly, 95 %", ""], rows)
    setting = calibration.setting
    yield (
        f"{calibration.count} images in {len(calibration.strata)} strata; p is never below "
        f"{1 / (calibration.count + 1):.2g}; model {setting.model}, keys {setting.family}"
    )


def calibration_record(calibration: Calibration) -> dict[str, Any]:
    """Return a JSON-ready summary, without the scores."""
    setting = calibration.setting
    return {
        "schema_version": 1,
        "model": setting.model,
        "weights": setting.weights,
        "family": str(setting.family),
        "inversion": dict(setting.inversion),
        "images": calibration.count,
        "resized": calibration.resized,
        "training_images": calibration.training,
        "strata": list(calibration.strata),
        "detectors": list(calibration.detectors),
        "smallest_pvalue": 1 / (calibration.count + 1),
        "thresholds": [
            to_json(
                {
                    "detector": detector,
                    "target": target,
                    "stratum": stratum,
                    "threshold": found.value,
                    "false_positive_rate_low": found.low,
                    "false_positive_rate_high": found.high,
                    "decides": worst,
                }
            )
            for detector, target, stratum, found, worst in _thresholds(calibration)
        ],
    }


def _thresholds(calibration: Calibration) -> Iterator[tuple[str, float, str, Threshold, bool]]:
    """Yield detector, target, stratum, threshold, and whether it is the highest of all strata, which decides."""
    from treering_detectors import threshold_at

    for detector, strata in calibration.scores.items():
        for target in TARGETS:
            found = {stratum: threshold_at(scores, target) for stratum, scores in strata.items()}
            if target * (calibration.count + 1) * (1 + 1e-12) < 1:
                continue
            worst = max(found, key=lambda stratum: found[stratum].value)
            for stratum, threshold in found.items():
                yield detector, target, stratum, threshold, stratum == worst
