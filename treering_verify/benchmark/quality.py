"""What a mark costs the picture: difference from its unmarked twin, diversity within a key, distance of patches."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

from treering_verify.benchmark.scope import SEEDS, Scope
from treering_verify.findings import Findings, Table
from treering_verify.generation import generate
from treering_verify.images import to_tensor
from treering_verify.key import Key
from treering_verify.models import LatentModel

if TYPE_CHECKING:
    import torch

# Pattern and annulus; the last two hold the lowest frequencies, which the defaults leave alone.
_VARIANTS = (("random", 4, 9), ("random", 4, 12), ("rings", 3, 12), ("random", 1, 6), ("rings", 1, 8))


def quality(model: LatentModel, scope: Scope) -> Findings:
    """Compare images of one key with the unmarked images of the same seeds, for several patterns and annuli.

    Diversity is the mean distance between low-passed images (16 x 16 pixel means) of one class under one key; the distance
    between marked and unmarked images is sliced Wasserstein on 7 x 7 patches, to unmarked images of other seeds.
    """
    import torch

    from treering_verify.models.landscape.measure import sliced_wasserstein

    count, start = scope.images(20, 200), SEEDS["quality"]

    def render(key: Key | None, first: int) -> torch.Tensor:
        seeds = range(start + first, start + first + count)
        return torch.cat([to_tensor(r.image) for r in generate(model, key, seeds=seeds, steps=25)])

    def diversity(images: torch.Tensor) -> float:
        low = torch.nn.functional.avg_pool2d(images, 16).flatten(1)
        classes = max(1, len(model.classes))
        return statistics.fmean(float(torch.pdist(low[c::classes]).mean()) for c in range(classes))

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
            paired = float((images - twins).pow(2).mean(dim=(1, 2, 3)).sqrt().mean()) * 127.5
            row = {
                "variant": name,
                "paired_rms": paired,
                "diversity": diversity(images),
                "distance": sliced_wasserstein(images, others),
            }
            rows.append(row)
            lines.append((name, f"{paired:.1f}", f"{row['diversity']:.2f}", f"{row['distance']:.4f}"))
            advance()
    table = Table(
        "Pictures of one key against unmarked ones",
        ("key", "difference from twin (grey levels, rms)", "diversity", "patch distance to other unmarked"),
        tuple(lines),
        "The line of the unmarked twins is the floor.",
    )
    return Findings(
        "quality",
        "What does a mark cost the picture? Marked images against the unmarked images of the same seeds.",
        tuple(rows),
        (table,),
        seeds=f"{start} onwards",
        count=f"{count} per line",
    )
