"""Sana, a linear transformer of flow matching behind a deep-compression autoencoder (arXiv 2410.10629)."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from treering_verify.models.diffusers.family import PipelineFamily
from treering_verify.models.protocol import Condition, Timestep

if TYPE_CHECKING:
    import torch

    Given = dict[str, torch.Tensor]

_INSTRUCTION = "complex_human_instruction"


def condition(pipe: Any, prompt: Condition, image_size: tuple[int, int]) -> Given:
    """Return Gemma's states and mask of a prompt, behind the pipeline's instruction; without a prompt there is none."""
    asked = inspect.signature(type(pipe).__call__).parameters[_INSTRUCTION].default if prompt is not None else None
    side = pipe.tokenizer.padding_side  # the pipeline changes it
    try:
        states, mask, _, _ = pipe.encode_prompt(
            prompt or "", False, device=pipe._execution_device, **{_INSTRUCTION: asked}
        )
    finally:
        pipe.tokenizer.padding_side = side
    return {"encoder_hidden_states": states, "encoder_attention_mask": mask}


def predict(pipe: Any, z: torch.Tensor, at: Timestep, given: Given, guidance: float) -> torch.Tensor:
    """Run the network; a learned variance, of models that have one, is left out."""
    times = z.new_full((len(z),), at.index * pipe.transformer.config.timestep_scale)
    states = given["encoder_hidden_states"].to(z.dtype)
    mask = given["encoder_attention_mask"]
    output = pipe.transformer(
        z, encoder_hidden_states=states, encoder_attention_mask=mask, timestep=times, return_dict=False
    )[0]
    return output[:, : z.shape[1]]


SANA = PipelineFamily(
    "sana",
    "Sana and Sana 1.5; flow matching",
    ("SanaPipeline",),
    "transformer",
    condition,
    predict,
    networks=("SanaTransformer2DModel",),
    components=("text_encoder", "tokenizer"),
    kinds={"text_encoder": ("Gemma2Model",), "tokenizer": ("GemmaTokenizer", "GemmaTokenizerFast")},
    straight=True,
    cells=32,
    limits="not Sprint; sizes as asked, not the nearest of the pipeline's list; Euler's steps on the sampler's grid",
)
