"""Find a model by its name, folder, file or hub id, and load it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from treering_verify.errors import ModelError, TreeringError, UsageError, unknown
from treering_verify.files import printable
from treering_verify.models.autoencoder import AUTOENCODERS
from treering_verify.models.autoencoder_alone import (
    AutoencoderModel,
    checked_config,
    is_autoencoder_folder,
    shapes_of_config,
)
from treering_verify.models.checks.folder import check_files
from treering_verify.models.checks.json_files import read_object
from treering_verify.models.checks.limits import check_config
from treering_verify.models.checks.parameters import check_parameters
from treering_verify.models.class_conditional import ClassConditionalModel
from treering_verify.models.compiling import compile_networks
from treering_verify.models.diffusers.adapter import from_pipeline
from treering_verify.models.diffusers.families import known_pipelines, unsupported
from treering_verify.models.diffusers.hub import must_be_cached
from treering_verify.models.diffusers.loading import (
    INDEX,
    check_pipeline,
    pipeline_family,
    pipeline_of,
    read_index,
    reason_of,
    shapes_of,
)
from treering_verify.models.inverter import CONFIG, Inverter, attach
from treering_verify.models.protocol import LatentModel, MovableModel
from treering_verify.models.source import Device, DType, ModelSource

_LANDSCAPE = Path(__file__).with_name("landscape")
EMBEDDED = {"landscape": _LANDSCAPE, "landscape-tiny": _LANDSCAPE}
_BESIDE = ("refiner", "estimator", "screen")  # networks of the toolkit's own that a class-conditional folder may have
_MAX_CLASSES = 2**16
_IN_PLAIN_TORCH = ("landscape",)
# Subfolder and kind of the autoencoder that replaces "vae"; the refiner was trained for "vae" and is left out.
_HELD_OUT = {"landscape-tiny": ("tiny", "AutoencoderTiny")}
BESIDE = "inverter"  # subfolder of a local model where its fitted filters are found
_KINDS = {
    "vae": AUTOENCODERS,
    "unet": ("UNet2DModel",),
    "scheduler": ("DDIMScheduler", "FlowMatchEulerDiscreteScheduler"),
}


def load_model(
    name: str | Path | ModelSource = "landscape",
    *,
    revision: str | None = None,
    variant: str | None = None,
    device: Device = "auto",
    dtype: DType = "auto",
    image_size: tuple[int, int] | None = None,
    model_config: str | None = None,
    tile: int = 0,
    compiled: bool = False,
    frames: int | None = None,
    inverter: str | Path | None = None,
) -> LatentModel:
    """Load an embedded model, or one of the user.

    Parameters
    ----------
    name : str, Path or ModelSource
        "landscape"; "landscape-tiny", the same with an autoencoder that no method was tuned on; a local folder in the
        diffusers layout, a single .safetensors file, or a hub id, of a family that `treering models` lists; or a folder
        whose model_index.json names one of `AUTOENCODERS`, a class-conditional `UNet2DModel` and a `DDIMScheduler` or
        `FlowMatchEulerDiscreteScheduler`, and, optionally, "classes": the names of its classes; or the folder of an
        autoencoder alone, for fits and decoder inversions. A `ModelSource` holds all other parameters.
    revision, variant, device, dtype, image_size, model_config, tile, compiled, frames, inverter
        As those of `ModelSource`. Class-conditional models are small, and always float32; for them
        "auto" is the processor.

    Returns
    -------
    LatentModel
        The model, frozen and in evaluation mode.

    Raises
    ------
    ModelError
        If there is no such model, its layout is not supported, its files are damaged or pickled, or the inverter was fitted
        to another model.
    UsageError
        If the device is absent, or images of that size or videos of that length are impossible.
    """
    source = _source(name, revision, variant, device, dtype, image_size, model_config, tile, compiled, frames)
    if inverter is not None:
        source = replace(source, inverter=str(inverter))
    model = _with_inverter(_load(source), source)
    return compile_networks(model) if source.compiled else model


def _with_inverter(model: LatentModel, source: ModelSource) -> LatentModel:
    """Let a model carry the filters that its source names, or those beside it that were fitted to it as it is loaded."""
    if source.inverter is not None:
        return attach(model, source.inverter)
    embedded = source.name in EMBEDDED
    folder = EMBEDDED[source.name] / f"{source.name}-inverter" if embedded else Path(source.name, BESIDE)
    if not (folder / CONFIG).is_file() or Inverter.load(folder).differences(model):
        return model
    return attach(model, folder)


def _load(source: ModelSource) -> LatentModel:
    folder, shown = EMBEDDED.get(source.name, Path(source.name)), source.shown
    if _is_pipeline(source):
        pipe = pipeline_of(source)
        with _reported(shown):
            return from_pipeline(
                pipe, name=source.name, image_size=source.image_size, tile=source.tile, frames=source.frames
            )
    if _is_autoencoder(source):
        return _load_autoencoder(source)
    index, found = _class_conditional(source)
    with _reported(shown):
        held_out = _HELD_OUT.get(source.name)
        autoencoder = held_out or ("vae", found["vae"])
        kinds = (*autoencoder, found["scheduler"])
        if source.name not in EMBEDDED:
            _check_networks(folder, found, shown)
        model = _load_parts(shown, folder, kinds, _class_names(index, shown), refined=held_out is None)
    return model if source.device == "auto" else model.to(str(source.chosen_device()))


def latent_shape(name: str | Path | ModelSource = "landscape") -> tuple[int, int, int]:
    """Return the shape (C, h, w) of a model's noise, from its configuration; errors as for `load_model`."""
    source = _source(name)
    if _is_pipeline(source):
        return shapes_of(source)[0]
    folder = EMBEDDED.get(source.name, Path(source.name))
    if _is_autoencoder(source):
        return shapes_of_config(source.shown, checked_config(source)[0], source.image_size)[0]
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


