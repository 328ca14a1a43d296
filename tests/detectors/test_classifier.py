"""The classifier learns what rings are worth, is calibrated on images it did not learn from, and stores no key."""

import json

import numpy as np
import pytest
import treering_detectors.classifier as classifier_module
from scipy import stats
from sklearn.base import clone
from sklearn.metrics import log_loss
from treering_detectors import cosine_tests
from treering_detectors.classifier import NONE, KeyClassifier, RingWhitening, key_pipeline

GROUPS = np.repeat(np.arange(6), 40)
NOISE = np.array([0.5, 1, 2, 4, 20, 50])[GROUPS]  # how badly each ring is recovered
COLOUR = np.array([9, 0.1, 3, 1, 0.3, 5])[GROUPS]  # what the image's own scale makes of it
NAMES = [f"k{i}" for i in range(5)]


def keys(seed, count=5):
    return np.random.default_rng(seed).standard_normal((count, GROUPS.size))


def images(numbers, names, count, seed, strength=0.6):
    """Features of marked images, keys taking turns, and of as many unmarked ones; and their labels."""
    rng = np.random.default_rng(seed)
    turn = np.arange(count) % len(names)
    noise = rng.standard_normal((2 * count, GROUPS.size)) * NOISE
    marked = strength * numbers[turn] + noise[:count]
    return np.concatenate([marked, noise[count:]]) * COLOUR, [*(names[i] for i in turn), *[NONE] * count]


@pytest.fixture(scope="module")
def trained():
    numbers = keys(0)
    X, y = images(numbers, NAMES, 200, seed=1)
    return key_pipeline(NAMES, numbers, GROUPS).fit(X, y), numbers


def test_it_tells_keys_and_none_apart_and_speaks_as_scikit_learn_does(trained):
    pipeline, numbers = trained
    X, y = images(numbers, NAMES, 100, seed=2)
    assert pipeline.score(X, y) > 0.9
    probabilities = pipeline.predict_proba(X)
    assert probabilities.shape == (200, 6) and list(pipeline.classes_) == [*NAMES, NONE]
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    assert (pipeline.predict(X) == pipeline.classes_[probabilities.argmax(axis=1)]).all()
    again = clone(pipeline).fit(*images(numbers, NAMES, 200, seed=1))
    np.testing.assert_array_equal(again.predict(X), pipeline.predict(X))


def test_rings_that_are_recovered_better_get_larger_weights(trained):
    weights = trained[0]["classify"].weights_
    assert weights.argmax() == 0
    assert weights[:3].min() > 4 * np.abs(weights[4:]).max()


def test_calibrated_probabilities_are_truer_than_uncalibrated_ones():
    # Few noisy images with little penalty: the regression alone is too sure of itself.
    numbers = keys(3)
    X, y = images(numbers, NAMES, 40, seed=4, strength=0.35)
    fresh, truth = images(numbers, NAMES, 1_000, seed=5, strength=0.35)
    pipeline = key_pipeline(NAMES, numbers, GROUPS, strength=1e3, calibration_share=0.4).fit(X, y)
    calibrated = log_loss(truth, pipeline.predict_proba(fresh), labels=[*NAMES, NONE])
    classifier = pipeline["classify"]
    classifier.restore({**classifier.state(), "scale": 1.0, "shift": 0.0})
    assert calibrated < log_loss(truth, pipeline.predict_proba(fresh), labels=[*NAMES, NONE])


def test_a_few_calibration_images_that_are_certain_are_left_certain():
    numbers = keys(15)
    X, y = images(numbers, NAMES, 8, seed=16, strength=3.0)
    pipeline = key_pipeline(NAMES, numbers, GROUPS).fit(X, y)
    fresh, truth = images(numbers, NAMES, 200, seed=17, strength=3.0)
    assert pipeline.score(fresh, truth) == 1
    assert log_loss(truth, pipeline.predict_proba(fresh), labels=[*NAMES, NONE]) < 0.1
    assert np.isfinite(list(pipeline["classify"].state()["weights"])).all()


