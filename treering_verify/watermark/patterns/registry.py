"""Patterns by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from treering_verify.plugins import Registry

if TYPE_CHECKING:
    from treering_verify.watermark.patterns.base import Pattern

_HERE = "treering_verify.watermark.patterns"


def _is_pattern(value: Any) -> bool:
    from treering_verify.watermark.patterns.base import Pattern

    return isinstance(value, Pattern)


PATTERNS: Registry[Pattern] = Registry(
    "pattern",
    "treering_verify.patterns",
    {
        "rings": f"{_HERE}.annulus:RINGS",
        "random": f"{_HERE}.annulus:RANDOM",
        "mixed-rings": f"{_HERE}.annulus:MIXED_RINGS",
        "centre-rings": f"{_HERE}.sfwmark:CENTRE_RINGS",
        "centre-signs": f"{_HERE}.sfwmark:CENTRE_SIGNS",
        "gaussian-shading": f"{_HERE}.gaussian_shading:GAUSSIAN_SHADING",
        "pseudorandom-code": f"{_HERE}.pseudorandom_code:PSEUDORANDOM_CODE",
    },
    fits=_is_pattern,
)
"""Patterns by name; users add their own (docs/extending.md)."""
