"""treering-verify: mark the noise of latent diffusion models, and verify later whether an image came out of them.

`Detector` verifies, identifies, decodes and audits. `Key` makes keys, `generate`, `watermarked_noise` and
`WatermarkCallback` mark images. The rest is in the subpackages: `watermark`, `models`, `generation`, `inversion`,
`detection`, `attacks`, `audit`, `evaluation` and `errors`. Names are imported when they are first used: `__init__.pyi` lists
them (SPEC 1).
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
