"""Latent diffusion models behind one protocol: the embedded one and local folders in the diffusers layout."""

from treering_verify.models.loading import EMBEDDED, latent_shape, load_model
from treering_verify.models.protocol import Condition, LatentModel, Timestep

__all__ = ["EMBEDDED", "Condition", "LatentModel", "Timestep", "latent_shape", "load_model"]
