"""Write a prompt as a message to a chat model, without the template of the model's folder.

The tokenizer of a chat model comes with a template, which is a small program of whoever made the folder. It is never run
here: the models whose text encoder is Qwen3 (arXiv 2505.09388) take messages in the format ChatML.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

_NO_THOUGHT = "<think>\n\n</think>\n\n"


def message(prompt: str, *, thinking: bool) -> str:
    """Return a prompt as a user's message, and the beginning of the answer; an empty thought if there is no thinking."""
    return f"<|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n{'' if thinking else _NO_THOUGHT}"


def hidden_states(pipe: Any, text: str, length: int = 512) -> tuple[tuple[torch.Tensor, ...], torch.Tensor]:
    """Return the text encoder's states after each layer, (1, `length`, D) each, and which are of the text, (1, `length`)."""
    tokens = pipe.tokenizer(text, padding="max_length", max_length=length, truncation=True, return_tensors="pt")
    ids, mask = (tokens[name].to(pipe._execution_device) for name in ("input_ids", "attention_mask"))
    found = pipe.text_encoder(input_ids=ids, attention_mask=mask, output_hidden_states=True, use_cache=False)
    return found.hidden_states, mask.bool()