def check_source(source: ModelSource) -> None:
    """Check a model before torch is imported: that its device and its files exist, and that its class is supported.

    Raises
    ------
    ModelError
        If there is no such model, its class is not supported, or it is on the hub and the hub cannot be reached.
    UsageError
        If the device is absent, or the model does not support an option.
    """
    source.check_device()
    if source.name in EMBEDDED or not (source.is_file or source.on_hub):
        if _is_pipeline(source):
            check_pipeline(source)
        elif _is_autoencoder(source):
            checked_config(source)
        else:
            _class_conditional(source)
    elif source.on_hub:
        must_be_cached(source.name)
    elif not Path(source.name).is_file():
        raise ModelError(f"there is no file {source.shown}: check the path of the model")
    else:
        check_pipeline(source)


def files_of(source: ModelSource) -> list[str | Path] | None:
    """Return the files and folders that a local model is loaded from; None of one that is on the hub."""
    if source.name in EMBEDDED:
        return [path for path in (EMBEDDED[source.name], source.inverter) if path is not None]
    if source.on_hub or (source.model_config is not None and not Path(source.model_config).exists()):
        return None
    return [path for path in (source.name, source.inverter, source.model_config) if path is not None]


def class_names(source: ModelSource) -> tuple[str, ...]:
    """Return the names of classes in a class-conditional model's index; empty for other models and without names."""
    if _is_pipeline(source) or _is_autoencoder(source):
        return ()
    return tuple(_class_names(_class_conditional(source)[0], source.shown) or ())


def videos_of(source: ModelSource) -> bool:
    """Return whether a local folder's index names a pipeline that makes videos."""
    if not _is_pipeline(source) or source.is_file or source.on_hub:
        return False
    return pipeline_family(read_index(Path(source.name)), source.shown).video is not None


def _class_conditional(source: ModelSource) -> tuple[dict[str, Any], dict[str, str]]:
    """Return a class-conditional model's index and the classes of its parts; ModelError if it is another kind of model."""
    folder, shown = EMBEDDED.get(source.name, Path(source.name)), source.shown
    if not os.path.lexists(folder / INDEX):
        raise ModelError(_no_model(shown))
    with _reported(shown):
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
    if source.name not in EMBEDDED:
        check_files(folder, _parts(folder, found), (), None, shown)
    return index, found


def _is_autoencoder(source: ModelSource) -> bool:
    return source.name not in EMBEDDED and is_autoencoder_folder(source)


def _load_autoencoder(source: ModelSource) -> AutoencoderModel:
    import diffusers

    shown, (config, held) = source.shown, checked_config(source)
    with _reported(shown):
        kind = getattr(diffusers, config["_class_name"])
        with _quiet():
            check_parameters(partial(kind.from_config, config), held, f"{shown}: config.json")
            vae = _frozen(_diffusers_network(kind, Path(source.name), None, source.variant))
        model = AutoencoderModel(source.name, vae, source.image_size, source.tile)
    return model.to(str(source.chosen_device()))


