"""Distortions of an image: what happens to images between their maker and whoever verifies them.

* `ATTACKS` look at the image alone: functions ``(image, *, parameters, seed=0) -> image`` of an RGB image.
* `MODEL_ATTACKS` need a latent diffusion model: ``(images, model, *, parameters, seeds) -> images``, on batches.
* `Attack` names one of either with its parameters, as text ``jpeg:quality=25``; `Chain` several, with ``+`` between.
* `ATTACKS` and `MODEL_ATTACKS` are registries, in `tables`: users add their own (docs/extending.md).
* `GRIDS` lists strengths of each, until detection can be expected to fail.
* The modules `averaging` and `imprinting` hold attacks that need marked images of a key: removal and forgery.

Every attack keeps size and mode. Compression goes through the real codec's bytes. Randomness enters through the seed alone.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
