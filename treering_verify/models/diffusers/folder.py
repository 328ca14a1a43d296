"""Check the folder of a pipeline before diffusers reads it: once as files, and once against its weights."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from treering_verify.models.checks.folder import check_components, check_files
from treering_verify.models.checks.json_files import read_object
from treering_verify.models.checks.parameters import check_parameters
from treering_verify.models.diffusers.components import has_weights
from treering_verify.models.diffusers.family import PipelineFamily
from treering_verify.models.diffusers.variants import check_variant


def check_pipeline_folder(
    folder: Path,
    index: Mapping[str, Any],
    family: PipelineFamily,
    shown: str,
    *,
    variant: str | None = None,
    checker: bool = False,
    weights: bool = True,
) -> dict[str, tuple[str, list[int]]]:
    """Check the files of a pipeline's folder, without importing diffusers or transformers.

    Parameters
    ----------
    folder : Path
        The folder.
    index : mapping
        The content of its model_index.json.
    family : PipelineFamily
        The family of the pipeline that the index names.
    shown : str
        Printable name of the model, for messages.
    variant : str, optional
        Variant of the weights' files.
    checker : bool
        Whether the safety checker will be loaded.
    weights : bool
        Whether the weights of the folder will be read, or only its configurations.

    Returns
    -------
    dict
        Each network: its class, as "library.Class", and how many numbers each set of its weights has.

    Raises
    ------
    ModelError
        As `check_components` and `check_files` raise it.
    """
    components = check_components(index, family.allowed, shown)
    if not checker:
        components.pop("safety_checker", None)
    weighted = [name for name in components if weights and has_weights(name)]
    check_variant(folder, weighted, variant, shown)
    held = check_files(folder, components, weighted, variant, shown, pipeline=True)
    return {name: (components[name], numbers) for name, numbers in held.items()}


def check_networks(folder: Path, networks: Mapping[str, tuple[str, list[int]]], shown: str) -> None:
    """Compare each network with its weights; `networks` as `check_pipeline_folder` returns them.

    Raises
    ------
    ModelError
        If a configuration asks for a much larger or smaller network than its weights fill.
    """
    for name, (kind, numbers) in networks.items():
        library, named = kind.split(".")
        build = partial(_of_diffusers if library == "diffusers" else _of_transformers, named, folder, name, shown)
        check_parameters(build, numbers, f"{shown}: {name}/config.json")


def _of_diffusers(kind: str, folder: Path, name: str, shown: str) -> Any:
    import diffusers

    return getattr(diffusers, kind).from_config(read_object(folder, f"{name}/config.json", shown))


def _of_transformers(kind: str, folder: Path, name: str, shown: str) -> Any:
    if kind == "StableDiffusionSafetyChecker":
        from diffusers.pipelines.stable_diffusion import StableDiffusionSafetyChecker as made
    else:
        import transformers

        made = getattr(transformers, kind)
    return made(made.config_class.from_pretrained(folder / name, local_files_only=True))
