"""The Fourier-domain classifier compared with the exact test, on keys that it was not trained on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from treering_detectors import Rate

from treering_verify.attacks import parse
from treering_verify.benchmark.catalogue import BENCHMARKS
from treering_verify.benchmark.harness.scope import CLEAN, SEEDS, Scope, distorted
from treering_verify.detection.calibration.build import Training, batch_of, generate_under, learn
from treering_verify.detection.calibration.scores import classifier_of
from treering_verify.detection.judge import DEFAULT_ALPHA
from treering_verify.evaluation import ConfusionMatrix
from treering_verify.inversion.recovery import InversionOptions, recover_noise
from treering_verify.models import LatentModel
from treering_verify.report import format_pvalue
from treering_verify.report.findings import Cell, Figure, Findings, Matrix, Table
from treering_verify.watermark.embedding import extract, features
from treering_verify.watermark.keys.key import Family, Key

if TYPE_CHECKING:
    from PIL import Image

_ATTACKS = ("jpeg:quality=25", "crop_scale:share=0.95")
_KEYS = 8
_BATCH = 16
EXACT, WEIGHTED, CLASSIFIER = "exact test", "exact test, learned weights", "classifier"

_CAPTION = (
    "Rows: the key that marked the image, or none; columns: what was named. A perfect method fills the diagonal alone. A "
    "count in a key's column of the last row is a false attribution."
)


def measure(model: LatentModel, scope: Scope) -> Findings:
    """Train on images of other keys, then name the keys of new images, marked and unmarked."""
    count, first = scope.images(8, 100), SEEDS["classifier"]
    training = max(8, scope.count or 0) if scope.quick else max(8, count * 3 // 4)
    family, inversion = Family.choose(model.latent_shape), InversionOptions()
    keys = [Key.generate(model.latent_shape, name=str(i + 1), seed=first + i) for i in range(_KEYS)]
    images: list[Image.Image] = []
    with scope.progress("Images", 2 * training + 2 * count) as advance:
        attacks = (None, *(parse(text) for text in _ATTACKS))
        state = learn(Training(family, training, attacks, first + (1 << 20)), model, inversion, advance)
        marks = [keys[i % _KEYS] if i < count else None for i in range(2 * count)]
        for image in generate_under(marks, first + (2 << 20), model):
            images.append(image)
            advance()
    trained = classifier_of(family, keys, state)
    actual = [keys[i % _KEYS].name if i < count else trained.classes_[-1] for i in range(2 * count)]
    rows = scope.rows
    rates: list[tuple[Cell, ...]] = []
    proper: list[tuple[Cell, ...]] = []
    figures = []
    for attack in (CLEAN, *_ATTACKS):
        attacked = distorted(images, attack)
        noise = [recover_noise(model, batch_of(attacked[s : s + _BATCH]))[0] for s in range(0, len(attacked), _BATCH)]
        X = np.concatenate([features(extract(part, family), family) for part in noise])
        weighted = trained["classify"].exact_features(trained["whiten"].transform(X))
        predictions: dict[str, list[tuple[str, float | None]]] = {
            EXACT: _named(X, keys, actual),
            WEIGHTED: _named(weighted, keys, actual),
            CLASSIFIER: [(str(name), None) for name in trained.predict(X)],
        }
        proper.append((attack, *_loss(trained, X, actual)))
        panels = []
        for method, found in predictions.items():
            rows += [
                {
                    "attack": attack,
                    "method": method,
                    "image": i,
                    "actual": actual[i],
                    "predicted": name,
                    "log10_pvalue": p,
                }
                for i, (name, p) in enumerate(found)
            ]
            names = [name for name, _ in found]
            right = Rate(sum(a == c for a, c in zip(actual[:count], names[:count], strict=True)), count)
            false = Rate(sum(name != actual[-1] for name in names[count:]), count)
            evidence = [p for _, p in found[:count] if p is not None]
            median = format_pvalue(float(np.median(evidence))) if evidence else None
            rates.append((attack, method, right, false, median))
            panels.append(_matrix(method, actual, names, [*(k.name for k in keys), actual[-1]]))
        figures.append(Figure(f"Classification among {_KEYS} keys or none, {attack}", tuple(panels), _CAPTION))
    return Findings(
        "classifier",
        BENCHMARKS["classifier"].question,
        tuple(rows),
        (
            Table(
                f"Named among {_KEYS} keys or none",
                ("attack", "method", "named correctly", "unmarked, named", "median p of marked"),
                tuple(rates),
                f"The exact tests name a key at a Holm-adjusted p of at most {DEFAULT_ALPHA:g}, which is valid on any "
                "image. The classifier names the most probable class, and was trained on images of the same kind. "
                f"'{WEIGHTED}': on features with the weights that the classifier learned.",
            ),
            Table(
                "Cross-entropy of the classifier's probabilities",
                ("attack", "calibrated", "not calibrated"),
                tuple(proper),
                f"Natural logarithm; {np.log(_KEYS + 1):.2f} is that of equal probabilities. Calibrated on a split of its "
                "own.",
            ),
        ),
        tuple(figures),
        seeds=f"{first} onwards; the keys that are trained on are not those that are named",
        count=f"{training} marked and {training} unmarked to learn from; {count} and {count} per attack to name",
    )


def _named(X: NDArray[np.float64], keys: list[Key], actual: list[str]) -> list[tuple[str, float | None]]:
    """Return the key that the exact test names, or the last label, and log10 p of the image's own key, if it has one."""
    from treering_detectors import cosine_tests, holm

    log10 = np.array([[e.log10_pvalue for e in cosine_tests(X, key.numbers)] for key in keys]).T
    names = [key.name for key in keys]
    found = []
    for row, label in zip(log10, actual, strict=True):
        best = int(row.argmin())
        name = names[best] if holm(10**row)[best] <= DEFAULT_ALPHA else actual[-1]
        found.append((name, float(row[names.index(label)]) if label in names else None))
    return found


def _loss(trained: Any, X: NDArray[np.float64], actual: list[str]) -> tuple[float, float]:
    """Return the cross-entropy with and without the calibration."""
    from sklearn.base import clone
    from sklearn.metrics import log_loss

    order = [list(trained.classes_).index(label) for label in actual]
    plain = clone(trained)
    plain["classify"].restore({**trained["classify"].state(), "scale": 1.0, "shift": 0.0})
    plain["whiten"].fit(X)
    labels = range(len(trained.classes_))
    return tuple(float(log_loss(order, p.predict_proba(X), labels=labels)) for p in (trained, plain))  # type: ignore[return-value]


def _matrix(method: str, actual: list[str], predicted: list[str], labels: list[str]) -> Matrix:
    matrix = ConfusionMatrix.counted(actual, predicted, labels=labels, none=labels[-1])
    return Matrix(method, matrix.labels, matrix.counts, matrix.none)
