"""The record that every test returns, and the public names of the package."""

import dataclasses
import subprocess
import sys

import numpy as np
import pytest
import treering_detectors
from treering_detectors import Evidence, cosine_test, gaussian_test, noncentral_chi_square_test

RNG = np.random.default_rng(11)
NUMBERS = RNG.standard_normal(64)
NOISE = RNG.standard_normal(64)


def chi_square_of(features):
    # A given variance: with an estimated one the statistic's distribution differs from image to image.
    return noncentral_chi_square_test(features[:32] + 1j * features[32:], NUMBERS[:32] + 1j * NUMBERS[32:], 2.0)


@pytest.mark.parametrize(
    "test",
    [lambda a: cosine_test(a, NUMBERS), lambda a: gaussian_test(a, NUMBERS), chi_square_of],
    ids=["exact-cosine", "exact-gaussian", "noncentral-chi-square"],
)
def test_a_larger_statistic_means_a_smaller_pvalue_and_a_stronger_mark(test):
    answers = [test((1 - s) * NOISE + s * NUMBERS) for s in np.linspace(-0.5, 1, 31)]
    assert all(np.diff([e.statistic for e in answers]) > 0)
    assert all(np.diff([e.log10_pvalue for e in answers]) < 0)
    assert all(np.diff([e.pvalue for e in answers]) < 0)


def test_an_underflowing_pvalue_is_rounded_up_and_its_logarithm_kept():
    evidence = Evidence.from_log10("any", 1.0, -5000.0, 3)
    assert evidence.pvalue == sys.float_info.min
    assert evidence.log10_pvalue == -5000.0


@pytest.mark.parametrize("log10_pvalue", [0.1, float("nan")])
def test_a_pvalue_above_one_or_unknown_is_refused(log10_pvalue):
    with pytest.raises(ValueError, match="log10_pvalue"):
        Evidence.from_log10("any", 0.0, log10_pvalue, 3)


def test_evidence_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Evidence("any", 0.0, 1.0, 0.0, 3).pvalue = 0.5


def test_every_public_name_is_documented_and_sorted():
    assert treering_detectors.__all__ == sorted(treering_detectors.__all__)
    assert all(getattr(treering_detectors, name).__doc__ for name in treering_detectors.__all__)


def test_importing_the_package_leaves_the_heavy_libraries_alone():
    code = "import sys, detectors; print(*({'sklearn', 'scipy.stats', 'scipy.fft', 'torch', 'PIL'} & set(sys.modules)))"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == ""
