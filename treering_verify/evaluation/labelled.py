"""A folder of images whose keys are known: from a table, from the sidecars, or from the names of subfolders."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from treering_verify.errors import UsageError, unknown
from treering_verify.files import printable
from treering_verify.watermark.keys.index import KeyIndex
from treering_verify.watermark.keys.key import Key

NONE = "none"
"""Label of an unmarked image."""

_LARGEST_SIDECAR = 1 << 20  # bytes


def labelled_images(
    folder: str | Path, keys: Sequence[Key | KeyIndex], *, table: str | Path | None = None
) -> list[tuple[Path, str]]:
    """Return the images of a folder and its subfolders, each with the name of the key that marked it, or "none".

    Parameters
    ----------
    folder : path
        Its images are found by their first bytes; hidden files are left out.
    keys : sequence of Key and KeyIndex
        The keys that labels may name.
    table : path, optional
        CSV with the columns ``path`` (relative to `folder`) and ``key`` (a name or a fingerprint; empty or "none" for an
        unmarked image). Only the images that it lists are returned. Without it an image's key is that of the sidecar beside
        it, as `treering generate` writes it; an image without a sidecar has the key that its subfolder is named as.

    Returns
    -------
    list of (Path, str), in the order of paths

    Raises
    ------
    UsageError
        If there is no image, an image has no label, a label names none of the keys, a path of the table does not exist or
        occurs twice, or a key is called "none".
    """
    root = Path(folder)
    known = _known(keys)
    if table is not None:
        found = _of_table(root, Path(table), known)
    else:
        found = [(path, _label(root, path, known)) for path in _images(root)]
    if not found:
        raise UsageError(f"{_shown(root)} has no images: name a folder that holds images of your keys")
    return sorted(found)


def _known(keys: Sequence[Key | KeyIndex]) -> dict[str, str]:
    """Return the name of each key by its name and by its fingerprint."""
    known: dict[str, str] = {}
    for each in keys:
        if isinstance(each, Key):
            pairs = [(each.name, each.fingerprint)]
        else:
            facts = each.facts
            pairs = [
                (name.decode("ascii", "replace"), text.decode("ascii", "replace"))
                for name, text in zip(facts["name"].tolist(), facts["fingerprint"].tolist(), strict=True)
            ]
        known |= {word: name for name, text in pairs for word in (name, text)}
    if NONE in known:
        raise UsageError(f"a key is called {NONE!r}, which stands for unmarked images: make the key with another name")
    return known


def _images(root: Path) -> list[Path]:
    from treering_verify.media.formats import is_image
    from treering_verify.media.images import read_head

    if not root.is_dir():
        raise UsageError(f"{_shown(root)} is not a folder")
    files = (path for path in sorted(root.rglob("*")) if path.is_file() and not path.name.startswith("."))
    return [path for path in files if is_image(read_head(path)[0], path.name)]


def _label(root: Path, path: Path, known: dict[str, str]) -> str:
    """Return the label of an image by its sidecar or, without one, by its subfolder."""
    beside = path.with_suffix(".json")
    if beside.is_file():
        sidecar = _sidecar(beside)
        if not sidecar["marked"]:
            return NONE
        return _named(sidecar["fingerprint"], known, f"the sidecar {_shown(beside)}")
    if path.parent == root:
        raise UsageError(
            f"nothing says which key {_shown(path)} has: put {beside.name} beside it as treering generate writes it, move "
            "it to a subfolder named as its key, or give a table (path,key)"
        )
    return _named(path.parent.name, known, f"the folder of {_shown(path)}")


def _sidecar(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            content = json.loads(file.read(_LARGEST_SIDECAR))
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"{_shown(path)} cannot be read as a sidecar ({type(error).__name__})") from error
    if not isinstance(content, dict) or not isinstance(content.get("marked"), bool):
        raise UsageError(f"{_shown(path)} is not a sidecar of treering generate: it has no field 'marked'")
    if content["marked"] and not isinstance(content.get("fingerprint"), str):
        raise UsageError(f"{_shown(path)} names no single key in its field 'fingerprint'")
    return content


def _of_table(root: Path, table: Path, known: dict[str, str]) -> list[tuple[Path, str]]:
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            rows = [(reader.line_num, row) for row in reader]
            columns = reader.fieldnames or []
    except (OSError, ValueError, csv.Error) as error:
        raise UsageError(f"{_shown(table)} cannot be read as CSV ({type(error).__name__})") from error
    if not {"path", "key"} <= set(columns):
        raise UsageError(f"{_shown(table)} needs the columns path and key in its first line")
    found: dict[Path, str] = {}
    for line, row in rows:
        where = f"line {line} of {_shown(table)}"
        path = root / (row["path"] or "")
        if not path.is_file():
            raise UsageError(f"{where}: there is no file {_shown(path)}")
        if path in found:
            raise UsageError(f"{where}: {_shown(path)} is listed twice")
        found[path] = _named((row["key"] or "").strip(), known, where)
    return list(found.items())


def _named(label: str, known: dict[str, str], where: str) -> str:
    if label in ("", NONE):
        return NONE
    if label not in known:
        raise UsageError(f"{where}: {unknown('key', printable(label), tuple(sorted(set(known.values()))[:20]))}")
    return known[label]


def _shown(path: Path) -> str:
    return printable(str(path))
