"""Inversion: image x -> latent z_0 (decoder inversion) -> noise estimate z_T (noise inversion), without the prompt.

`recovery` runs both halves as its `InversionOptions` say and leaves out occluded areas; `decoder` holds the methods from
image to latent, and `noise` those from latent to noise. `brightness` tells by which factor an image was brightened, and
`over_exposure` completes what became white. Nothing here knows a key.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
