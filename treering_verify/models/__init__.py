"""Latent diffusion models behind one protocol: the embedded one, and pipelines of diffusers that users have."""

from treering_verify.models.autoencoder import AUTOENCODERS, lowered
from treering_verify.models.diffusers.adapter import canonical_noise, from_pipeline, native_noise, pipeline_shape
from treering_verify.models.diffusers.families import FAMILIES
from treering_verify.models.diffusers.loading import load_pipeline
from treering_verify.models.loading import EMBEDDED, check_source, class_names, latent_shape, load_model, videos_of
from treering_verify.models.protocol import (
    Condition,
    LatentModel,
    MovableModel,
    Timestep,
    VideoModel,
    device_of,
    images_only,
    makes_videos,
    movable,
)
from treering_verify.models.source import DEVICES, DTYPES, ModelSource

__all__ = [
    "AUTOENCODERS",
    "DEVICES",
    "DTYPES",
    "EMBEDDED",
    "FAMILIES",
    "Condition",
    "LatentModel",
    "ModelSource",
    "MovableModel",
    "Timestep",
    "VideoModel",
    "canonical_noise",
    "check_source",
    "class_names",
    "device_of",
    "from_pipeline",
    "images_only",
    "latent_shape",
    "load_model",
    "load_pipeline",
    "lowered",
    "makes_videos",
    "movable",
    "native_noise",
    "pipeline_shape",
    "videos_of",
]
