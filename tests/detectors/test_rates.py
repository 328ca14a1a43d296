"""Rates, confusion matrices and ROC curves."""

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score
from treering_detectors import Rate, clopper_pearson, confusion_matrix, roc


@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.999])
@pytest.mark.parametrize("trials", [1, 7, 200])
def test_clopper_pearson_ends_where_the_binomial_tails_are_half_the_error(trials, confidence):
    half = (1 - confidence) / 2
    for successes in {0, 1, trials // 2, trials - 1, trials}:
        low, high = clopper_pearson(successes, trials, confidence)
        assert low <= successes / trials <= high
        assert (low, high) == pytest.approx(stats.binomtest(successes, trials).proportion_ci(confidence), abs=1e-9)
        if successes > 0:
            assert stats.binom.sf(successes - 1, trials, low) == pytest.approx(half, rel=1e-8)
        else:
            assert low == 0
        if successes < trials:
            assert stats.binom.cdf(successes, trials, high) == pytest.approx(half, rel=1e-8)
        else:
            assert high == 1


def test_clopper_pearson_covers_every_true_rate_at_least_as_often_as_it_says():
    trials = 30
    intervals = np.array([clopper_pearson(k, trials) for k in range(trials + 1)])
    for rate in np.linspace(0, 1, 203):
        inside = (intervals[:, 0] <= rate) & (rate <= intervals[:, 1])
        assert stats.binom.pmf(np.arange(trials + 1), trials, rate)[inside].sum() >= 0.95


def test_a_rate_prints_its_counts_its_value_and_its_interval():
    assert str(Rate(200, 200)) == "200/200 = 100.0 % [98.2, 100.0]"
    assert str(Rate(0, 0)) == "0/0 = n/a [0.0, 100.0]"
    assert Rate(1, 4).value == 0.25
    assert Rate(3, 9).interval(0.9) == clopper_pearson(3, 9, 0.9)


@pytest.mark.parametrize(("successes", "trials"), [(3, 2), (-1, 2), (0, -1)])
def test_impossible_counts_are_refused(successes, trials):
    for count in (Rate, clopper_pearson):
        with pytest.raises(ValueError, match="successes"):
            count(successes, trials)


@pytest.mark.parametrize("confidence", [0, 1, 95])
def test_a_confidence_that_is_no_probability_is_refused(confidence):
    with pytest.raises(ValueError, match="confidence"):
        Rate(1, 2).interval(confidence)


def test_the_confusion_matrix_counts_each_pair_in_the_order_of_the_labels():
    rng = np.random.default_rng(1)
    labels = ["b", None, "a", 7]
    actual, predicted = ([labels[i] for i in rng.integers(4, size=300)] for _ in range(2))
    matrix = confusion_matrix(actual, predicted, labels)
    pairs = list(zip(actual, predicted, strict=True))
    assert matrix.counts.tolist() == [[pairs.count((row, column)) for column in labels] for row in labels]
    assert matrix.accuracy == Rate(sum(a == p for a, p in pairs), 300)
    for label, rate in matrix.rates.items():
        assert rate == matrix.recall(label) == Rate(pairs.count((label, label)), actual.count(label))


def test_the_recall_of_a_label_that_never_occurs_is_unknown_and_not_zero():
    assert np.isnan(confusion_matrix(["a"], ["a"], ["a", "b"]).recall("b").value)


def test_labels_that_would_be_dropped_silently_are_refused():
    with pytest.raises(ValueError, match=r"labels lacks .*'c'"):
        confusion_matrix(["a", "c"], ["a", "a"], ["a", "b"])
    with pytest.raises(ValueError, match=r"labels lacks .*None"):
        confusion_matrix(["a", "b"], ["a", None], ["a", "b"])
    with pytest.raises(ValueError, match="repeats"):
        confusion_matrix(["a"], ["a"], ["a", "a"])
    with pytest.raises(ValueError, match="actual has 2 labels and predicted 1"):
        confusion_matrix(["a", "a"], ["a"], ["a"])
    with pytest.raises(ValueError, match="'z'"):
        confusion_matrix(["a"], ["a"], ["a"]).recall("z")


def test_a_hand_made_roc_curve_is_read_conservatively():
    curve = roc([9, 7, 7, 3], [8, 7, 2, 1])
    # Above 8 one of four marked is found, no false positive; at 7 three of four, two of four unmarked with them.
    assert curve.tpr_at(0) == curve.tpr_at(0.24) == Rate(1, 4)
    assert curve.tpr_at(0.25) == curve.tpr_at(0.49) == Rate(1, 4)
    assert curve.tpr_at(0.5) == Rate(4, 4)  # at 3, after 7: the last of two points with the same false positives
    assert curve.tpr_at(1) == Rate(4, 4)
    assert (curve.threshold_at(0), curve.threshold_at(0.3), curve.threshold_at(0.5)) == (9, 8, 3)
    assert curve.auc == pytest.approx((4 + 2 * (2 + 0.5) + 2) / 16)
    assert roc([1, 2], [3]).tpr_at(0.5) == Rate(0, 2)
    assert roc([1, 2], [3]).threshold_at(0.5) == np.inf


def test_the_area_is_sklearns_and_the_probability_that_a_marked_image_scores_higher():
    rng = np.random.default_rng(2)
    marked, unmarked = rng.integers(0, 30, 200) + 5, rng.integers(0, 30, 300)
    curve = roc(marked, unmarked)
    higher = np.subtract.outer(marked, unmarked)
    assert curve.auc == pytest.approx(np.mean(higher > 0) + np.mean(higher == 0) / 2)
    assert curve.auc == pytest.approx(roc_auc_score([1] * 200 + [0] * 300, [*marked, *unmarked]))
    assert (curve.marked, curve.unmarked) == (200, 300)
    np.testing.assert_array_equal(curve.thresholds, [np.inf, *np.unique([*marked, *unmarked])[::-1]])


@pytest.mark.parametrize("target", [0.0, 0.003, 0.01, 0.29, 0.3, 0.7, 1.0])
def test_the_threshold_keeps_the_target_and_a_lower_one_would_not(target):
    rng = np.random.default_rng(3)
    marked, unmarked = np.round(rng.normal(1, 1, 150), 1), np.round(rng.normal(0, 1, 100), 1)
    curve = roc(marked, unmarked)
    threshold = curve.threshold_at(target)
    assert np.mean(unmarked >= threshold) <= target
    assert curve.tpr_at(target) == Rate(int(np.sum(marked >= threshold)), 150)
    lower = np.concatenate([marked, unmarked])
    lower = lower[lower < threshold]
    if lower.size:
        assert np.mean(unmarked >= lower.max()) > target


def test_the_band_is_clopper_pearson_at_every_threshold():
    rng = np.random.default_rng(4)
    curve = roc(rng.normal(1, 1, 40), rng.normal(0, 1, 60))
    low, high = curve.band(0.9)
    expected = [clopper_pearson(round(rate * 40), 40, 0.9) for rate in curve.tpr]
    np.testing.assert_allclose(np.stack([low, high], axis=1), expected)
    assert low.shape == curve.fpr.shape == curve.thresholds.shape


def test_scores_that_cannot_be_ranked_are_refused_by_name():
    with pytest.raises(ValueError, match=r"marked_scores has shape \(0,\)"):
        roc([], [1.0])
    with pytest.raises(ValueError, match=r"unmarked_scores .*NaN"):
        roc([1.0], [np.nan])
    with pytest.raises(ValueError, match="fpr"):
        roc([1.0], [0.0]).tpr_at(1.5)


def test_results_cannot_be_changed_behind_their_back():
    with pytest.raises(ValueError, match="read-only"):
        confusion_matrix(["a"], ["a"], ["a"]).counts[0, 0] = 5
    with pytest.raises(ValueError, match="read-only"):
        roc([1.0], [0.0]).tpr[0] = 1
