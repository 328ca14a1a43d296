"""Learned parts of the inversion, trained for one model.

`refiner` corrects a latent, for learned steps of decoder inversion. `estimator` estimates the noise from points of the noise
inversion; a small one is the model's screen. `blocks` holds the layers that both use.
"""
