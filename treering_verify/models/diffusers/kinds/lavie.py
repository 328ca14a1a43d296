"""LaVie, which makes videos: Stable Diffusion's U-Net with attention over time (arXiv 2309.15103)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from treering_verify.models.diffusers.family import PipelineFamily, class_of_diffusers
from treering_verify.models.diffusers.unet import condition_sd
from treering_verify.models.diffusers.video import FRAMEWISE, fold, unfold
from treering_verify.models.protocol import Timestep

if TYPE_CHECKING:
    import torch

    Given = dict[str, torch.Tensor]

RELEASED = "VideoGenPipeline"


def class_of(name: str) -> Any:
    """Return a pipeline's class by its name: diffusers' own, or this package's for the one that diffusers lacks."""
    if name != RELEASED:
        return class_of_diffusers(name)
    from treering_verify.models.diffusers.kinds.lavie_network import VideoGenPipeline

    return VideoGenPipeline


def predict(pipe: Any, z: torch.Tensor, at: Timestep, given: Given, guidance: float) -> torch.Tensor:
    """Run the network on videos, z (B, C F, h, w); the output is shaped like z."""
    video = unfold(z, pipe.unet.config.in_channels)
    return fold(pipe.unet(video, at.index, encoder_hidden_states=given["encoder_hidden_states"], return_dict=False)[0])


def own_parts(folder: Path, dtype: Any, variant: str | None) -> dict[str, Any]:
    """Load the network of a folder, whose class diffusers does not have.

    Raises
    ------
    ValueError
        If the weights are not those of the configuration.
    """
    from treering_verify.models.diffusers.kinds.lavie_network import LaVieUNet

    unet, report = LaVieUNet.from_pretrained(
        folder,
        subfolder="unet",
        dtype=dtype,
        variant=variant,
        use_safetensors=True,
        local_files_only=True,
        output_loading_info=True,
    )
    if report["missing_keys"] or report["unexpected_keys"]:  # diffusers would go on with random weights
        raise ValueError("the weights of unet are not those of LaVie: make the folder with treering models convert")
    return {"unet": unet}


LAVIE = PipelineFamily(
    "lavie",
    "videos by LaVie's base model; epsilon",
    (RELEASED,),
    "unet",
    condition_sd,
    predict,
    components=("text_encoder", "tokenizer", "feature_extractor", "image_encoder"),
    class_of=class_of,
    own_parts=own_parts,
    limits="videos; not its interpolation and super-resolution; from a folder of `treering models convert`; the DDIM grid",
    video=replace(FRAMEWISE, size=(320, 512)),
)