def _parts(folder: Path, found: dict[str, str]) -> dict[str, str]:
    """Return the parts that are loaded, with their classes: those of the index, and the toolkit's networks beside them."""
    return {**found, **{part: part for part in _BESIDE if os.path.lexists(folder / part)}}


def _check_networks(folder: Path, found: dict[str, str], shown: str) -> None:
    """Raise ModelError if a network and its weights do not belong together, before memory is reserved."""
    import diffusers

    from treering_verify.models.networks.estimator import Estimator
    from treering_verify.models.networks.refiner import Refiner

    own = {"refiner": Refiner, "estimator": Estimator, "screen": Estimator}
    parts = {part: kind for part, kind in _parts(folder, found).items() if part != "scheduler"}
    held = check_files(folder, parts, parts, None, shown)
    with _quiet():
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
        raise ModelError(f"{shown}: {INDEX}: classes is no list of at most {_MAX_CLASSES} names")
    return [printable(name) for name in listed]


@contextmanager
def _reported(shown: str) -> Iterator[None]:
    """Turn errors of a folder's files into a ModelError that says what to do."""
    try:
        yield
    except TreeringError:
        raise
    except Exception as error:  # whatever a library raises at a damaged or hostile file
        raise ModelError(f"cannot load {shown}: {reason_of(error)}; fetch or export the folder again") from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence diffusers' advice, such as to install accelerate, which models of this size do not need."""
    from diffusers.utils import logging

    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)


def _source(name: str | Path | ModelSource, *options: Any) -> ModelSource:
    return name if isinstance(name, ModelSource) else ModelSource(str(name), *options)


def _is_pipeline(source: ModelSource) -> bool:
    """Return whether a source is not class-conditional: a file, a hub id, or a folder whose index names a family."""
    if source.name in EMBEDDED:
        return False
    if source.is_file or source.on_hub:
        return True
    try:
        return read_index(Path(source.name)).get("_class_name") in known_pipelines()
    except ModelError:
        return False  # reported, with the reason, when the folder is read as class-conditional


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


def _load_parts(
    name: str, folder: Path, kinds: tuple[str, str, str], classes: list[str] | None, *, refined: bool
) -> MovableModel:
    from treering_verify.models.networks.estimator import Estimator
    from treering_verify.models.networks.network import Network
    from treering_verify.models.networks.refiner import Refiner

    def beside(kind: type[Network], part: str) -> Any:
        return _frozen(kind.load(folder / part)) if (folder / part).is_dir() else None

    read = _own_networks if name in _IN_PLAIN_TORCH else _diffusers_networks
    vae, unet, scheduler = read(folder, *kinds)
    refiner = beside(Refiner, "refiner") if refined else None
    names = classes or [f"class{i}" for i in range((unet.config.num_class_embeds or 1) - 1)]
    estimator, screen = beside(Estimator, "estimator"), beside(Estimator, "screen")
    return ClassConditionalModel(name, _frozen(vae), _frozen(unet), scheduler, names, refiner, estimator, screen)


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

    with _quiet():
        vae = _diffusers_network(getattr(diffusers, kind), folder, subfolder)
        unet = _diffusers_network(diffusers.UNet2DModel, folder, "unet")
        scheduler = getattr(diffusers, sampler).from_pretrained(folder, subfolder="scheduler", local_files_only=True)
    return vae, unet, scheduler


def _diffusers_network(kind: Any, folder: Path, part: str | None, variant: str | None = None) -> Any:
    if kind.__name__ == "AutoencoderTiny":
        from treering_verify.models.diffusers.tiny_autoencoder import load_released, released_weights

        own = folder / part if part else folder
        if weights := released_weights(own, variant):
            return load_released(kind, own, weights)
    network, report = kind.from_pretrained(
        folder, subfolder=part, variant=variant, use_safetensors=True, local_files_only=True, output_loading_info=True
    )
    if report["missing_keys"] or report["unexpected_keys"]:  # diffusers would go on with random weights
        raise ValueError(f"the weights of {part or 'the autoencoder'} do not fit its config.json")
    return network.float()


def _frozen(network: Any) -> Any:
    import torch

    # Channels last: on two cores the autoencoder is 1.5 to 2 times faster than in the default layout.
    return network.eval().requires_grad_(False).to(memory_format=torch.channels_last)
