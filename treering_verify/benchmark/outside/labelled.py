"""A user's own images with known keys, classified after each decoder inversion."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from treering_verify.benchmark.harness.inversion_methods import pipelines
from treering_verify.benchmark.harness.scope import OwnImages, Scope
from treering_verify.detection.identification import index_test
from treering_verify.detection.judge import DEFAULT_ALPHA
from treering_verify.detection.reading import read
from treering_verify.errors import ImageError, UsageError
from treering_verify.evaluation import ConfusionMatrix, MethodDifferences, labelled_images
from treering_verify.evaluation.labelled import NONE
from treering_verify.inversion.recovery import recover_noise
from treering_verify.models import LatentModel
from treering_verify.report import format_pvalue
from treering_verify.report.findings import Cell, Differences, Figure, Findings, Matrix, Table

if TYPE_CHECKING:
    import torch


_BATCH = 16


def measure(model: LatentModel, scope: Scope, own: OwnImages) -> Findings:
    """Name the key of each image after each inversion, as a closed set (marked images alone) and as an open one.

    Raises
    ------
    UsageError
        As `evaluation.labelled_images`; besides if an image cannot be read or a key does not fit the model.
    """
    found = labelled_images(own.folder, own.keys, table=own.table)
    if scope.count:
        found = [found[i * len(found) // scope.count] for i in range(min(scope.count, len(found)))]
    actual = [label for _, label in found]
    test = index_test(own.keys, model)
    limit = np.log10(DEFAULT_ALPHA)
    rows = scope.rows
    spent: dict[str, float] = {}
    methods = pipelines(model, scope)
    with scope.progress("Images", len(found) * len(methods)) as advance:
        for first, pixels in _batches(model, [path for path, _ in found]):
            for name, inversion in methods.items():
                begun = time.perf_counter()
                noise_hat = recover_noise(model, pixels, inversion)[0]
                spent[name] = spent.get(name, 0.0) + time.perf_counter() - begun
                for i, (best, *_) in enumerate(test.evidence(noise_hat), first):
                    rows.append(
                        {
                            "image": i,
                            "path": str(found[i][0].relative_to(own.folder)),
                            "method": name,
                            "actual": actual[i],
                            "nearest": best.key,
                            "predicted": best.key if best.log10_adjusted <= limit else NONE,
                            "log10_pvalue": best.log10_adjusted,
                        }
                    )
                    advance()
    return _findings(rows, list(methods), {name: seconds / len(found) for name, seconds in spent.items()})


def _batches(model: LatentModel, paths: Sequence[Path]) -> Iterator[tuple[int, torch.Tensor]]:
    """Yield the number of the first image and the pixels, (n, 3, H, W), of images in batches."""
    import torch

    for first in range(0, len(paths), _BATCH):
        pixels = []
        for path in paths[first : first + _BATCH]:
            try:
                pixels.append(read(path, model).image[:1])
            except ImageError as error:
                raise UsageError(f"{error}: take the file out of the folder or the table") from error
        yield first, torch.cat(pixels)


def _findings(rows: list[dict[str, Any]], methods: list[str], seconds: dict[str, float]) -> Findings:
    lines: list[tuple[Cell, ...]] = []
    figures, said = [], []
    for title, column in (("Closed set", "nearest"), ("Open set", "predicted")):
        some = [row for row in rows if column == "predicted" or row["actual"] != NONE]
        if not some:
            continue
        of = {name: [row for row in some if row["method"] == name] for name in methods}
        actual = [row["actual"] for row in of[methods[0]]]
        named = {name: [row[column] for row in of[name]] for name in methods}
        labels = sorted({*actual, *(label for each in named.values() for label in each)} - {NONE})
        none = NONE if column == "predicted" else ""
        labels += [none] if none else []
        panels: list[Matrix | Differences] = []
        for name in methods:
            matrix = ConfusionMatrix.counted(actual, named[name], labels=labels, none=none)
            panels.append(Matrix(name, matrix.labels, matrix.counts, none))
            median = format_pvalue(
                float(np.median([row["log10_pvalue"] for row in of[name] if row["actual"] != NONE] or [0]))
            )
            lines.append((title.lower(), name, matrix.accuracy, median, f"{seconds[name]:.2f}"))
            if name == "ours":
                said.append(f"{matrix.accuracy} ({title.lower()})")
        tests = MethodDifferences.counted(actual, named)
        panels.append(Differences("Pairs of methods", tests.methods, tests.tests, tests.count))
        figures.append(Figure(f"Your images, {title.lower()}", tuple(panels), _CAPTIONS[column]))
    return Findings(
        "classification",
        "Which key marked each of your images, or none, after each decoder inversion?",
        tuple(rows),
        (
            Table(
                "Accuracy",
                ("set", "method", "correct", "median p of marked images", "s / image"),
                tuple(lines),
                "Intervals: Clopper-Pearson, 95 %. Closed set: marked images alone, each gets the key with the smallest p. "
                f"Open set: '{NONE}' unless the Holm-adjusted p is at most {DEFAULT_ALPHA:g}. 'ours': as verification does.",
            ),
        ),
        tuple(figures),
        count=str(len(rows) // len(methods)),
        answer=f"The default inversion names the right one for your images in {' and '.join(said)}.",
    )


_CAPTIONS = {
    "nearest": "Marked images alone: the key with the smallest p is named, significant or not. A perfect method fills the "
    "diagonal alone.",
    "predicted": f"Unmarked images too: '{NONE}' is right for them, and named where no key is significant. A count in a "
    "key's column of the last row is a false attribution.",
}
