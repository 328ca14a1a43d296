"""Generation: key + noise -> marked noise -> latent -> image.

`generator` makes images and videos with a key in their noise, and marked noise for a diffusers script; `callback` writes a
key from within a pipeline's loop, where a script cannot pass noise in; `sidecar` describes an image beside it; `editing`
repaints an image inside a mask; `seeds` keeps the images of benchmarks, fits and calibrations apart.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
