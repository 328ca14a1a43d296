"""Latent diffusion models behind one protocol: the embedded model, and pipelines of diffusers.

`protocol` says what the package asks of a model, and every package above uses that alone. `source` describes a model by its
name and options, and `loading` finds and loads it, after `checks` of its folder: a `class_conditional` model such as the
embedded `landscape`, which `class_conditional_folder` reads, with `networks` and the grid of `ddim`; or a pipeline of
`diffusers`; or an autoencoder without a diffusion network, `autoencoder_alone`. `autoencoder` encodes and decodes, `tiling`
does so in tiles, and `sampling` runs the ODE from noise to latent. An `inverter` holds the filters that were fitted to a
model, a `filter_bank` for each step, chosen by `attack_statistics`, and a `restorer` the networks for over-exposed
images. `precision` and `compiling` say how networks are
computed. `weights` identifies a model by a digest, `provenance` tells records of it, and `profile` holds the results of its
self-test.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
