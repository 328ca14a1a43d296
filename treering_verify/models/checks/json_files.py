"""Read small JSON files of a model folder, with limits on kind, size and depth."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NoReturn

from treering_verify.errors import ModelError
from treering_verify.files import opened_regular, printable

MAX_BYTES = 2**20
MAX_DEPTH = 32
_MAX_DIGITS = 64


def read_object(folder: Path, name: str, shown: str, limit: int = MAX_BYTES) -> dict[str, Any]:
    """Read a JSON object of a model folder.

    Parameters
    ----------
    folder : Path
        The model folder.
    name : str
        Path of the file in it.
    shown : str
        Printable name of the model, for messages.
    limit : int
        Largest size in bytes.

    Raises
    ------
    ModelError
        If the file is missing, not a regular file, larger than the limit, nested more than `MAX_DEPTH` deep, or no JSON
        object; also for NaN, infinities and a field that occurs twice.
    """
    try:
        return parsed_object(read_regular(folder / name, limit))
    except (OSError, ValueError) as error:
        reason = printable(str(getattr(error, "strerror", None) or error))
        raise ModelError(
            f"cannot load {shown}: {printable(name)}: {reason}; fetch or export the folder again"
        ) from error


def read_regular(path: Path, limit: int) -> bytes:
    """Return the bytes of a regular file; OSError for another kind of file, ValueError for more bytes than the limit."""
    with opened_regular(path) as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise ValueError(f"larger than {limit} bytes")
    return data


def parsed_object(data: bytes) -> dict[str, Any]:
    """Return the object of a JSON text in UTF-8; ValueError for anything else, and as `read_object` says."""
    try:
        found = json.loads(
            data.decode("utf-8"),
            parse_int=_whole_number,
            parse_constant=_not_a_number,
            object_pairs_hook=_without_repetition,
        )
    except RecursionError:
        raise _too_deep() from None
    if not isinstance(found, dict):
        raise ValueError("not a JSON object")
    _check_depth(found)
    return found


def _check_depth(value: dict[str, Any]) -> None:
    level: list[Any] = [value]
    for _ in range(MAX_DEPTH):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, dict | list)
        ]
        if not level:
            return
    raise _too_deep()


def _too_deep() -> ValueError:
    return ValueError(f"nested more than {MAX_DEPTH} deep")


def _whole_number(text: str) -> int:
    if len(text) > _MAX_DIGITS:
        raise ValueError(f"a number of {len(text)} digits")
    return int(text)


def _not_a_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a number of JSON")


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a field occurs twice")
    return found
