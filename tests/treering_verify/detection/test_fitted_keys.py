"""Keys that were computed from an image are told from keys that were in it."""

from __future__ import annotations

import pytest
from treering_detectors import cosine_log10_pvalue

from treering_verify.detection.decision import FITTED_COSINE, decide
from treering_verify.results import KeyEvidence


def evidence(statistic: float, log10_pvalue: float, count: int) -> tuple[KeyEvidence, ...]:
    return (KeyEvidence("k", "f", statistic, log10_pvalue, log10_pvalue, count),)


@pytest.mark.parametrize("count", [24, 1024, 16384])
def test_a_cosine_that_no_inversion_reaches_is_no_detection(count: int) -> None:
    fitted = decide(evidence(1 - 1e-9, float(cosine_log10_pvalue(1 - 1e-9, count)), count), 1e-6, "", "converged")
    assert (fitted.verdict, fitted.code) == ("inconclusive", "fitted_key") and "secret" in fitted.reason
    edge = float(cosine_log10_pvalue(FITTED_COSINE, count))
    assert decide(evidence(FITTED_COSINE, edge, count), 1e-6, "", "converged").code == "fitted_key"
    real = decide(evidence(0.95, float(cosine_log10_pvalue(0.95, count)), count), 1e-6, "", "converged")
    assert real.verdict == "detected"


def test_signs_that_all_agree_are_a_detection() -> None:
    assert decide(evidence(1.0, -0.30103 * 4096, 4096), 1e-6, "", "converged").verdict == "detected"
