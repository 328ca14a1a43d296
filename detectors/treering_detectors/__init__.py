"""Statistics of watermark detection: numbers in, evidence out.

`exact` holds the test that is exact on any image, `decoys` its Monte-Carlo cross-check, `search` the same for millions of
keys, `signs` its like for keys that are signs, `hypotheses` the correction for many guesses of what was done to an image,
`published` the baselines from the literature, `rates` and `estimates` the summary of many answers, `conformal` p-values
against images known to be unmarked. `classifier`, which imports scikit-learn, is imported by its own name. Nothing here
knows about pixels, models, spectra or files.
"""

from treering_detectors.baselines import nearest_key, nearest_keys, noncentral_chi_square_test
from treering_detectors.conformal import Threshold, conformal_pvalue, threshold_at, worst_stratum
from treering_detectors.decoys import DecoyCheck, count_reaching, decoy_checks
from treering_detectors.estimates import Line, Mean, PairedTest, line, mcnemar, mean
from treering_detectors.evidence import Evidence
from treering_detectors.exact import (
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
from treering_detectors.nearest import bounded_cosine_tests, direction_drift, holm_leading, nearest_rows
from treering_detectors.rates import ConfusionMatrix, Rate, Roc, clopper_pearson, confusion_matrix, roc
from treering_detectors.searched import Searched, corrected, searched_cosine_test
from treering_detectors.signs import hoeffding_log10_pvalue, sign_tests, sign_weights, signs_log10_pvalue, vote_test

__all__ = [
    "ConfusionMatrix",
    "DecoyCheck",
    "Evidence",
    "Line",
    "Mean",
    "PairedTest",
    "Rate",
    "Roc",
    "Searched",
    "Threshold",
    "bonferroni",
    "bounded_cosine_tests",
    "clopper_pearson",
    "conformal_pvalue",
    "confusion_matrix",
    "corrected",
    "cosine_log10_pvalue",
    "cosine_needed",
    "cosine_test",
    "cosine_tests",
    "count_reaching",
    "decoy_checks",
    "direction_drift",
    "gaussian_test",
    "gaussian_tests",
    "hoeffding_log10_pvalue",
    "holm",
    "holm_leading",
    "line",
    "mcnemar",
    "mean",
    "nearest_key",
    "nearest_keys",
    "nearest_rows",
    "noncentral_chi_square_test",
    "roc",
    "searched_cosine_test",
    "sign_tests",
    "sign_weights",
    "signs_log10_pvalue",
    "smallest_pvalue",
    "threshold_at",
    "vote_test",
    "worst_stratum",
]
