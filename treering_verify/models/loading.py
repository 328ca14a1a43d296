"""Find a model by name or folder and wrap it, without touching the network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from treering_verify.errors import ModelError
from treering_verify.files import printable
from treering_verify.models.class_conditional import ClassConditionalModel
from treering_verify.models.protocol import LatentModel

_LANDSCAPE = Path(__file__).with_name("landscape")
EMBEDDED = {"landscape": _LANDSCAPE, "landscape-tiny": _LANDSCAPE}
# Subfolder and kind of the autoencoder that stands in for "vae"; the refiner belongs to the latter and is left out.
_HELD_OUT = {"landscape-tiny": ("tiny", "AutoencoderTiny")}
_KINDS = {"vae": ("AutoencoderKL", "AutoencoderTiny"), "unet": ("UNet2DModel",), "scheduler": ("DDIMScheduler",)}


def load_model(name: str | Path = "landscape") -> LatentModel:
    """Load the embedded model, or a local folder in the diffusers layout with the same kinds of parts.

    Parameters
    ----------
    name : str or Path
        "landscape"; "landscape-tiny", the same with an autoencoder that no method was tuned on; or a folder that holds
        a model_index.json with an `AutoencoderKL` or `AutoencoderTiny`, a class-conditional `UNet2DModel` and a
        `DDIMScheduler`, and, optionally, "classes": the names of its classes.

    Returns
    -------
    LatentModel
        Float32, frozen, in evaluation mode, on the CPU.

    Raises
    ------
    ModelError
        If there is no such model, its layout is not supported, or its files are damaged.
    """
    folder = EMBEDDED.get(str(name), Path(name))
    shown = printable(str(name))
    index_file = folder / "model_index.json"
    if not index_file.is_file():
        raise ModelError(
            f"no model {shown!r}: use {', '.join(EMBEDDED)} or a local folder that holds a model_index.json"
        )
    try:
        index = json.loads(index_file.read_text())
        found = {part: index.get(part, [None, None])[1] for part in _KINDS}
        if any(found[part] not in kinds for part, kinds in _KINDS.items()):
            readable = {part: " or ".join(kinds) for part, kinds in _KINDS.items()}
            raise ModelError(f"{shown}: this release reads models of {readable}; model_index.json names {found}")
        held_out = _HELD_OUT.get(str(name))
        autoencoder = held_out or ("vae", found["vae"])
        return _load_parts(shown, folder, autoencoder, index.get("classes"), refined=held_out is None)
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RuntimeError) as error:
        raise ModelError(f"cannot load {shown}: {printable(str(error))}; fetch or export the folder again") from error


def latent_shape(name: str | Path = "landscape") -> tuple[int, int, int]:
    """Shape (C, h, w) of a model's noise, from its configuration alone; ModelError as for `load_model`."""
    folder = EMBEDDED.get(str(name), Path(name))
    try:
        config = json.loads((folder / "unet" / "config.json").read_text())
        side = config["sample_size"]
        height, width = (side, side) if isinstance(side, int) else side
        return int(config["in_channels"]), int(height), int(width)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(
            f"no model {printable(str(name))!r}: use {', '.join(EMBEDDED)} or a local folder in the diffusers layout"
        ) from error


def _load_parts(
    name: str, folder: Path, autoencoder: tuple[str, str], classes: list[str] | None, *, refined: bool
) -> LatentModel:
    import diffusers
    from diffusers.utils import logging

    from treering_verify.models.estimator import Estimator
    from treering_verify.models.refiner import Refiner

    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # silences an advice to install accelerate, which models of this size do not need
    try:
        subfolder, kind = autoencoder
        vae = _load_network(getattr(diffusers, kind), folder, subfolder)
        unet = _load_network(diffusers.UNet2DModel, folder, "unet")
        scheduler = diffusers.DDIMScheduler.from_pretrained(folder, subfolder="scheduler", local_files_only=True)
        refined = refined and (folder / "refiner").is_dir()
        refiner = _load_network(Refiner, folder, "refiner") if refined else None
        estimator = _load_network(Estimator, folder, "estimator") if (folder / "estimator").is_dir() else None
    finally:
        logging.set_verbosity(verbosity)
    names = classes or [f"class{i}" for i in range((unet.config.num_class_embeds or 1) - 1)]
    return ClassConditionalModel(name, vae, unet, scheduler, names, refiner, estimator)


def _load_network(kind: Any, folder: Path, part: str) -> Any:
    network, report = kind.from_pretrained(
        folder, subfolder=part, use_safetensors=True, local_files_only=True, output_loading_info=True
    )
    if report["missing_keys"] or report["unexpected_keys"]:  # diffusers would go on, with random numbers in their place
        raise ValueError(f"the weights of {part} do not fit its config.json")
    import torch

    # Channels last: on two cores the autoencoder is 1.5 to 2 times faster than in the default layout.
    return network.float().eval().requires_grad_(False).to(memory_format=torch.channels_last)
