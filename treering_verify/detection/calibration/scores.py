"""Scores that need a calibration: how well a key fits a noise estimate. Larger is more likely marked; it is no p-value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from treering_verify.detection.calibration.calibration_file import Setting
from treering_verify.detection.calibration.registry import CLASSIFIER, DETECTORS
from treering_verify.errors import UsageError
from treering_verify.inversion import decoder as decoder_inversion
from treering_verify.inversion.noise import AUTO
from treering_verify.inversion.recovery import InversionOptions, filters_used
from treering_verify.models import LatentModel
from treering_verify.models.inverter import fitted
from treering_verify.models.weights import fingerprint
from treering_verify.version import __version__
from treering_verify.watermark.embedding import extract, features, groups, key_coefficients
from treering_verify.watermark.keys.key import Family, Key

if TYPE_CHECKING:
    import torch
    from sklearn.pipeline import Pipeline as Classifier

    Scores = npt.NDArray[np.float64]

_SMALLEST = -1e6  # log10 of a p-value that stands for zero


def score(
    detector: str, noise_hat: torch.Tensor, keys: Sequence[Key], learned: Mapping[str, Any] | None = None
) -> Scores:
    """Return the score of every key, all of one family, on every noise estimate.

    Parameters
    ----------
    detector : str
        "classifier", the log-odds of the key against none, or a name in `DETECTORS`.
    noise_hat : (B, C, h, w)
    keys : sequence of Key
        m keys of one family.
    learned : mapping, optional
        `KeyClassifier.state`, for `classifier`.

    Returns
    -------
    (B, m) float64

    Raises
    ------
    UsageError
        If there is no such detector, or the classifier was not trained.
    """
    if detector != CLASSIFIER:
        return DETECTORS[detector](noise_hat, keys)
    if learned is None:
        raise UsageError("the classifier was not trained: calibrate with --classifier-images")
    family = keys[0].family
    classifier = classifier_of(family, keys, learned)
    return np.asarray(classifier.decision_function(features(extract(noise_hat, family), family)))


def chi_square(noise_hat: torch.Tensor, keys: Sequence[Key]) -> Scores:
    """Return minus log10 of Tree-Ring's published p-value, used as a statistic; shapes as `score`."""
    from treering_detectors import noncentral_chi_square_test

    read, written = _read_and_written(noise_hat, keys)
    return np.array([[-max(_SMALLEST, noncentral_chi_square_test(y, k).log10_pvalue) for k in written] for y in read])


def distance(noise_hat: torch.Tensor, keys: Sequence[Key]) -> Scores:
    """Return minus the mean absolute difference, by which Hong et al. choose the nearest key; shapes as `score`."""
    from treering_detectors import nearest_keys

    return -nearest_keys(*_read_and_written(noise_hat, keys))[1]


def _read_and_written(
    noise_hat: torch.Tensor, keys: Sequence[Key]
) -> tuple[npt.NDArray[np.complex128], npt.NDArray[np.complex128]]:
    """Return what noise_hat has on the keys' bins, (B, n), and what each key writes there, (m, n)."""
    read = extract(noise_hat, keys[0].family)
    return read.reshape(len(read), -1), np.stack([key_coefficients(key).ravel() for key in keys])


def unshrunk(inversion: InversionOptions) -> InversionOptions:
    """Return the options with `naive` for `auto`: published statistics take noise_hat for noise of unit power."""
    return replace(inversion, noise_method="naive") if inversion.noise_method == AUTO else inversion


def setting_of(model: LatentModel, family: Family, inversion: InversionOptions) -> Setting:
    """Return the setting that scores of this family on this model depend on; the batch size is no part of it."""
    method = inversion.method
    if method == decoder_inversion.AUTO:
        carries = fitted(model) is not None
        method = decoder_inversion.default_method(refined=model.refine is not None, filtered=carries)
    return Setting(
        model.name,
        fingerprint(model),
        model.image_size,
        family,
        {
            "inversion": method,
            "settings": repr(inversion.settings or decoder_inversion.DEFAULTS[method]),
            "noise_inversion": inversion.noise_method,
            "steps": inversion.steps,
            "precision": inversion.precision,
            **({"inverter": digest} if (digest := filters_used(model, inversion)) else {}),
        },
        __version__,
    )


def classifier_of(family: Family, keys: Sequence[Key], learned: Mapping[str, Any]) -> Classifier:
    """Return the classifier of these keys, from the state trained on others; UsageError if it does not fit the family."""
    from treering_detectors.classifier import key_pipeline

    classifier = key_pipeline([key.name for key in keys], np.stack([key.numbers for key in keys]), groups(family))
    try:
        classifier["classify"].restore(learned)
        classifier["whiten"].fit(np.zeros((1, family.degrees_of_freedom)))
    except ValueError as error:
        raise UsageError(f"the classifier does not fit ({error}): calibrate again") from error
    return classifier
