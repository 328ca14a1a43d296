"""Patterns: ways to write a key into noise and to find it again. Each is a value of functions; `PATTERNS` names them.

    noise --write(numbers)--> noise      noise_hat --read--> readings --features--> --test(numbers)--> Evidence

Nothing between noise_hat and `test` sees a key's numbers, which is what makes each test exact (DESIGN 4.3). What the
patterns are, where they come from and what they cost: docs/patterns.md.
"""

from __future__ import annotations

from treering_verify.watermark.patterns.annulus import MIXED_RINGS, RANDOM, RINGS
from treering_verify.watermark.patterns.base import Law, Layout, Pattern, Place
from treering_verify.watermark.patterns.gaussian_shading import GAUSSIAN_SHADING
from treering_verify.watermark.patterns.pseudorandom_code import PSEUDORANDOM_CODE
from treering_verify.watermark.patterns.sfwmark import CENTRE_RINGS, CENTRE_SIGNS

__all__ = ["PATTERNS", "Law", "Layout", "Pattern", "Place"]

PATTERNS: dict[str, Pattern] = {
    "rings": RINGS,
    "random": RANDOM,
    "mixed-rings": MIXED_RINGS,
    "centre-rings": CENTRE_RINGS,
    "centre-signs": CENTRE_SIGNS,
    "gaussian-shading": GAUSSIAN_SHADING,
    "pseudorandom-code": PSEUDORANDOM_CODE,
}
