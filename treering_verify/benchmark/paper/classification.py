"""Classification of images by key, in closed and open sets, with confusion matrices of every decoder inversion.

The paper's three keys are used with the published disc, which is off centre by a row, and with a centred one.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import numpy as np
from treering_detectors import mcnemar, nearest_keys

from treering_verify.benchmark.catalogue import BENCHMARKS
from treering_verify.benchmark.harness.cache import cached
from treering_verify.benchmark.harness.keyed_images import render_noise
from treering_verify.benchmark.harness.laboratory import chunks
from treering_verify.benchmark.harness.memory import peak_memory
from treering_verify.benchmark.harness.scope import CLEAN, SEEDS, Scope, distorted
from treering_verify.benchmark.outside import labelled
from treering_verify.benchmark.paper import published_geometry
from treering_verify.benchmark.published_figures import CLASSIFICATION, PAPER
from treering_verify.detection.evidence import evidence_of
from treering_verify.detection.judge import DEFAULT_ALPHA
from treering_verify.evaluation import ConfusionMatrix, MethodDifferences
from treering_verify.generation.generator import initial_noise
from treering_verify.inversion.decoder import DEFAULTS, Settings, default_method, unstopped
from treering_verify.inversion.recovery import InversionOptions, recover_noise
from treering_verify.media.conversion import to_tensor
from treering_verify.models import LatentModel, device_of
from treering_verify.models.inverter import fitted
from treering_verify.models.weights import fingerprint
from treering_verify.report import format_pvalue
from treering_verify.report.findings import Cell, Differences, Figure, Findings, Matrix, Table
from treering_verify.version import __version__
from treering_verify.watermark.embedding import embed
from treering_verify.watermark.keys.key import Key

if TYPE_CHECKING:
    import torch
    from PIL import Image

NONE = "none"
PERFECT = "perfect inversion"
_LEVEL = 0.05  # of the paired tests
_FIGURE_NOTE = (
    "Rows: the key that marked the image; columns: the key that was named. A perfect method fills the diagonal alone. In "
    "brackets: 95 % Clopper-Pearson interval of the accuracy, in per cent. Last panel: images that only one method of a "
    "pair has right, with the exact McNemar p, Holm-adjusted for all pairs. "
    f"A frame marks p <= {_LEVEL:g}; blue: the row's method is better; red: the column's is."
)


@dataclass(frozen=True, eq=False)
class Rule:
    """A classification of the first images of a group: their actual labels, all labels, and the rule that predicts them."""

    name: str
    actual: list[str]
    labels: list[str]
    decide: Callable[[torch.Tensor], list[str]]


@dataclass(frozen=True, eq=False)
class Group:
    """Images that are inverted once by each method, and the rules that classify their noise estimates.

    `images` generates the `count` images when it is called. `truth` is their initial noise, where a perfect inversion is to
    be compared too.
    """

    attack: str
    images: Callable[[], list[Image.Image]]
    count: int
    rules: list[Rule]
    truth: torch.Tensor | None = None


def measure(model: LatentModel, scope: Scope) -> Findings:
    """Classify the same images after every decoder inversion, and compare the methods by paired tests."""
    if scope.own is not None:
        return labelled.measure(model, scope, scope.own)
    methods = {
        "encoder": pipeline("encoder"),
        "gradient": _published("gradient", scope.quick),
        "gradient-free": _published("adam", scope.quick),
        "ours": pipeline(default_method(refined=model.refine is not None, filtered=fitted(model) is not None)),
    }
    methods |= {name: pipeline(name) for name in scope.methods}
    each, first = scope.images(1, 30), SEEDS["classification"]
    groups = [*paper_groups(model, each, first), *_random_groups(model, scope, first)]
    found = classify(model, scope, groups, methods)
    figures = [*found.figures]
    figures.insert(1, published_matrices())
    peaks = _peaks(model, groups[0].images()[0], methods)
    return Findings(
        "classification",
        BENCHMARKS["classification"].question,
        tuple(found.rows),
        (
            Table(
                "Accuracy",
                ("set", "attack", "method", "correct", "s / image"),
                tuple(found.lines),
                f"Intervals: Clopper-Pearson, 95 %. gradient and gradient-free: {_iterations(methods)}, without early "
                f"stopping. Open sets include unmarked images; the prediction is '{NONE}' unless the Holm-adjusted p is at "
                f"most {DEFAULT_ALPHA:g}. '{PERFECT}' uses the true initial noise: with the off-centre disc even that has "
                "two thirds correct, since key 1 reads as key 2. The paper's keys are classified by distance, as published, "
                "and by angle, which does not depend on how much inversion shrinks the disc.",
            ),
            Table(
                "Paired tests between methods (exact McNemar)",
                ("set", "attack", "method", *(f"against {name}" for name in list(methods)[:-1])),
                tuple(found.tests),
                "a : b means that only the row's method is correct on a images, and only the column's method on b. "
                f"* marks p <= {_LEVEL:g}; not corrected for the number of tests.",
            ),
            Table(
                "Peak memory of the decoder inversion, one image", ("method", "tensors (MiB)", "resident (MiB)"), peaks
            ),
        ),
        tuple(figures),
        seeds=f"{first} onwards",
        count=", ".join(f"{r.name} {g.attack}: {len(r.actual)}" for g in groups for r in g.rules),
    )


@dataclass(frozen=True, eq=False)
class Classified:
    """What every method says of groups of images: rows, lines of the tables of accuracy and tests, and a figure a rule."""

    rows: list[dict[str, Any]]
    lines: list[tuple[Cell, ...]]
    tests: list[tuple[Cell, ...]]
    figures: list[Figure]


def classify(model: LatentModel, scope: Scope, groups: list[Group], methods: dict[str, InversionOptions]) -> Classified:
    """Invert the images of every group by every method, and classify them by the group's rules."""
    weights = fingerprint(model)
    rows: list[dict[str, Any]] = []
    lines: list[tuple[Cell, ...]] = []
    tests: list[tuple[Cell, ...]] = []
    figures = []
    with scope.progress("Groups", len(groups) * len(methods)) as advance:
        for group in groups:
            noise: dict[str, torch.Tensor] = {}
            seconds: dict[str, float] = {}
            for name, inversion in methods.items():
                facts = (weights, __version__, group.rules[0].name, group.attack, group.count, inversion)
                noise[name], seconds[name] = _recover(model, group, inversion, scope, (name, facts))
                advance()
            if group.truth is not None:
                noise[PERFECT] = group.truth
            for rule in group.rules:
                correct: dict[str, list[bool]] = {}
                named: dict[str, list[str]] = {}
                panels: list[Matrix | Differences] = []
                for name in noise:
                    predicted = rule.decide(noise[name][: len(rule.actual)])
                    named[name] = predicted
                    correct[name] = [a == p for a, p in zip(rule.actual, predicted, strict=True)]
                    rows += [
                        {
                            "set": rule.name,
                            "attack": group.attack,
                            "method": name,
                            "image": i,
                            "actual": a,
                            "predicted": p,
                        }
                        for i, (a, p) in enumerate(zip(rule.actual, predicted, strict=True))
                    ]
                    none = NONE if NONE in rule.labels else ""
                    matrix = ConfusionMatrix.counted(rule.actual, predicted, labels=rule.labels, none=none)
                    spent = f"{seconds[name]:.2f}" if name in seconds else None
                    lines.append((rule.name, group.attack, name, matrix.accuracy, spent))
                    panels.append(Matrix(name, matrix.labels, matrix.counts, none))
                compared = MethodDifferences.counted(rule.actual, {name: named[name] for name in methods})
                panels.append(Differences("Pairs of methods", compared.methods, compared.tests, compared.count))
                figures.append(Figure(f"{rule.name}, {group.attack}", tuple(panels), _FIGURE_NOTE))
                tests += [(rule.name, group.attack, *line) for line in _triangle(correct, tuple(methods))]
    return Classified(rows, lines, tests, figures)


