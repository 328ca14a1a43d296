"""The classes of diffusers and transformers that a component of a pipeline may be of, as "library.Class"."""

from __future__ import annotations

from collections.abc import Iterable, Mapping


def _of(library: str, *names: str) -> tuple[str, ...]:
    return tuple(f"{library}.{name}" for name in names)


SCHEDULERS = _of(
    "diffusers",
    "DDIMScheduler",
    "DDPMScheduler",
    "DEISMultistepScheduler",
    "DPMSolverMultistepScheduler",
    "DPMSolverSDEScheduler",
    "DPMSolverSinglestepScheduler",
    "EDMDPMSolverMultistepScheduler",
    "EDMEulerScheduler",
    "EulerAncestralDiscreteScheduler",
    "EulerDiscreteScheduler",
    "FlowMatchEulerDiscreteScheduler",
    "FlowMatchHeunDiscreteScheduler",
    "HeunDiscreteScheduler",
    "IPNDMScheduler",
    "KDPM2AncestralDiscreteScheduler",
    "KDPM2DiscreteScheduler",
    "LCMScheduler",
    "LMSDiscreteScheduler",
    "PNDMScheduler",
    "SASolverScheduler",
    "TCDScheduler",
    "UniPCMultistepScheduler",
)
_TEXT_ENCODERS = _of(
    "transformers", "CLIPTextModel", "CLIPTextModelWithProjection", "T5EncoderModel", "UMT5EncoderModel"
)
_TOKENIZERS = _of("transformers", "CLIPTokenizer", "CLIPTokenizerFast", "T5Tokenizer", "T5TokenizerFast")
_KINDS = {
    **dict.fromkeys(("text_encoder", "text_encoder_2", "text_encoder_3"), _TEXT_ENCODERS),
    **dict.fromkeys(("tokenizer", "tokenizer_2", "tokenizer_3"), _TOKENIZERS),
    "image_encoder": _of("transformers", "CLIPVisionModelWithProjection", "SiglipVisionModel"),
    "feature_extractor": _of(
        "transformers",
        "CLIPFeatureExtractor",
        "CLIPImageProcessor",
        "CLIPImageProcessorFast",
        "CLIPImageProcessorPil",
        "SiglipImageProcessor",
        "SiglipImageProcessorFast",
        "SiglipImageProcessorPil",
    ),
    "motion_adapter": _of("diffusers", "MotionAdapter"),
    # The safety checker is a class of diffusers, which calls its own package by this name.
    "safety_checker": _of("stable_diffusion", "StableDiffusionSafetyChecker"),
}
_WITHOUT_WEIGHTS = ("scheduler", "tokenizer", "tokenizer_2", "tokenizer_3", "feature_extractor")


def allowed_components(
    network: str,
    networks: Iterable[str],
    autoencoders: Iterable[str],
    others: Iterable[str],
    kinds: Mapping[str, Iterable[str]],
) -> dict[str, tuple[str, ...]]:
    """Return the components that a pipeline may have, and for each the classes it may be of.

    Parameters
    ----------
    network : str
        Component that predicts at each step.
    networks, autoencoders : iterable of str
        Classes of diffusers that it and the autoencoder may be of.
    others : iterable of str
        Components beside these two and the scheduler.
    kinds : mapping
        Classes of transformers that such a component may be of; of the others, those that most families have.
    """
    return {
        network: _of("diffusers", *networks),
        "vae": _of("diffusers", *autoencoders),
        "scheduler": SCHEDULERS,
        **{name: _of("transformers", *kinds[name]) if name in kinds else _KINDS[name] for name in others},
    }


def has_weights(component: str) -> bool:
    """Return whether a component is a network."""
    return component not in _WITHOUT_WEIGHTS
