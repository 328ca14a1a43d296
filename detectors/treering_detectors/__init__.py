"""Statistics of watermark detection: numbers in, evidence out.

Features of an image and the numbers of a key come in as arrays, which `arrays` checks. `exact` tests one key on one image
and returns `evidence`; `signs` does so for keys that are signs. `searched` corrects the test for many hypotheses about what
was done to the image, `nearest` finds the best of millions of keys, and `decoys` checks a p-value by Monte Carlo.
`dependence` says how many of many images chance alone detects under one key.
`baselines` holds the tests of the literature, `conformal` the p-values against scores of unmarked images. `classifier` names
one of several keys, or none; it imports scikit-learn, so import it by its own name. `rates` and `estimates` summarise many
answers. Nothing here knows pixels, models, spectra or files.
"""

from treering_detectors.baselines import nearest_key, nearest_keys, noncentral_chi_square_test
from treering_detectors.conformal import Threshold, conformal_pvalue, threshold_at, worst_stratum
from treering_detectors.decoys import DecoyCheck, count_reaching, decoy_checks
from treering_detectors.dependence import (
    ChanceCount,
    chance_count,
    clump_sizes,
    count_variance,
    feature_groups,
    joint_pvalue,
    shared_cosine,
)
from treering_detectors.estimates import Line, Mean, PairedTest, fit_line, mcnemar, mean
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
from treering_detectors.searched import weighted_bonferroni
from treering_detectors.signs import hoeffding_log10_pvalue, sign_tests, sign_weights, signs_log10_pvalue, vote_test

__all__ = [
    "ChanceCount",
    "ConfusionMatrix",
    "DecoyCheck",
    "Evidence",
    "Line",
    "Mean",
    "PairedTest",
    "Rate",
    "Roc",
    "Threshold",
    "bonferroni",
    "bounded_cosine_tests",
    "chance_count",
    "clopper_pearson",
    "clump_sizes",
    "conformal_pvalue",
    "confusion_matrix",
    "cosine_log10_pvalue",
    "cosine_needed",
    "cosine_test",
    "cosine_tests",
    "count_reaching",
    "count_variance",
    "decoy_checks",
    "direction_drift",
    "feature_groups",
    "fit_line",
    "gaussian_test",
    "gaussian_tests",
    "hoeffding_log10_pvalue",
    "holm",
    "holm_leading",
    "joint_pvalue",
    "mcnemar",
    "mean",
    "nearest_key",
    "nearest_keys",
    "nearest_rows",
    "noncentral_chi_square_test",
    "roc",
    "shared_cosine",
    "sign_tests",
    "sign_weights",
    "signs_log10_pvalue",
    "smallest_pvalue",
    "threshold_at",
    "vote_test",
    "weighted_bonferroni",
    "worst_stratum",
]
