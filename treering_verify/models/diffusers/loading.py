"""Load pipelines of diffusers from folders, single files and the hub: safetensors only, and never code of a repository."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from treering_verify.errors import ModelError
from treering_verify.files import printable
from treering_verify.models.checks.folder import check_components
from treering_verify.models.checks.json_files import read_object
from treering_verify.models.checks.limits import check_config
from treering_verify.models.checks.tensor_files import header_of
from treering_verify.models.diffusers.families import FAMILIES, family_of, unsupported
from treering_verify.models.diffusers.family import PipelineFamily
from treering_verify.models.diffusers.folder import check_networks, check_pipeline_folder
from treering_verify.models.diffusers.hub import must_be_cached
from treering_verify.models.networks.reading import quiet, reported
from treering_verify.models.source import Device, DType, ModelSource

INDEX = "model_index.json"
# Prefixes of tensor names, in the original releases, that identify the model in a single file.
_MARKS = {
    "stable-diffusion": ("cond_stage_model.",),
    "stable-diffusion-xl": ("conditioner.embedders.1.",),
    "stable-diffusion-3": ("text_encoders.clip_l.",),
}
# Repositories whose configuration is used for such a file, which has none.
_CONFIGURATIONS = {
    "stable-diffusion": "stable-diffusion-v1-5/stable-diffusion-v1-5",
    "stable-diffusion-xl": "stabilityai/stable-diffusion-xl-base-1.0",
    "stable-diffusion-3": "stabilityai/stable-diffusion-3-medium-diffusers",
}
_ADVICE = (
    "name a local folder or file, or check id, revision, variant and connection (HF_HUB_OFFLINE=1 reads what was fetched "
    "before; gated models need HF_TOKEN)"
)


def load_pipeline(
    name: str | Path,
    *,
    revision: str | None = None,
    variant: str | None = None,
    device: Device = "auto",
    dtype: DType = "auto",
    model_config: str | None = None,
) -> Any:
    """Load a diffusers pipeline of a supported family, for use in your own script.

    Parameters
    ----------
    name : str or Path
        A local folder in the diffusers layout, a single .safetensors file, or a hub id. HF_HOME, HF_HUB_OFFLINE, HF_TOKEN
        and HF_ENDPOINT apply.
    revision, variant, device, dtype, model_config
        As those of `ModelSource`.

    Returns
    -------
    DiffusionPipeline
        In evaluation mode, on the device.

    Raises
    ------
    ModelError
        If there is no such model, it belongs to no family, or its files are damaged or pickled.
    """
    return pipeline_of(
        ModelSource(str(name), revision, variant, device, dtype, model_config=model_config), checker=True
    )


def pipeline_of(source: ModelSource, *, checker: bool = False) -> Any:
    """Load the pipeline of a source; with `checker`, the safety checker too, if it has one."""
    with reported(source.shown, _ADVICE):
        # Before anything of diffusers is imported: what the index names decides what would be.
        place = _place(source)
        index = _read(place, INDEX, source.revision)
        family = described = pipeline_family(index, source.shown)
        if source.is_file:
            family = _family_of_file(source)
        check_components(index, described.allowed, source.shown)
        if not source.on_hub:
            check_pipeline(source, checker=checker)
        _require(source.shown, *(() if family.classes else ("transformers",)), *family.needs)

    import torch

    device = source.chosen_device()
    dtype = source.chosen_dtype(device)
    with reported(source.shown, _ADVICE), quiet():
        kind = family.class_of(family.pipelines[0] if source.is_file else index["_class_name"])
        if source.is_file:
            folder = _configurations(place, source.revision)
            check_pipeline_folder(folder, index, described, source.shown, checker=True, weights=False)
            pipe = kind.from_single_file(source.name, dtype=dtype, config=str(folder))
        else:
            folder = _folder(source, kind)
            networks = check_pipeline_folder(
                folder, index, family, source.shown, variant=source.variant, checker=checker
            )
            check_networks(folder, networks, source.shown)
            left_out = {} if checker or "safety_checker" not in index else {"safety_checker": None}
            own = family.own_parts(folder, dtype, source.variant) if family.own_parts else {}
            pipe = kind.from_pretrained(
                folder,
                dtype=dtype,
                variant=source.variant,
                use_safetensors=True,
                local_files_only=True,
                trust_remote_code=False,
                **left_out,
                **own,
            )
        pipe.to(device)
        for part in pipe.components.values():
            if isinstance(part, torch.nn.Module):
                part.eval()
    return pipe


def read_index(folder: Path) -> dict[str, Any]:
    """Read a folder's model_index.json; errors as for `read_object`."""
    return read_object(folder, INDEX, printable(str(folder)))


