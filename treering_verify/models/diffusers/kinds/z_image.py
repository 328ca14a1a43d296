"""Z-Image, a transformer of flow matching whose prompts are read by Qwen3 (arXiv 2511.22699)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from treering_verify.models.diffusers.family import PipelineFamily
from treering_verify.models.diffusers.kinds.chat import hidden_states, message
from treering_verify.models.protocol import Condition, Timestep

if TYPE_CHECKING:
    import torch

    Given = dict[str, torch.Tensor]


def condition(pipe: Any, prompt: Condition, image_size: tuple[int, int]) -> Given:
    """Return a prompt's states before the text encoder's last layer, (1, n, D), and a mask, true for all, (1, n)."""
    states, mask = hidden_states(pipe, message(prompt or "", thinking=True))
    kept = states[-2][mask][None]
    return {"states": kept, "mask": mask.new_ones(kept.shape[:2])}


def predict(pipe: Any, z: torch.Tensor, at: Timestep, given: Given, guidance: float) -> torch.Tensor:
    """Run the network, which takes lists, counts time from the noise to the image, and predicts latent - noise."""
    import torch

    states = [row[mask].to(z.dtype) for row, mask in zip(given["states"], given["mask"], strict=True)]
    times = z.new_full((len(z),), 1 - at.index / 1000, dtype=torch.float32)
    frames = list(z.unsqueeze(2).unbind())
    return -torch.stack(pipe.transformer(frames, times, states, return_dict=False)[0]).squeeze(2)


Z_IMAGE = PipelineFamily(
    "z-image",
    "Z-Image and Z-Image-Turbo; flow matching",
    ("ZImagePipeline",),
    "transformer",
    condition,
    predict,
    networks=("ZImageTransformer2DModel",),
    components=("text_encoder", "tokenizer"),
    kinds={
        "text_encoder": ("Qwen3Model", "Qwen3ForCausalLM"),
        "tokenizer": ("Qwen2Tokenizer", "Qwen2TokenizerFast"),
    },
    straight=True,
    spaced=True,
    cells=128,
    limits="not Omni; guidance g here is guidance_scale g - 1 there; Euler's grid only",
)
