"""Read a class-conditional model from a folder: an embedded model, or one of the user in the same layout."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Any

from treering_verify.errors import ModelError, UsageError, unknown
from treering_verify.files import printable
from treering_verify.models.autoencoder import AUTOENCODERS
from treering_verify.models.checks.folder import check_files
from treering_verify.models.checks.json_files import read_object
from treering_verify.models.checks.limits import check_config
from treering_verify.models.checks.parameters import check_parameters
from treering_verify.models.class_conditional import ClassConditionalModel
from treering_verify.models.diffusers.families import unsupported
from treering_verify.models.diffusers.loading import INDEX, read_index
from treering_verify.models.networks.reading import frozen, quiet, read_network, reported
from treering_verify.models.protocol import MovableModel
from treering_verify.models.restorer import PARTS as RESTORER
from treering_verify.models.restorer import Restorer
from treering_verify.models.source import CLASS_CONDITIONAL, EMBEDDED, ModelSource

_BESIDE = ("refiner", "estimator", "screen", *RESTORER)  # networks of the toolkit's own that a folder may have
_MAX_CLASSES = 2**16
_IN_PLAIN_TORCH = ("landscape",)
# Subfolder and kind of the autoencoder that replaces "vae"; the refiner was trained for "vae" and is left out.
_HELD_OUT = {"landscape-tiny": ("tiny", "AutoencoderTiny")}
_KINDS = {
    "vae": AUTOENCODERS,
    "unet": ("UNet2DModel",),
    "scheduler": ("DDIMScheduler", "FlowMatchEulerDiscreteScheduler"),
}


def load(source: ModelSource) -> MovableModel:
    """Load a class-conditional model, on the processor; errors as for `load_model`."""
    folder, shown = source.path, source.shown
    index, found = index_and_parts(source)
    with reported(shown):
        held_out = _HELD_OUT.get(source.name)
        autoencoder = held_out or ("vae", found["vae"])
        kinds = (*autoencoder, found["scheduler"])
        if source.name not in CLASS_CONDITIONAL:
            _check_networks(folder, found, shown)
        return _load_parts(shown, folder, kinds, _class_names(index, shown), refined=held_out is None)


def latent_shape(source: ModelSource) -> tuple[int, int, int]:
    """Return the shape (C, h, w) of a class-conditional model's noise, from its configuration."""
    folder = source.path
    _refuse_unused(source)
    if not os.path.lexists(folder / INDEX):
        raise ModelError(_no_model(source.shown))
    config = read_object(folder, "unet/config.json", source.shown)
    check_config(config, f"{source.shown}: unet/config.json")
    try:
        side = config["sample_size"]
        height, width = (side, side) if isinstance(side, int) else side
        return int(config["in_channels"]), int(height), int(width)
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{source.shown}: unet/config.json has no sample_size or in_channels of numbers") from error


def class_names(source: ModelSource) -> tuple[str, ...]:
    """Return the names of classes in a class-conditional model's index; empty without names."""
    return tuple(_class_names(index_and_parts(source)[0], source.shown) or ())


def index_and_parts(source: ModelSource) -> tuple[dict[str, Any], dict[str, str]]:
    """Return a class-conditional model's index and the classes of its parts; ModelError if it is another kind of model."""
    folder, shown = source.path, source.shown
    if not os.path.lexists(folder / INDEX):
        raise ModelError(_no_model(shown))
    with reported(shown):
        index = read_index(folder)
        found = {part: str(index.get(part, [None, None])[1])[:80] for part in _KINDS}
    if any(found[part] not in kinds for part, kinds in _KINDS.items()):
        readable = {part: " or ".join(kinds) for part, kinds in _KINDS.items()}
        kind = str(index.get("_class_name"))[:80]
        no_parts = "_class_name" in index and all(name == "None" for name in found.values())
        if "text_encoder" in index or no_parts:  # a pipeline, and nothing that is class-conditional
            raise ModelError(f"{shown}: {unsupported(kind)}")
        raise ModelError(
            f"{shown}: {INDEX} names no pipeline class that `treering models` lists; without one, this release reads models "
            f"of {readable}, and {INDEX} names {found}"
        )
    _refuse_unused(source)
    if source.name not in CLASS_CONDITIONAL:
        check_files(folder, _parts(folder, found), (), None, shown)
    return index, found


def _no_model(shown: str) -> str:
    return (
        f"{unknown('model', shown, EMBEDDED)}, or name a hub id, a .safetensors file, or a local folder that holds a "
        f"{INDEX}"
    )


