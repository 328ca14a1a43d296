"""Find a model by its name, folder, file or hub id, and load it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from treering_verify.errors import ModelError
from treering_verify.models import autoencoder_alone, class_conditional_folder
from treering_verify.models.compiling import compile_networks
from treering_verify.models.diffusers.adapter import from_pipeline
from treering_verify.models.diffusers.families import known_pipelines
from treering_verify.models.diffusers.hub import must_be_cached
from treering_verify.models.diffusers.loading import (
    check_pipeline,
    pipeline_family,
    pipeline_of,
    read_index,
    shapes_of,
)
from treering_verify.models.inverter import CONFIG, Inverter, attach
from treering_verify.models.networks.reading import reported
from treering_verify.models.protocol import LatentModel, check_loaded
from treering_verify.models.source import CLASS_CONDITIONAL, EMBEDDED, Device, DType, ModelSource

BESIDE = "inverter"  # subfolder of a local model where its fitted filters are found


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
    """Load a model: one that comes with this package, or one from a folder, a file or the hub.

    Parameters
    ----------
    name : str, Path or ModelSource
        "landscape"; "landscape-tiny", the same with an autoencoder that no method was tuned on; "landscape-sd", a small
        text-to-image model in Stable Diffusion's format (extra `pipelines`); a local folder in the
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


def loaded_model(model: LatentModel | ModelSource | str | Path | None) -> LatentModel:
    """Return a model as it is, or load it by its name, folder, file or hub id; None is the embedded one.

    Raises
    ------
    UsageError
        If it is something else.
    ModelError
        As `load_model`.
    """
    if model is None or isinstance(model, (ModelSource, str, Path)):
        return load_model() if model is None else load_model(model)
    check_loaded(model)
    return model


def _with_inverter(model: LatentModel, source: ModelSource) -> LatentModel:
    """Let a model carry the filters that its source names, or those beside it that were fitted to it as it is loaded."""
    if source.inverter is not None:
        return attach(model, source.inverter)
    folder = source.path / (f"{source.name}-inverter" if source.name in EMBEDDED else BESIDE)
    if not (folder / CONFIG).is_file() or Inverter.load(folder).differences(model):
        return model
    return attach(model, folder)


def _load(source: ModelSource) -> LatentModel:
    if _is_pipeline(source):
        pipe = pipeline_of(source)
        with reported(source.shown):
            return from_pipeline(
                pipe, name=source.name, image_size=source.image_size, tile=source.tile, frames=source.frames
            )
    if _is_autoencoder(source):
        return autoencoder_alone.load(source).to(str(source.chosen_device()))
    model = class_conditional_folder.load(source)
    return model if source.device == "auto" else model.to(str(source.chosen_device()))


def latent_shape(name: str | Path | ModelSource = "landscape") -> tuple[int, int, int]:
    """Return the shape (C, h, w) of a model's noise, from its configuration; errors as for `load_model`."""
    source = _source(name)
    if _is_pipeline(source):
        return shapes_of(source)[0]
    if _is_autoencoder(source):
        return autoencoder_alone.latent_shape(source)
    return class_conditional_folder.latent_shape(source)


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
            autoencoder_alone.checked_config(source)
        else:
            class_conditional_folder.index_and_parts(source)
    elif source.on_hub:
        must_be_cached(source.name)
    elif not Path(source.name).is_file():
        raise ModelError(f"there is no file {source.shown}: check the path of the model")
    else:
        check_pipeline(source)


def files_of(source: ModelSource) -> list[str | Path] | None:
    """Return the files and folders that a local model is loaded from; None of one that is on the hub."""
    if source.name in EMBEDDED:
        return [path for path in (source.path, source.inverter) if path is not None]
    if source.on_hub or (source.model_config is not None and not Path(source.model_config).exists()):
        return None
    return [path for path in (source.name, source.inverter, source.model_config) if path is not None]


def class_names(source: ModelSource) -> tuple[str, ...]:
    """Return the names of classes in a class-conditional model's index; empty for other models and without names."""
    if _is_pipeline(source) or _is_autoencoder(source):
        return ()
    return class_conditional_folder.class_names(source)


def videos_of(source: ModelSource) -> bool:
    """Return whether a local folder's index names a pipeline that makes videos."""
    if not _is_pipeline(source) or source.is_file or source.on_hub:
        return False
    return pipeline_family(read_index(source.path), source.shown).video is not None


def _is_autoencoder(source: ModelSource) -> bool:
    return source.name not in EMBEDDED and autoencoder_alone.is_autoencoder_folder(source)


def _source(name: str | Path | ModelSource, *options: Any) -> ModelSource:
    return name if isinstance(name, ModelSource) else ModelSource(str(name), *options)


def _is_pipeline(source: ModelSource) -> bool:
    """Return whether a source is not class-conditional: a file, a hub id, or a folder whose index names a family."""
    if source.name in EMBEDDED:
        return source.name not in CLASS_CONDITIONAL
    if source.is_file or source.on_hub:
        return True
    try:
        return read_index(Path(source.name)).get("_class_name") in known_pipelines()
    except ModelError:
        return False  # reported, with the reason, when the folder is read as class-conditional
