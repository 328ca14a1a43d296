"""Pareto front of evidence and image quality over pattern, annulus and channels of a key."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from treering_detectors import Rate

from treering_verify.benchmark.catalogue import BENCHMARKS
from treering_verify.benchmark.harness.cache import cached
from treering_verify.benchmark.harness.image_quality import COST_HEADER, COST_NOTE, Cost, cost, keys_among, rendered
from treering_verify.benchmark.harness.keyed_images import evidence_of_images
from treering_verify.benchmark.harness.scope import SEEDS, Scope, distorted
from treering_verify.errors import UsageError
from treering_verify.media.conversion import to_pil
from treering_verify.models import LatentModel
from treering_verify.models.weights import fingerprint
from treering_verify.report import format_pvalue
from treering_verify.report.findings import Cell, Cloud, Figure, Findings, Table
from treering_verify.version import __version__
from treering_verify.watermark.keys.key import Family, Key

if TYPE_CHECKING:
    import torch

_ATTACKS = ("jpeg:quality=25", "crop_scale:share=0.9", "centre_crop:share=0.75")
_ALPHA = 1e-6
_FIRST = SEEDS["annulus-pareto"]
_INNER, _OUTER = (1, 2, 3, 4, 6), (6, 9, 12, 15)
_CENTRE_OUTER = (5, 7, 10)


def measure(model: LatentModel, scope: Scope) -> Findings:
    """Mark the same seeds with keys of every variant; judge attacked images, and compare images with unmarked ones."""
    count = scope.images(4, 48)
    attacks = _ATTACKS[:1] if scope.quick else _ATTACKS
    families = variants(model.latent_shape, quick=scope.quick)
    seeds, others = (range(_FIRST + place, _FIRST + place + count) for place in (0, 1 << 20))
    unmarked = cache(lambda: (rendered(model, (), seeds), rendered(model, (), others)[0]))
    weights = fingerprint(model)
    rows = scope.rows

    def measured(family: Family | None) -> dict[str, NDArray[Any]]:
        facts = (weights, __version__, seeds, keys_among(count, len(model.classes)), attacks, family)
        name = f"annulus-pareto-{family.pattern if family else 'unmarked'}"
        return cached(scope.folder, name, facts, lambda: _measure(model, family, seeds, attacks, *unmarked()))

    scope.help_with("Variants", lambda: [partial(measured, family) for family in (None, *families)])
    with scope.progress("Variants", len(families) + 1) as advance:
        for family in (None, *families):
            rows.append(_row(family, measured(family), attacks))
            advance()
    best = non_dominated([(row["log10_pvalue"], -row["diversity"], row["distance"]) for row in rows[1:]])
    for row, chosen in zip(rows, [False, *best], strict=True):
        row["pareto_optimal"] = chosen
    return Findings(
        "annulus-pareto",
        BENCHMARKS["annulus-pareto"].question,
        tuple(rows),
        (_table(rows, attacks, count),),
        (_figure(rows[1:]),),
        seeds=f"{_FIRST} onwards; {keys_among(count, len(model.classes))} keys per variant",
        count=f"{count} per variant and attack",
    )


def variants(latent_shape: tuple[int, int, int], *, quick: bool) -> tuple[Family, ...]:
    """Return key families: annuli over all channels, and the default annulus over fewer; what does not fit is left out."""
    channels = tuple(range(latent_shape[0]))
    wanted: list[tuple[str, tuple[int, ...], int | None, int | None]]
    if quick:
        wanted = [("random", channels, None, None), ("rings", channels, None, None)]
    else:
        wanted = [
            *(
                (name, channels, inner, outer)
                for name in ("random", "rings", "mixed-rings")
                for inner in _INNER
                for outer in _OUTER
                if inner < outer
            ),
            *((name, channels, 3, outer) for name in ("centre-rings", "centre-signs") for outer in _CENTRE_OUTER),
            *((name, channels, None, None) for name in ("gaussian-shading", "pseudorandom-code")),
            *(
                (name, channels[:many], None, None)
                for name in ("random", "rings", "centre-signs")
                for many in range(1, len(channels))
            ),
        ]
    found: dict[Family, None] = {}
    for name, some, inner, outer in wanted:
        try:
            family = Family.choose(latent_shape, pattern=name, channels=some, inner_radius=inner, outer_radius=outer)
        except UsageError:
            continue  # an annulus that reaches beyond the noise's spectrum
        found[family] = None
    return tuple(found)


def non_dominated(points: Sequence[tuple[float, ...]]) -> list[bool]:
    """Return for each point whether no other is at least as small in all coordinates and smaller in one; False for NaN."""
    array = np.asarray(points, dtype=np.float64).reshape(len(points), -1)
    answers = []
    for point in array:
        dominated = ((array <= point).all(axis=1) & (array < point).any(axis=1)).any()
        answers.append(bool(not dominated and not np.isnan(point).any()))
    return answers


def _measure(
    model: LatentModel,
    family: Family | None,
    seeds: range,
    attacks: tuple[str, ...],
    twins: tuple[torch.Tensor, list[object]],
    others: torch.Tensor,
) -> dict[str, NDArray[Any]]:
    """Return log10 p of each image by attack, and the cost of the variant; the cost alone for unmarked images."""
    images, labels = twins
    found: dict[str, NDArray[Any]] = {}
    if family:
        shape = (family.pattern, family.channels, family.inner_radius, family.outer_radius)
        many = keys_among(len(seeds), len(model.classes))
        keys = [_key(model, shape, _FIRST + k) for k in range(many)]
        images, labels = rendered(model, keys, seeds)
        share = -(-len(seeds) // many)
        own = [keys[i // share] for i in range(len(seeds))]
        rendered_images = [to_pil(image) for image in images]
        for attack in attacks:
            found[attack] = np.array(
                [log10 for log10, _ in evidence_of_images(model, distorted(rendered_images, attack), own)]
            )
    change = cost(images, twins[0], others, labels)
    return {**found, "cost": np.array([change.paired, change.diversity, change.distance, change.symmetry])}


def _key(model: LatentModel, shape: tuple[str, tuple[int, ...], int, int], seed: int) -> Key:
    pattern, channels, inner, outer = shape
    return Key.generate(
        model.latent_shape, pattern=pattern, channels=channels, inner_radius=inner, outer_radius=outer, seed=seed
    )


def _row(family: Family | None, found: dict[str, NDArray[Any]], attacks: tuple[str, ...]) -> dict[str, Any]:
    change = Cost(*map(float, found["cost"]))
    judged = np.concatenate([found[attack] for attack in attacks]) if family else np.empty(0)
    medians = [float(np.median(found[attack])) for attack in attacks] if family else []
    return {
        "pattern": family.pattern if family else "unmarked",
        "channels": len(family.channels) if family else 0,
        "inner_radius": family.inner_radius if family else 0,
        "outer_radius": family.outer_radius if family else 0,
        "log10_pvalue": float(np.mean(medians)) if family else 0.0,
        "detected": int((judged <= np.log10(_ALPHA)).sum()),
        "judged": len(judged),
        "paired_rms": change.paired,
        "diversity": change.diversity,
        "distance": change.distance,
        "point_symmetry": change.symmetry,
    }


def _table(rows: Sequence[dict[str, Any]], attacks: Sequence[str], count: int) -> Table:
    lines: list[tuple[Cell, ...]] = []
    for row in rows:
        change = Cost(row["paired_rms"], row["diversity"], row["distance"], row["point_symmetry"])
        marked = row["judged"] > 0
        radii = f"{row['inner_radius']}-{row['outer_radius']}" if row["outer_radius"] else ""
        lines.append(
            (
                row["pattern"],
                radii,
                row["channels"] if marked else None,
                format_pvalue(row["log10_pvalue"]) if marked else "",
                Rate(row["detected"], row["judged"]) if marked else None,
                *change.cells(),
                "yes" if row["pareto_optimal"] else "",
            )
        )
    return Table(
        "Evidence and cost to the image",
        ("pattern", "radii", "channels", "median p", "p <= 1e-6", *COST_HEADER, "Pareto-optimal"),
        tuple(lines),
        f"After {', '.join(attacks)}: geometric mean of the median p, and the rate over all attacks, {count} images each, "
        "with 95 % Clopper-Pearson intervals (the images are the same under each attack). Pareto-optimal: no other variant "
        f"is at least as good in evidence, diversity and patch distance and better in one of them. {COST_NOTE}",
    )


def _figure(rows: Sequence[dict[str, Any]]) -> Figure:
    panels = tuple(
        Cloud(
            title,
            label,
            "mean of median log10 p",
            tuple(row[field] for row in some),
            tuple(row["log10_pvalue"] for row in some),
            tuple(row["distance"] for row in some),
            "patch distance",
        )
        for title, field, label, some in (
            ("All variants", "diversity", "diversity within a key", rows),
            (
                "Pareto-optimal variants",
                "diversity",
                "diversity within a key",
                [row for row in rows if row["pareto_optimal"]],
            ),
        )
    )
    return Figure(
        "Evidence against diversity", panels, "Better variants lie lower and further right, and have a darker colour."
    )
