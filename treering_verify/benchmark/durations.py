"""How long benchmarks take, and how many images those that the documentation shows are run with."""

from __future__ import annotations

MINUTES: dict[str, tuple[float | None, float | None]] = {"robustness": (None, 360)}
"""Minutes of one processor (AVX-512, `landscape`) that `--quick` and a full run take; None where that was not measured."""

DOCS: dict[str, tuple[int | None, float]] = {}
"""Images, and minutes of one processor, of each benchmark whose tables README.md and docs/ include (`--preset docs`)."""
