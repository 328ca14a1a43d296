"""Check a model folder: its components, its links, its configurations and its weights."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from treering_verify.errors import ModelError
from treering_verify.files import printable
from treering_verify.models.checks.json_files import read_object
from treering_verify.models.checks.limits import CODE, check_config
from treering_verify.models.checks.tensor_files import weights_of

WHOLE = "."  # the component that is the folder itself, where a network comes alone
_MAX_ENTRIES = 1000  # in the folder of one component
_MAX_DATA = 2**26  # bytes of a vocabulary
# Of tokenizers, read as data by their libraries: vocabularies, not configurations.
_DATA = ("tokenizer.json", "vocab.json")
_POINTERS = ("adapter_config.json",)  # transformers follows it to another model


def check_components(index: Mapping[str, Any], allowed: Mapping[str, tuple[str, ...]], shown: str) -> dict[str, str]:
    """Return the components that a pipeline's index names: name -> "library.Class".

    Parameters
    ----------
    index : mapping
        The content of model_index.json.
    allowed : mapping
        Components that the pipeline may have, and for each the classes it may be of, as "library.Class".
    shown : str
        Printable name of the model, for messages.

    Raises
    ------
    ModelError
        If a component or its class is not allowed, or a field names code.
    """
    found: dict[str, str] = {}
    for name, value in index.items():
        where = f"{shown}: model_index.json: {printable(name)[:80]}"
        if name in CODE and value:
            raise ModelError(
                f"{where} names code that comes with the model, which is never run: use a folder without it"
            )
        if name == "id2label" or _says_nothing(value) or (name.startswith("_") and isinstance(value, str)):
            continue
        kind = ".".join(value) if _is_pair(value) else None
        if name not in allowed or kind not in allowed[name]:
            choices = (
                f"only {', '.join(allowed[name])} can be" if name in allowed else "this kind of model has no such part"
            )
            raise ModelError(
                f"{where} is {printable(repr(value)[:120])}: {choices}; code of other origin is never imported or run"
            )
        found[name] = kind
    return found


def check_files(
    folder: Path,
    components: Mapping[str, str],
    weighted: Iterable[str],
    variant: str | None,
    shown: str,
    *,
    pipeline: bool = False,
) -> dict[str, list[int]]:
    """Check the files that loading a folder reads, without reading weights.

    Parameters
    ----------
    folder : Path
        The model folder.
    components : mapping
        Names of the components that are loaded, and their classes.
    weighted : iterable of str
        Those of them that have weights.
    variant : str, optional
        As in `weights_of`.
    shown : str
        Printable name of the model, for messages.
    pipeline : bool
        Whether it is loaded as a pipeline: some releases of diffusers then run code at the top of the folder.

    Returns
    -------
    dict
        Component with weights -> how many numbers each set of its weights has.

    Raises
    ------
    ModelError
        If the folder holds Python code where a library might look for it, a link leads out of it, a file is not regular, a
        configuration exceeds `treering_verify.models.checks.limits`, or weights are refused by `weights_of`.
    """
    roots = _roots(folder)
    if pipeline:
        _check_entries(folder, "", roots, shown)
    for name in components:
        part = folder / name
        if name != WHOLE and not name.isidentifier():
            raise ModelError(f"{shown}: the component {printable(repr(name)[:80])} is not named by letters and digits")
        if not part.is_dir():
            raise ModelError(f"cannot load {shown}: there is no folder {name}; fetch or export the folder again")
        _check_inside(part, name, roots, shown)
        for entry in _check_entries(part, name, roots, shown):
            _check_file(folder, f"{name}/{entry}", shown)
    weighted = set(weighted)
    return {name: weights_of(folder, name, variant, shown) for name in components if name in weighted}


def _is_pair(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(isinstance(word, str) for word in value)


def _says_nothing(value: Any) -> bool:
    return value in (None, [None, None]) or isinstance(value, bool | int | float)


def _roots(folder: Path) -> list[str]:
    """Return the folders in which files may lie: the model's, and the blobs of the hub's cache if it is a snapshot there."""
    real = Path(os.path.realpath(folder))
    blobs = real.parent.parent / "blobs"
    cached = real.parent.name == "snapshots" and blobs.is_dir() and not blobs.is_symlink()
    return [str(real), *([str(blobs)] if cached else [])]


def _check_inside(path: Path, name: str, roots: list[str], shown: str) -> None:
    real = os.path.realpath(path)
    if not any(os.path.commonpath((real, root)) == root for root in roots):
        raise ModelError(f"{shown}: {printable(name)} is a link out of the folder: copy the file or folder into it")


def _check_entries(folder: Path, part: str, roots: list[str], shown: str) -> list[str]:
    """Return the names of a folder's regular files, checked; at the top (part "") only what a library might run."""
    names = os.listdir(folder)
    if len(names) > _MAX_ENTRIES and part:
        raise ModelError(f"{shown}: {part} has {len(names)} entries, more than {_MAX_ENTRIES}")
    files = []
    for entry in sorted(names):
        name = f"{part}/{entry}" if part else entry
        if entry.lower().endswith(".py"):
            raise ModelError(f"{shown}: {printable(name)} is code, which is never run: delete it if you want the model")
        if not part:
            continue
        _check_inside(folder / entry, name, roots, shown)
        try:
            mode = os.stat(folder / entry).st_mode
        except OSError as error:
            raise ModelError(f"cannot load {shown}: {printable(name)}: {error.strerror}") from error
        if stat.S_ISREG(mode):
            files.append(entry)
        elif not stat.S_ISDIR(mode):
            raise ModelError(f"{shown}: {printable(name)} is not a regular file")
    return files


def _check_file(folder: Path, name: str, shown: str) -> None:
    entry = name.rsplit("/", 1)[1]
    if entry in _POINTERS:
        raise ModelError(f"{shown}: {name} leads to another model, which is never loaded: merge the adapter first")
    if entry.endswith((".safetensors", ".msgpack", ".h5", ".onnx")) or ".safetensors.index." in entry:
        return
    if entry.endswith(".json") and entry not in _DATA and ".index." not in entry:
        check_config(read_object(folder, name, shown), f"{shown}: {printable(name)}")
    elif not entry.endswith((".bin", ".pt", ".pth", ".ckpt")) and (folder / name).stat().st_size > _MAX_DATA:
        raise ModelError(f"{shown}: {printable(name)} is larger than {_MAX_DATA} bytes")