def test_no_image_is_used_both_to_learn_and_to_calibrate(monkeypatch):
    parts = []
    split = classifier_module._split

    def watched(*arguments):
        parts.append(split(*arguments))
        return parts[-1]

    monkeypatch.setattr(classifier_module, "_split", watched)
    numbers = keys(6)
    X, y = images(numbers, NAMES, 30, seed=7)
    copies = np.tile(np.arange(60), 3)
    key_pipeline(NAMES, numbers, GROUPS).fit(np.tile(X, (3, 1)), y * 3, classify__images=copies)
    ((learn, calibrate),) = parts
    assert not set(copies[learn]) & set(copies[calibrate])
    assert sorted([*learn, *calibrate]) == list(range(180))
    assert {y[i % 60] == NONE for i in calibrate} == {True, False}


def test_what_is_learned_holds_no_key_and_serves_other_keys(trained):
    pipeline, numbers = trained
    text = json.dumps(pipeline["classify"].state())
    assert not any(f"{abs(n):.6f}" in text for n in numbers.ravel())
    others, names = keys(8, 3), ["x", "y", "z"]
    served = key_pipeline(names, others, GROUPS)
    served["classify"].restore(json.loads(text))
    X, y = images(others, names, 100, seed=9)
    assert served.score(X, y) > 0.9
    assert "0." not in repr(pipeline["classify"]) and "5 keys" in repr(pipeline["classify"])


def test_learned_weights_buy_the_exact_test_power_and_keep_it_exact(trained):
    pipeline, _ = trained
    others = keys(10, 2_000)
    X, _ = images(others, [str(i) for i in range(2_000)], 2_000, seed=11, strength=0.25)
    weighted = pipeline["classify"].exact_features(pipeline["whiten"].transform(X))
    plain = [e.log10_pvalue for e in cosine_tests(X[:2_000], others)]
    learned = [e.log10_pvalue for e in cosine_tests(weighted[:2_000], others)]
    assert np.median(learned) < np.median(plain) - 2
    unmarked = [e.pvalue for e in cosine_tests(weighted[2_000:], others)]
    assert stats.kstest(unmarked, "uniform").pvalue > 1e-3


def test_whitening_looks_at_one_image_alone_and_forgets_its_scale():
    X = np.random.default_rng(12).standard_normal((4, GROUPS.size))
    white = RingWhitening(GROUPS).fit_transform(X)
    np.testing.assert_allclose(RingWhitening(GROUPS).fit_transform(X[2:3] * COLOUR), white[2:3])
    for g in range(6):
        np.testing.assert_allclose((white[:, g == GROUPS] ** 2).mean(axis=1), 1)
    assert (RingWhitening(GROUPS).fit_transform(0 * X) == 0).all()


def test_what_does_not_fit_is_refused(trained):
    numbers = keys(13)
    X, y = images(numbers, NAMES, 4, seed=14)
    for call, message in [
        (lambda: key_pipeline(NAMES, numbers[:3], GROUPS).fit(X, y), "5 names for 3 keys"),
        (lambda: key_pipeline(NAMES, numbers, GROUPS).fit(X, ["q"] * 8), "neither keys nor"),
        (lambda: key_pipeline(NAMES, numbers, GROUPS).fit(X, [NONE] * 8), "at least 2 unmarked and 2 marked"),
        (lambda: key_pipeline(NAMES, numbers, GROUPS).fit(X, y[:3]), "8 images and y 3"),
        (lambda: key_pipeline(NAMES, numbers, GROUPS[:5]).fit(X, y), "as many numbers as groups"),
        (lambda: RingWhitening(GROUPS + 1).fit(X), "leaves out"),
        (lambda: RingWhitening(GROUPS).fit(X * np.nan), "NaN"),
        (lambda: KeyClassifier(NAMES, numbers, GROUPS).restore({"weights": [1.0]}), "lacks numbers"),
        (
            lambda: KeyClassifier(NAMES, numbers, GROUPS).restore(
                dict.fromkeys(("intercept", "scale", "shift"), 1.0) | {"weights": [1.0]}
            ),
            "need one each",
        ),
    ]:
        with pytest.raises(ValueError, match=message):
            call()
