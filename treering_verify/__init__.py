"""treering-verify: mark the noise of latent diffusion models, and verify later whether an image came out of them.

`verify` looks for keys in an image. `Detector` (in `detector`) verifies, identifies, decodes and audits. `Key` makes keys,
`generate`, `watermarked_noise` and `WatermarkCallback` mark images. The rest is in the subpackages. `watermark` has keys and
patterns, `models` latent diffusion models, `media` image and video files. `generation` makes images, `attacks` distorts
them, `inversion` estimates their noise, `training` fits the inversion to a model. `detection` gives verdicts, `audit` those
of many files, `report` writes them down, `evaluation` draws confusion matrices, `benchmark` measures all of it, and `cli` is
the command line. `plugins` keeps what users add, `results` holds what functions return, `errors` what they raise, `version`
the version, and `files` writes safely. Names are imported when they are first used: `__init__.pyi` lists them (SPEC 1).
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
