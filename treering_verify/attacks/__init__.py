"""Attacks: distortions of an image between its generation and its verification.

* `ATTACKS` need the image alone: functions ``(image, *, parameters, seed=0) -> image`` of an RGB image.
* `MODEL_ATTACKS` need a latent diffusion model: ``(images, model, *, parameters, seeds) -> images``, on batches.
* `Attack` is one of either with its parameters, as text ``jpeg:quality=25``; `Chain` is several, with ``+`` between.
* `ATTACKS` and `MODEL_ATTACKS` are registries, in `tables`: users add their own (docs/extending.md).
* `GRIDS` lists strengths of each, until detection can be expected to fail.

`appearance`, `compression`, `covering`, `geometry` and `screenshots` hold the attacks on the image, `regeneration` those
with a model, `averaging` and `imprinting` removal and forgery by means of a key's marked images. `tables` names all attacks
with the ranges of their parameters, `notation` reads and writes their text, `grids` holds the strengths, and `copies` writes
attacked files. Every attack preserves size and mode, and compression goes through the real codec's bytes. Randomness comes
from the seed alone.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
