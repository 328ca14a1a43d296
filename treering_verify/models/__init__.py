"""Latent diffusion models behind one protocol: the embedded one, and pipelines of diffusers that users have."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