def _iterations(methods: dict[str, InversionOptions]) -> str:
    """Return how many iterations the published methods have."""
    counts = {options.settings.iterations for options in methods.values() if options.settings}
    return f"{' or '.join(map(str, sorted(counts)))} iterations"


def _triangle(correct: dict[str, list[bool]], methods: tuple[str, ...]) -> list[tuple[Cell, ...]]:
    """Return a line for each method but the first: its name, then its exact McNemar test against each earlier method."""
    lines: list[tuple[Cell, ...]] = []
    for i, method in enumerate(methods[1:], 1):
        tests = [mcnemar(correct[method], correct[other]) for other in methods[:i]]
        cells = [
            f"{test.only_first} : {test.only_second}, p {format_pvalue(float(np.log10(test.pvalue)))}"
            f"{' *' if test.pvalue <= _LEVEL else ''}"
            for test in tests
        ]
        lines.append((method, *cells, *[""] * (len(methods) - 1 - i)))
    return lines


def published_matrices() -> Figure:
    """Return the confusion matrices of the paper."""
    panels = [
        Matrix(f"{method}, {model}", ("1", "2", "3"), counts) for (model, method), counts in CLASSIFICATION.items()
    ]
    return Figure(
        "3 keys of the paper, off-centre disc, as published",
        tuple(panels),
        f"Published: {PAPER}, 100 images of each key, 100 iterations. Other models and images than above.",
    )


def pipeline(method: str, settings: Settings | None = None) -> InversionOptions:
    """Return a decoder inversion followed by `naive` noise inversion, since the published rules assume white noise."""
    return InversionOptions(method=method, settings=settings, noise_method="naive")


def _published(method: str, quick: bool) -> InversionOptions:
    settings = unstopped(DEFAULTS[method])
    return pipeline(method, replace(settings, iterations=2) if quick else settings)


