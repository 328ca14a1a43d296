"""Detection: noise estimate -> evidence -> verdict.

`judge` reads, inverts, tests and decides; every verdict is made there. What differs is the test of a noise estimate:
`verification` tests a few keys, `identification` the keys of an index, `messages` any message under a key, and `calibration`
holds detectors that need a calibration. `evidence` computes and corrects p-values, `search` looks for what was done to an
image, `screening` and `two_pass` let a cheap pass decide most images, and `self_test` measures what a model can show.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
