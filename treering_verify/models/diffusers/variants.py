"""Name the variant of weights that a folder has, where it has no others."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

from treering_verify.errors import ModelError
from treering_verify.files import printable

# model.fp16.safetensors, model.fp16-00001-of-00002.safetensors, and model.safetensors.index.fp16.json beside the latter
_VARIANT = re.compile(r"[^.]+\.(?P<variant>[A-Za-z0-9_]+)(-\d+-of-\d+)?\.safetensors")
_PLAIN = re.compile(r"[^.]+\.safetensors")


def check_variant(folder: Path, parts: Iterable[str], variant: str | None, shown: str) -> None:
    """Raise ModelError if a component has weights of some variant only, and no variant is chosen.

    Parameters
    ----------
    folder : Path
        A pipeline's folder.
    parts : iterable of str
        Folders of components in it that have weights.
    variant : str, optional
        The chosen variant.
    shown : str
        Printable name of the model, for messages.
    """
    if variant is not None:
        return  # diffusers says what it does not find
    for part in sorted(parts):
        names = os.listdir(folder / part) if (folder / part).is_dir() else []
        found = sorted({match["variant"] for name in names if (match := _VARIANT.fullmatch(name))})
        if found and not any(_PLAIN.fullmatch(name) for name in names):
            choice = printable(found[0])
            raise ModelError(
                f"{shown}: the weights of {printable(part)} are of the variant {choice} only: "
                f"choose it with --variant {choice} (variant={choice!r} in Python)"
            )