def paper_groups(model: LatentModel, each: int, first: int) -> list[Group]:
    """Return images of the paper's three keys with its off-centre disc, and with a centred one."""
    import torch

    size = model.latent_shape[-1]
    names = ["1", "2", "3"]
    groups = []
    for centred in (False, True):
        noise = initial_noise(model.latent_shape, range(first, first + 3 * each))
        labels = [i % 3 for i in range(3 * each)]
        marked = torch.cat(
            [published_geometry.write(n[None], c, centred=centred) for n, c in zip(noise, labels, strict=True)]
        )

        def decide(noise_hat: torch.Tensor, centred: bool = centred) -> list[str]:
            found, _ = nearest_keys(
                published_geometry.read(noise_hat, centred=centred), published_geometry.patterns(size, centred=centred)
            )
            return [names[i] for i in found]

        title = f"3 keys of the paper, {'centred' if centred else 'off-centre'} disc"

        def by_angle(noise_hat: torch.Tensor, centred: bool = centred) -> list[str]:
            keys = published_geometry.patterns(size, centred=centred)
            cosines = published_geometry.read(noise_hat, centred=centred).real @ keys.T / np.linalg.norm(keys, axis=1)
            return [names[i] for i in cosines.argmax(axis=1)]

        actual = [names[c] for c in labels]
        rules = [Rule(title, actual, names, decide), Rule(f"{title}, by angle", actual, names, by_angle)]
        groups.append(Group(CLEAN, cache(partial(render_noise, model, marked)), len(marked), rules, marked))
    return groups


def _random_groups(model: LatentModel, scope: Scope, first: int) -> list[Group]:
    """Return images of 8 and of 64 random keys, as a closed set and as an open set with unmarked images."""
    import torch

    groups = []
    sizes = (8,) if scope.quick else (8, 64)
    for many in sizes:
        count = scope.count or (4 if scope.quick else 64)
        keys = [Key.generate(model.latent_shape, name=str(i + 1), seed=first + i) for i in range(many)]
        actual = [keys[i % many] for i in range(count)]
        noise = initial_noise(model.latent_shape, range(first + (1 << 20), first + (1 << 20) + count))
        marked = torch.cat([embed(n[None], k) for n, k in zip(noise, actual, strict=True)])
        unmarked = initial_noise(model.latent_shape, range(first + (2 << 20), first + (2 << 20) + max(1, count // 4)))

        @cache
        def images(marked: torch.Tensor = marked, unmarked: torch.Tensor = unmarked) -> list[Image.Image]:
            return [*render_noise(model, marked), *render_noise(model, unmarked)]

        def closed(noise_hat: torch.Tensor, keys: list[Key] = keys) -> list[str]:
            return [evidence[0].key for evidence in evidence_of(noise_hat, keys)]

        def opened(noise_hat: torch.Tensor, keys: list[Key] = keys) -> list[str]:
            limit = np.log10(DEFAULT_ALPHA)
            return [e[0].key if e[0].log10_adjusted <= limit else NONE for e in evidence_of(noise_hat, keys)]

        names, true = [key.name for key in keys], [key.name for key in actual]
        rules = [
            Rule(f"{many} random keys, closed set", true, names, closed),
            Rule(f"{many} random keys, open set", [*true, *[NONE] * len(unmarked)], [*names, NONE], opened),
        ]
        total = len(marked) + len(unmarked)
        groups += [Group(attack, images, total, rules) for attack in (CLEAN, "jpeg:quality=10")]
    return groups


def _recover(
    model: LatentModel, group: Group, inversion: InversionOptions, scope: Scope, question: tuple[str, object]
) -> tuple[torch.Tensor, float]:
    """Return the noise estimates of a group's images, and seconds per image of both inversions."""
    import torch

    def measure(part: range) -> dict[str, Any]:
        images = distorted(group.images()[part.start : part.stop], group.attack, part.start)
        pixels = torch.cat([to_tensor(image) for image in images])
        begun = time.perf_counter()
        noise = recover_noise(model, pixels, inversion)[0]
        return {"noise": noise.numpy(), "seconds": np.array(time.perf_counter() - begun)}

    name, facts = question
    parts = [
        cached(scope.folder, f"classification-{name}", (facts, part), partial(measure, part))
        for part in chunks(group.count, model)
    ]
    noise = torch.from_numpy(np.concatenate([part["noise"] for part in parts]))
    return noise, sum(float(part["seconds"]) for part in parts) / group.count


def _peaks(
    model: LatentModel, image: Image.Image, methods: dict[str, InversionOptions]
) -> tuple[tuple[Cell, ...], ...]:
    lines = []
    for name, inversion in methods.items():
        settings = inversion.settings or DEFAULTS[inversion.method]
        peak = peak_memory(model.name, to_tensor(image), inversion.method, settings, device=device_of(model))
        lines.append((name, f"{peak.tensors:.1f}", f"{peak.resident:.0f}"))
    return tuple(lines)
