"""How long benchmarks take, and how many images those that the documentation shows are run with."""

from __future__ import annotations

MINUTES: dict[str, tuple[float | None, float | None]] = {
    "inversion": (2.9, None),
    "baseline": (0.5, None),
    "quality": (1.2, 21),
    "robustness": (None, 360),
}
"""Minutes of one processor (AVX-512, `landscape`) that `--quick` and a full run take; None where that was not measured.

`inversion` (two images; it now takes four) and `baseline` on 2026-11-30 beside other work; `quality` scaled from four of
its seven variants of 20 images.
"""

DOCS: dict[str, tuple[int | None, float]] = {}
"""Images, and minutes of one processor, of each benchmark whose tables README.md and docs/ include (`--preset docs`)."""
