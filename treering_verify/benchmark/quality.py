"""How much a mark changes the image, by pattern and annulus: the measures of `cost` on images of one key."""

from __future__ import annotations

from typing import TYPE_CHECKING

from treering_verify.benchmark.catalogue import BENCHMARKS
from treering_verify.benchmark.harness.image_quality import COST_HEADER, COST_NOTE, cost
from treering_verify.benchmark.harness.scope import SEEDS, Scope
from treering_verify.generation.generator import generate
from treering_verify.media.conversion import to_tensor
from treering_verify.models import LatentModel
from treering_verify.report.findings import Findings, Table
from treering_verify.watermark.keys.key import Key

if TYPE_CHECKING:
    import torch

# Pattern and annulus; the last two hold the lowest frequencies, which the defaults leave alone.
_VARIANTS = (("random", 4, 9), ("random", 4, 12), ("rings", 3, 12), ("random", 1, 6), ("rings", 1, 8))


def measure(model: LatentModel, scope: Scope) -> Findings:
    """Compare images of one key with the unmarked images of the same seeds, for several patterns and annuli; see `cost`."""
    import torch

    count, start = scope.images(12, 200), SEEDS["quality"]
    classes = max(1, len(model.classes))

    def render(key: Key | None, first: int) -> torch.Tensor:
        seeds = range(start + first, start + first + count)
        return torch.cat([to_tensor(r.image) for r in generate(model, key, seeds=seeds, steps=25)])

    variants: list[tuple[str, Key | None]] = [("unmarked", None)]
    for pattern, inner, outer in _VARIANTS:
        made = Key.generate(model.latent_shape, pattern=pattern, inner_radius=inner, outer_radius=outer, seed=start)
        variants.append((f"{pattern} {made.inner_radius}-{made.outer_radius}", made))
    rows, lines = [], []
    with scope.progress("Variants", len(variants) + 1) as advance:
        twins, others = render(None, 0), render(None, count)
        advance()
        for name, key in variants:
            images = render(key, 0) if key else twins
            found = cost(images, twins, others, [i % classes for i in range(count)])
            rows.append(
                {
                    "variant": name,
                    "paired_rms": found.paired,
                    "diversity": found.diversity,
                    "distance": found.distance,
                    "point_symmetry": found.symmetry,
                }
            )
            lines.append((name, *found.cells()))
            advance()
    table = Table(
        "Images of one key compared with unmarked images",
        ("key", *COST_HEADER),
        tuple(lines),
        COST_NOTE,
    )
    return Findings(
        "quality",
        BENCHMARKS["quality"].question,
        tuple(rows),
        (table,),
        seeds=f"{start} onwards",
        count=f"{count} per line",
    )
