"""Read the headers of safetensors files, and the lists of files that weights are divided among."""

from __future__ import annotations

import os
import struct
from itertools import chain, pairwise
from math import prod
from pathlib import Path
from typing import Any

from treering_verify.errors import ModelError
from treering_verify.files import opened_regular, printable
from treering_verify.models.checks.json_files import parsed_object, read_object

_STEMS = ("diffusion_pytorch_model", "model")
PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
_MAX_HEADER = 2**24
_MAX_INDEX = 2**25  # a table of as many tensors
MAX_TENSORS = 100_000
MAX_NUMBERS = 2**35  # in the weights of one network
_MAX_AXES = 8
_BYTES = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2", "F8_E8M0"), 1),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 2),
    **dict.fromkeys(("U32", "I32", "F32"), 4),
    **dict.fromkeys(("U64", "I64", "F64", "C64"), 8),
}
_SPARSE = 2**26  # a larger file must have most of its blocks


def weights_of(folder: Path, part: str, variant: str | None, shown: str) -> list[int]:
    """Return how many numbers each set of weights of a network's folder has: one for each set that a library could read.

    Parameters
    ----------
    folder : Path
        The model folder.
    part : str
        Name of the network's folder in it.
    variant : str, optional
        Variant of the files; without files of that variant, those without one are read.
    shown : str
        Printable name of the model, for messages.

    Raises
    ------
    ModelError
        If weights are pickled only, a list of files names anything but safetensors files beside it, or a file is damaged.
    """
    names = sorted(os.listdir(folder / part))
    sets: list[list[str]] = []
    for suffix in ([f".{variant}"] if variant else []) + [""]:
        for stem in _STEMS:
            if (single := f"{stem}{suffix}.safetensors") in names:
                sets.append([single])
            if (index := f"{stem}.safetensors.index{suffix}.json") in names:
                sets.append(listed_files(folder, f"{part}/{index}", shown))
        if sets:
            break
    if not sets and any(Path(name).suffix.lower() in PICKLED for name in names):
        raise ModelError(
            f"the weights of {printable(part)} are pickled, which can run code, and are never read: fetch or convert them "
            "as .safetensors"
        )
    return [sum(numbers_in(folder / part / name, f"{shown}: {part}/{printable(name)}") for name in one) for one in sets]


def listed_files(folder: Path, index: str, shown: str) -> list[str]:
    """Return the names of the files that an index lists; ModelError if one is no safetensors file beside the index."""
    weights = read_object(folder, index, shown, _MAX_INDEX).get("weight_map")
    where = f"{shown}: {printable(index)}"
    if not isinstance(weights, dict) or len(weights) > MAX_TENSORS:
        raise ModelError(f"{where}: weight_map is not a table of at most {MAX_TENSORS} tensors")
    for name in weights.values():
        plain = isinstance(name, str) and name.endswith(".safetensors") and not set(name) & set("/\\\0")
        if not plain:
            raise ModelError(
                f"{where}: weight_map names {printable(repr(name)[:80])}: only .safetensors files beside it are read"
            )
    return sorted(set(weights.values()))


def numbers_in(path: Path, where: str) -> int:
    """Return how many numbers a safetensors file holds, by its header.

    Raises
    ------
    ModelError
        If it is no safetensors file, its header breaks the format or a limit, tensors lie outside the file, or most of a
        large file is holes.
    """
    return sum(prod(entry["shape"]) for entry in header_of(path, where).values())


def header_of(path: Path, where: str) -> dict[str, Any]:
    """Return the tensors of a safetensors file by name, from its header, checked; errors as for `numbers_in`."""
    try:
        with opened_regular(path) as file:
            status = os.fstat(file.fileno())
            start = file.read(8)
            length = struct.unpack("<Q", start)[0] if len(start) == 8 else -1
            if not 2 <= length <= status.st_size - 8:
                raise ValueError("not a safetensors file, or cut short")
            if length > _MAX_HEADER:
                raise ValueError(f"a header of {length} bytes, more than {_MAX_HEADER}")
            text = file.read(length)
            if (count := text.count(b'"data_offsets"')) > MAX_TENSORS:  # before they are parsed, which takes long
                raise ValueError(f"{count} tensors, more than {MAX_TENSORS}")
            header = parsed_object(text)
        header.pop("__metadata__", None)
        _check_tensors(header, status.st_size - 8 - length)
        blocks = getattr(status, "st_blocks", 0) * 512  # 0 where a file system does not say
        if status.st_size > _SPARSE and 0 < blocks < status.st_size // 4:
            raise ValueError("most of the file is holes")
    except (OSError, ValueError) as error:
        reason = printable(str(getattr(error, "strerror", None) or error))
        raise ModelError(f"cannot load {where}: {reason}; fetch or export the weights again") from error
    return header


def _check_tensors(header: dict[str, Any], size: int) -> None:
    total = 0
    if len(header) > MAX_TENSORS:  # fields may be spelled by escapes
        raise ValueError(f"{len(header)} tensors, more than {MAX_TENSORS}")
    for name, entry in header.items():
        shown = repr(name[:80])
        if not isinstance(entry, dict) or entry.get("dtype") not in _BYTES:
            raise ValueError(f"tensor {shown} has no known dtype")
        shape, ends = entry.get("shape"), entry.get("data_offsets")
        if not isinstance(shape, list) or not isinstance(ends, list) or len(shape) > _MAX_AXES or len(ends) != 2:
            raise ValueError(f"tensor {shown} has no shape or place")
        if not all(type(n) is int and 0 <= n < 2**48 for n in chain(shape, ends)):
            raise ValueError(f"tensor {shown} has a size that is no number, or too large")
        numbers = prod(shape)
        if not ends[0] <= ends[1] <= size or numbers * _BYTES[entry["dtype"]] != ends[1] - ends[0]:
            raise ValueError(f"tensor {shown} does not fit the file")
        total += numbers
    places = sorted(entry["data_offsets"] for entry in header.values())
    if any(first[1] > second[0] for first, second in pairwise(places)):
        raise ValueError("tensors that share bytes")
    if total > MAX_NUMBERS or total > size:
        raise ValueError(f"{total} numbers, more than {min(MAX_NUMBERS, size)}")
