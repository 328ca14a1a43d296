"""Statistics of watermark detection: numbers in, evidence out.

`exact` holds the test that is exact on any image, `published` the baselines from the literature, `rates` and `estimates` the
summary of many answers. Nothing here knows about pixels, models, spectra or files.
"""

from detectors.estimates import Line, Mean, PairedTest, line, mcnemar, mean
from detectors.evidence import Evidence
from detectors.exact import (
    bonferroni,
    cosine_log10_pvalue,
    cosine_needed,
    cosine_test,
    cosine_tests,
    gaussian_test,
    gaussian_tests,
    holm,
    smallest_pvalue,
)
from detectors.published import nearest_key, nearest_keys, noncentral_chi_square_test
from detectors.rates import ConfusionMatrix, Rate, Roc, clopper_pearson, confusion_matrix, roc

__all__ = [
    "ConfusionMatrix",
    "Evidence",
    "Line",
    "Mean",
    "PairedTest",
    "Rate",
    "Roc",
    "bonferroni",
    "clopper_pearson",
    "confusion_matrix",
    "cosine_log10_pvalue",
    "cosine_needed",
    "cosine_test",
    "cosine_tests",
    "gaussian_test",
    "gaussian_tests",
    "holm",
    "line",
    "mcnemar",
    "mean",
    "nearest_key",
    "nearest_keys",
    "noncentral_chi_square_test",
    "roc",
    "smallest_pvalue",
]
