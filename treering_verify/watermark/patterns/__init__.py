"""Patterns: ways to write a key into noise and to read it again.

    noise --write(numbers)--> noise      noise_hat --read--> readings --features--> --test(numbers)--> Evidence

Only `write` and `test` get a key's numbers, which makes each test exact (docs/exact-test.md). docs/patterns.md says what the
patterns are, where they come from and what they cost.

`base` defines a pattern, and `registry` names them all (`PATTERNS`). `annulus` holds the patterns on rings of the noise's
spectrum, and `sfwmark` those in the spectrum of its centre. `sign_embedding` is what patterns of signs on all values share:
`gaussian_shading` and `pseudorandom_code`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
