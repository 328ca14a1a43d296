"""Detection: image -> noise estimate -> evidence -> verdict.

`judge` is the one engine: it reads (`reading`), inverts, tests and decides (`decision`) for everything else. What differs is
the test that it puts a noise estimate to: of a few keys (`verification`), of all keys of an index (`identification`), of any
message under a key (`messages`), of a calibrated detector (`calibration`), and of fresh keys, by which a model tests itself
(`self_test`). `recheck` judges the files of records again.
`evidence` computes and corrects p-values, `animations` those of frames. `search` tries what may have been done to
an image. `two_pass` inverts a batch in one pass, or in two with a `screening` pass first. `exhibits` keeps what reports show
of detected images.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
