"""Patterns: ways to write a key into noise and to read it again. `PATTERNS` maps their names to `Pattern` objects.

    noise --write(numbers)--> noise      noise_hat --read--> readings --features--> --test(numbers)--> Evidence

Only `write` and `test` get a key's numbers, which makes each test exact (docs/exact-test.md). docs/patterns.md says what the
patterns are, where they come from and what they cost.

`base` defines a pattern. `annulus` holds the patterns on rings of the noise's spectrum, and `sfwmark` those in the spectrum
of its centre. `sign_embedding` is what patterns of signs on all values share: `gaussian_shading` and `pseudorandom_code`.
"""

from __future__ import annotations

from treering_verify.watermark.patterns.annulus import MIXED_RINGS, RANDOM, RINGS
from treering_verify.watermark.patterns.base import Distribution, Layout, Pattern, Place
from treering_verify.watermark.patterns.gaussian_shading import GAUSSIAN_SHADING
from treering_verify.watermark.patterns.pseudorandom_code import PSEUDORANDOM_CODE
from treering_verify.watermark.patterns.sfwmark import CENTRE_RINGS, CENTRE_SIGNS

__all__ = ["PATTERNS", "Distribution", "Layout", "Pattern", "Place"]

PATTERNS: dict[str, Pattern] = {
    "rings": RINGS,
    "random": RANDOM,
    "mixed-rings": MIXED_RINGS,
    "centre-rings": CENTRE_RINGS,
    "centre-signs": CENTRE_SIGNS,
    "gaussian-shading": GAUSSIAN_SHADING,
    "pseudorandom-code": PSEUDORANDOM_CODE,
}
