"""Keys and patterns: write a key into initial noise, and read it from a noise estimate.

`spectrum` is the Fourier transform and its independent half. `key_derivation` turns a secret into a key's numbers. `keys`
holds keys, what they may share, indexes of many keys, and their files. `patterns` holds the ways to write a key. `embedding`
is what callers use: `embed` writes a key into noise, `extract` reads coefficients from a noise estimate, `features` prepares
them and `key_evidence` tests one key.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