def check_pipeline(source: ModelSource, *, checker: bool = False) -> None:
    """Check the files of a local pipeline before torch and diffusers are imported; errors as for `load_pipeline`."""
    with reported(source.shown, _ADVICE):
        if source.is_file:
            header_of(source.path, source.shown)
            return
        folder = source.path
        index = read_index(folder)
        family = pipeline_family(index, source.shown)
        check_pipeline_folder(folder, index, family, source.shown, variant=source.variant, checker=checker)


def pipeline_family(index: Mapping[str, Any], shown: str) -> PipelineFamily:
    """Return the family of the pipeline that an index names; ModelError if it belongs to none."""
    kind = index.get("_class_name")
    found = family_of((kind,), _scheduler_of(index)) if isinstance(kind, str) else None
    if found is None:
        raise ModelError(f"{shown}: {unsupported(str(kind)[:80])}")
    return found[0]


def _scheduler_of(index: Mapping[str, Any]) -> str:
    part = index.get("scheduler")
    return str(part[1]) if isinstance(part, list) and len(part) == 2 else ""


def shapes_of(source: ModelSource) -> tuple[tuple[int, int, int], tuple[int, int]]:
    """Return noise shape (C, h, w) and image size (H, W) of a pipeline, from its configuration files."""
    with reported(source.shown, _ADVICE):
        place = _place(source)
        family = pipeline_family(_read(place, INDEX, source.revision), source.shown)
        network, vae = (_read(place, f"{part}/config.json", source.revision) for part in (family.network, "vae"))
        for part, config in ((family.network, network), ("vae", vae)):
            check_config(config, f"{source.shown}: {part}/config.json")
        return family.shapes(source.shown, network, vae, source.image_size, source.frames)


def _place(source: ModelSource) -> str:
    """Return the folder or hub id that has the configurations of a source."""
    if source.is_file:
        return source.model_config or _CONFIGURATIONS[_family_of_file(source).name]
    return source.name if source.on_hub else str(source.path)


def _read(place: str, path: str, revision: str | None) -> dict[str, Any]:
    """Read a small JSON file of a local folder, or of a repository on the hub."""
    shown = printable(place)
    if Path(place).is_dir():
        return read_object(Path(place), path, shown)
    from huggingface_hub import hf_hub_download

    cached = must_be_cached(place)
    file = Path(hf_hub_download(place, path, revision=revision, local_files_only=cached))
    return read_object(file.parent, file.name, shown)


def _configurations(place: str, revision: str | None) -> Path:
    """Return a folder of configurations and vocabularies, fetched if a hub id is named."""
    if Path(place).is_dir():
        return Path(place)
    from huggingface_hub import snapshot_download

    patterns = ["*.json", "**/*.json", "*.txt", "**/*.txt", "**/*.model"]
    cached = must_be_cached(place)
    return Path(snapshot_download(place, revision=revision, allow_patterns=patterns, local_files_only=cached))


def _folder(source: ModelSource, kind: Any) -> Path:
    if not source.on_hub:
        return source.path
    # Only parts listed in the index, and no pickled weights: without safetensors it raises an error.
    folder = kind.download(
        source.name,
        revision=source.revision,
        variant=source.variant,
        use_safetensors=True,
        trust_remote_code=False,
        local_files_only=must_be_cached(source.name),
    )
    return Path(folder)


def _require(shown: str, *packages: str) -> None:
    for package in packages:
        if find_spec(package) is None:
            raise ModelError(f"{shown} needs the package {package}: pip install 'treering-verify[pipelines]'")


def _family_of_file(source: ModelSource) -> PipelineFamily:
    names = header_of(Path(source.name), source.shown)
    for family, marks in _MARKS.items():
        if any(name.startswith(marks) for name in names):
            return FAMILIES[family]
    raise ModelError(
        f"{source.shown} holds no complete model of {', '.join(_MARKS)}: name a folder in the diffusers layout"
    )
