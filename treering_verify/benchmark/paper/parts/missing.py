"""What of the papers is not on the page, with the reason and what it would take."""

from __future__ import annotations

from treering_verify.benchmark.paper.parts.measured import Measured, reference
from treering_verify.benchmark.published_figures import INSTAFLOW, SD
from treering_verify.models import LatentModel, makes_videos
from treering_verify.report.findings import Cell, Part, Table


def measure(model: LatentModel) -> Measured:
    """List the rows, figures and settings of the papers that this run has not measured."""
    lines: list[tuple[Cell, ...]] = []
    if not makes_videos(model):
        lines.append(
            (
                "Table 1, LaVie: NMSE, seconds, memory",
                f"this run measured {model.name}, which makes images",
                "its weights, converted by `treering models convert`; `treering benchmark videos` has the methods' memory",
            )
        )
    for other, example in (
        (SD, "a Stable Diffusion folder"),
        (INSTAFLOW, "MODEL#rectified-flow or a RectifiedFlowPipeline folder"),
    ):
        if reference(model) != other or not _large(model):
            lines.append(
                (
                    f"Table 1 and classification, {other} itself",
                    f"this run measured {model.name}, of latents {' x '.join(map(str, model.latent_shape))}",
                    f"its weights: `treering benchmark paper --model DIR --output OUT` with {example}",
                )
            )
    lines += [
        (
            "Table 1: seconds and GB on RTX 3090 Ti, RTX 3090 and A100",
            "another machine: compare ratios",
            "the same cards",
        ),
        (
            "Table 1, gradient in 16 bits",
            "the paper has none: its gradients underflow",
            "",
        ),
        (
            "Videos of more than four frames on a card of 24 GB",
            "needs the card and LaVie",
            "`treering benchmark videos` has the memory by frames",
        ),
        (
            "Prompts: 100 of the paper, 1000 of MS-COCO for SFWMark",
            "not part of this toolkit; class names or no prompt instead",
            "images made with those prompts: `treering benchmark classification --images DIR`",
        ),
        (
            "Tree-Ring's table 1: rows DwtDct and RivaGAN",
            "marks of finished images, by other packages",
            "those packages",
        ),
        (
            "SFWMark: ZoDiac, BM3D, two neural codecs",
            "other packages and weights; non-local means, AVIF 25 and WebP 10 stand in",
            "those packages and weights",
        ),
    ]
    table = Table(
        "Not measured here",
        ("of the papers", "why not", "what it would take"),
        tuple(lines),
    )
    answer = f"{len(lines)} items of the papers are not measured by this run; each has its reason."
    return Measured(Part("Not measurable here", answer, (table,)), [], "")


def _large(model: LatentModel) -> bool:
    """Return whether latents have the size of the paper's models, 64 x 64 or more."""
    return min(model.latent_shape[1:]) >= 64
