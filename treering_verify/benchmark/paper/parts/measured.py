"""What a part of the page returns, and the words that the parts share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from treering_verify.benchmark.published_figures import INSTAFLOW, LAVIE, SD
from treering_verify.models import LatentModel, makes_videos
from treering_verify.report.findings import Part


@dataclass(frozen=True)
class Measured:
    """A part of the page, its rows for the Parquet file, and the image count that it is of."""

    part: Part
    rows: list[dict[str, Any]]
    count: str


def reference(model: LatentModel) -> str:
    """Return the model of the paper whose figures stand beside those of a model: of the same kind, if any is."""
    if makes_videos(model):
        return LAVIE
    return INSTAFLOW if model.timesteps(1)[0].straight else SD


def listed(words: list[str]) -> str:
    """Return words as a list in a sentence: "a, b and c"."""
    return " and ".join(part for part in (", ".join(words[:-1]), *words[-1:]) if part)
