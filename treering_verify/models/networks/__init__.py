"""Networks in plain torch, and how networks are read.

`autoencoder_kl` and `unet` are those of the embedded model, built of `unet_blocks` as their `config` says; every one is a
`network`, which loads and saves itself. `refiner` and `estimator` are learned parts of an inversion, built of `blocks`: the
first corrects a latent, for learned steps of decoder inversion; the second estimates the noise from points of the noise
inversion, and a small one is the model's screen. `correction` adds to what fitted filters estimate. `reading` reads networks
of other folders by diffusers, and `tiny_autoencoder` those that it does not know.
"""
