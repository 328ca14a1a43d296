"""Distortions of an image: what happens to images between their maker and whoever verifies them.

* `ATTACKS` look at the image alone: functions ``(image, *, parameters, seed=0) -> image`` of an RGB image.
* `MODEL_ATTACKS` need a latent diffusion model: ``(images, model, *, parameters, seeds) -> images``, on batches.
* `Attack` names one of either with its parameters, as text ``jpeg:quality=25``; `Chain` several, with ``+`` between.
* `GRIDS` lists strengths of each, until detection can be expected to fail.
* The modules `averaging` and `imprinting` hold attacks that need marked images of a key: removal and forgery.

Every attack keeps size and mode. Compression goes through the real codec's bytes. Randomness enters through the seed alone.
"""

from treering_verify.attacks.appearance import blur, brightness, colour_jitter, contrast, noise, quantise
from treering_verify.attacks.compression import avif, jpeg, webp
from treering_verify.attacks.covering import mask, overlay
from treering_verify.attacks.geometry import (
    centre_crop,
    crop_scale,
    flip,
    random_crop,
    random_crop_scale,
    resize,
    rotate,
)
from treering_verify.attacks.grids import GRIDS
from treering_verify.attacks.notation import Attack, Chain, Distortion, parse
from treering_verify.attacks.regeneration import adversarial, regenerate_diffusion, regenerate_vae
from treering_verify.attacks.screenshots import screenshot
from treering_verify.attacks.tables import ATTACKS, MODEL_ATTACKS, RANGES, summary, usage

__all__ = [
    "ATTACKS",
    "GRIDS",
    "MODEL_ATTACKS",
    "RANGES",
    "Attack",
    "Chain",
    "Distortion",
    "adversarial",
    "avif",
    "blur",
    "brightness",
    "centre_crop",
    "colour_jitter",
    "contrast",
    "crop_scale",
    "flip",
    "jpeg",
    "mask",
    "noise",
    "overlay",
    "parse",
    "quantise",
    "random_crop",
    "random_crop_scale",
    "regenerate_diffusion",
    "regenerate_vae",
    "resize",
    "rotate",
    "screenshot",
    "summary",
    "usage",
    "webp",
]