def _refuse_unused(source: ModelSource) -> None:
    if source.dtype not in ("auto", "float32"):
        raise UsageError(f"{source.shown} is small, and computed in float32: leave out the dtype")
    if source.image_size is not None:
        raise UsageError(f"{source.shown} makes images of one size: leave out the size")
    if source.tile:
        raise UsageError(f"{source.shown} makes images so small that tiles save nothing: leave out the tile")
    if source.frames is not None:
        raise UsageError(f"{source.shown} makes images, not videos: leave out the frames")
    for name in ("revision", "variant", "model_config"):
        if getattr(source, name) is not None:
            raise UsageError(f"{source.shown} has no other {name.replace('_', ' ')}: leave it out")


def _parts(folder: Path, found: dict[str, str]) -> dict[str, str]:
    """Return the parts that are loaded, with their classes: those of the index, and the toolkit's networks beside them."""
    return {**found, **{part: part for part in _BESIDE if os.path.lexists(folder / part)}}


def _check_networks(folder: Path, found: dict[str, str], shown: str) -> None:
    """Raise ModelError if a network and its weights do not belong together, before memory is reserved."""
    import diffusers

    from treering_verify.models.networks.correction import Correction
    from treering_verify.models.networks.estimator import Estimator
    from treering_verify.models.networks.refiner import Refiner

    own = {"refiner": Refiner, "estimator": Estimator, "screen": Estimator, **dict.fromkeys(RESTORER, Correction)}
    parts = {part: kind for part, kind in _parts(folder, found).items() if part != "scheduler"}
    held = check_files(folder, parts, parts, None, shown)
    with quiet():
        for part, kind in parts.items():
            config = read_object(folder, f"{part}/config.json", shown)
            if part in own:
                made = {name: value for name, value in config.items() if not name.startswith("_")}
                build = partial(own[part], **made)
            else:
                build = partial(getattr(diffusers, kind).from_config, config)
            check_parameters(build, held[part], f"{shown}: {part}/config.json")


def _class_names(index: dict[str, Any], shown: str) -> list[str] | None:
    """Return the names of classes in an index, printable; None if it has none."""
    listed = index.get("classes")
    if listed is None:
        return None
    if not isinstance(listed, list) or len(listed) > _MAX_CLASSES or not all(isinstance(name, str) for name in listed):
        raise ModelError(f"{shown}: {INDEX}: classes is not a list of at most {_MAX_CLASSES} names")
    return [printable(name) for name in listed]


def _load_parts(
    name: str, folder: Path, kinds: tuple[str, str, str], classes: list[str] | None, *, refined: bool
) -> MovableModel:
    from treering_verify.models.networks.estimator import Estimator
    from treering_verify.models.networks.network import Network
    from treering_verify.models.networks.refiner import Refiner

    def beside(kind: type[Network], part: str) -> Any:
        return frozen(kind.load(folder / part)) if (folder / part).is_dir() else None

    read = _own_networks if name in _IN_PLAIN_TORCH else _diffusers_networks
    vae, unet, scheduler = read(folder, *kinds)
    refiner = beside(Refiner, "refiner") if refined else None
    names = classes or [f"class{i}" for i in range((unet.config.num_class_embeds or 1) - 1)]
    estimator, screen = beside(Estimator, "estimator"), beside(Estimator, "screen")
    model = ClassConditionalModel(name, frozen(vae), frozen(unet), scheduler, names, refiner, estimator, screen)
    if refined and all((folder / part).is_dir() for part in RESTORER):
        model.restorer = Restorer.load(folder)
    return model


def _own_networks(folder: Path, *_: str) -> tuple[Any, Any, Any]:
    """Autoencoder, denoiser and schedule of the embedded model, without diffusers, which takes seconds to import."""
    from treering_verify.models.ddim import DDIMScheduler
    from treering_verify.models.networks.autoencoder_kl import AutoencoderKL
    from treering_verify.models.networks.unet import UNet2DModel

    return (
        AutoencoderKL.load(folder / "vae"),
        UNet2DModel.load(folder / "unet"),
        DDIMScheduler.load(folder / "scheduler"),
    )


def _diffusers_networks(folder: Path, subfolder: str, kind: str, sampler: str) -> tuple[Any, Any, Any]:
    """Autoencoder (from its subfolder, of a kind), denoiser and scheduler of any other folder."""
    import diffusers

    with quiet():
        vae = read_network(getattr(diffusers, kind), folder, subfolder)
        unet = read_network(diffusers.UNet2DModel, folder, "unet")
        scheduler = getattr(diffusers, sampler).from_pretrained(folder, subfolder="scheduler", local_files_only=True)
    return vae, unet, scheduler
