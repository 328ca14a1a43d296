"""Conditions and networks of PixArt and DiT, transformers with a learned variance, which the ODE does not use."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from treering_verify.errors import UsageError
from treering_verify.files import printable
from treering_verify.models.protocol import Condition, Timestep

if TYPE_CHECKING:
    import torch

    Given = dict[str, torch.Tensor]


def condition_pixart(pipe: Any, prompt: Condition, image_size: tuple[int, int]) -> Given:
    """Return T5's states and mask of a prompt, and the size of the image (Chen et al., arXiv 2310.00426)."""
    import torch
    from diffusers.utils import is_bs4_available, is_ftfy_available

    # The pipeline cleans prompts if it can, and warns if it cannot.
    states, mask, _, _ = pipe.encode_prompt(
        prompt or "",
        do_classifier_free_guidance=False,
        device=pipe._execution_device,
        clean_caption=is_bs4_available() and is_ftfy_available(),
    )
    height, width = image_size
    return {
        "encoder_hidden_states": states,
        "encoder_attention_mask": mask,
        "resolution": torch.tensor([[height, width]], dtype=states.dtype, device=states.device),
        "aspect_ratio": torch.tensor([[height / width]], dtype=states.dtype, device=states.device),
    }


def predict_pixart(pipe: Any, z: torch.Tensor, at: Timestep, given: Given, guidance: float) -> torch.Tensor:
    """Run PixArt's network; only some sizes of it use `resolution` and `aspect_ratio`."""
    output = pipe.transformer(
        z,
        encoder_hidden_states=given["encoder_hidden_states"],
        encoder_attention_mask=given["encoder_attention_mask"],
        timestep=_times(z, at),
        added_cond_kwargs={name: given[name] for name in ("resolution", "aspect_ratio")},
        return_dict=False,
    )[0]
    return output[:, : z.shape[1]]


def classes_dit(pipe: Any) -> tuple[str, ...]:
    """Return the names of the classes in the order of their numbers; a number if the pipeline has no name for it."""
    count = int(pipe.transformer.config.num_embeds_ada_norm)
    first: dict[int, str] = {}
    for name, number in pipe.labels.items():
        first.setdefault(int(number), printable(name))  # the folder's own words
    return tuple(first.get(number, str(number)) for number in range(count))


def condition_dit(pipe: Any, label: Condition, image_size: tuple[int, int]) -> Given:
    """Return the number of a class; the one after the last means none (Peebles and Xie, arXiv 2212.09748).

    Raises
    ------
    UsageError
        If there is no such class.
    """
    import torch

    names = classes_dit(pipe)
    if label is None:
        number = len(names)
    elif label in pipe.labels:
        number = int(pipe.labels[label])
    elif label in names:
        number = names.index(label)
    else:
        raise UsageError(f"there is no class {label!r}: choose one of {', '.join(names[:10])}, ...")
    return {"class_labels": torch.tensor([number], device=pipe._execution_device)}


def predict_dit(pipe: Any, z: torch.Tensor, at: Timestep, given: Given, guidance: float) -> torch.Tensor:
    """Run DiT's network."""
    output = pipe.transformer(z, timestep=_times(z, at), class_labels=given["class_labels"], return_dict=False)[0]
    return output[:, : z.shape[1]]


def _times(z: torch.Tensor, at: Timestep) -> torch.Tensor:
    import torch

    return torch.full((len(z),), at.index, device=z.device, dtype=torch.long)
