"""How long benchmarks take, and how many images those that the documentation shows are run with."""

from __future__ import annotations

from dataclasses import dataclass

MINUTES: dict[str, tuple[float | None, float | None]] = {
    "paper": (4.5, None),
    "inversion": (3, None),
    "ablation": (1.6, None),
    "baseline": (None, 1.6),
    "cocoercivity": (0.9, None),
    "classification": (0.9, None),
    "editing": (1.3, None),
    "pareto": (1.6, None),
    "heldout": (1.2, None),
    "noise": (0.4, None),
    "readout": (0.8, None),
    "detection": (1.7, None),
    "uniformity": (0.4, 12),
    "chance": (0.2, 1.6),
    "identification": (0.4, None),
    "agreement": (1.2, 28),
    "shared": (0.4, 76),
    "search-parts": (None, None),
    "coverage": (0.1, 125),
    "peers": (3.3, 48),
    "robustness": (None, 360),
    "quality": (1.2, 21),
    "throughput": (1.1, None),
    "survival": (1.0, 93),
    "search-uniformity": (0.1, None),
    "over-exposure": (0.7, 14),
    "classifier": (1.4, None),
    "patterns": (1.5, None),
    "annulus-pareto": (0.6, None),
    "forgery": (1.2, None),
    "screening": (0.6, None),
    "precision": (1.0, None),
    "sizes": (0.3, None),
}
"""Minutes of one processor that `--quick` and a full run take on `landscape`; None where that was not measured.

Of `--quick` they are the `processor_seconds` of a run with an empty cache, with all processes that it starts, on 2026-11-30
(one thread, AVX-512); of `paper`, on 2026-12-01, with AVX2 and eight processes beside it on two cores. `quality` was
scaled from four of its seven variants of 20 images, `peers` from 12 images with two more schemes. Of the full
runs these were scaled from stored results of fewer images: `agreement`, `uniformity`, `shared`, `coverage`, `peers`,
`survival` and `over-exposure`, the quick form of which was scaled too.
"""


@dataclass(frozen=True)
class Shown:
    """How a benchmark is run whose tables README.md and docs/ include.

    Attributes
    ----------
    count : int or None
        Images; None for the benchmark's own number.
    minutes : float
        Minutes of one processor.
    quick : bool
        Whether it is the quick form.
    """

    count: int | None
    minutes: float
    quick: bool = False


DOCS: dict[str, Shown] = {
    "paper": Shown(6, 22),
    "classification": Shown(12, 8, quick=True),
    "forgery": Shown(12, 4.0, quick=True),
    "baseline": Shown(None, 1.6),
    "agreement": Shown(112, 24),
    "shared": Shown(16, 45),
    "search-uniformity": Shown(None, 58),
    "peers": Shown(12, 6),
    "survival": Shown(6, 16),
    "coverage": Shown(20, 26),
    "chance": Shown(None, 1.7),
    "inversion": Shown(None, 3.0, quick=True),
    "uniformity": Shown(100, 1.2),
    "patterns": Shown(None, 1.6, quick=True),
    "precision": Shown(None, 1.0, quick=True),
    "heldout": Shown(None, 1.3, quick=True),
    "noise": Shown(None, 0.5, quick=True),
    "identification": Shown(4, 1.7),
    "quality": Shown(None, 1.3, quick=True),
    "over-exposure": Shown(160, 7),
}
"""The benchmarks whose tables README.md and docs/ include (`--preset docs`)."""
