"""Read what diffusers and transformers read, without their advice, and with their errors as a ModelError."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from treering_verify.errors import ModelError, TreeringError
from treering_verify.files import printable


def reason_of(error: Exception) -> str:
    """Return the first line of an error's message, printable and short; its class if it has no message."""
    lines = str(error).strip().splitlines()
    return printable(lines[0][:300]) if lines else type(error).__name__


@contextmanager
def reported(shown: str, advice: str = "fetch or export the folder again") -> Iterator[None]:
    """Turn every error of loading code into a ModelError that ends with advice."""
    try:
        yield
    except TreeringError:
        raise
    except Exception as error:  # whatever a library raises at a damaged or hostile file
        raise ModelError(f"cannot load {shown}: {reason_of(error)}; {advice}") from error


@contextmanager
def quiet() -> Iterator[None]:
    """Silence advice and progress of diffusers and transformers, and restore their settings afterwards."""
    from diffusers.utils import logging

    voices: list[Any] = [logging]
    if "transformers" in sys.modules:
        voices.append(sys.modules["transformers"].utils.logging)
    before = [(voice.get_verbosity(), voice.is_progress_bar_enabled()) for voice in voices]
    try:
        for voice in voices:
            voice.set_verbosity_error()
            voice.disable_progress_bar()
        yield
    finally:
        for voice, (verbosity, bars) in zip(voices, before, strict=True):
            voice.set_verbosity(verbosity)
            if bars:
                voice.enable_progress_bar()


def read_network(kind: Any, folder: Path, part: str | None, variant: str | None = None) -> Any:
    """Return a network of a class of diffusers in float32, read from a subfolder or the folder itself.

    Raises
    ------
    ValueError
        If the weights do not fit the configuration.
    """
    if kind.__name__ == "AutoencoderTiny":
        from treering_verify.models.networks.tiny_autoencoder import load_released, released_weights

        own = folder / part if part else folder
        if weights := released_weights(own, variant):
            return load_released(kind, own, weights)
    network, report = kind.from_pretrained(
        folder, subfolder=part, variant=variant, use_safetensors=True, local_files_only=True, output_loading_info=True
    )
    if report["missing_keys"] or report["unexpected_keys"]:  # diffusers would go on with random weights
        raise ValueError(f"the weights of {part or 'the autoencoder'} do not fit its config.json")
    return network.float()


def frozen(network: Any) -> Any:
    """Return the network in evaluation mode, without gradients."""
    import torch

    # Channels last: on two cores the autoencoder is 1.5 to 2 times faster than in the default layout.
    return network.eval().requires_grad_(False).to(memory_format=torch.channels_last)
