"""Checks of keys that are tried together: names that differ, and a model whose noise has their shape."""

from __future__ import annotations

from collections.abc import Iterable

from treering_verify.errors import UsageError
from treering_verify.watermark.keys.index import KeyIndex
from treering_verify.watermark.keys.key import Key


def check_names(keys: Iterable[Key | KeyIndex]) -> None:
    """Raise UsageError if two keys have the same name; those of an index are not looked at."""
    names = [key.name for key in keys if isinstance(key, Key)]
    if len(set(names)) < len(names):
        raise UsageError(
            "two keys have the same name, so a verdict could not say which matched: rename one (keygen --name)"
        )


def check_fit(keys: Iterable[Key | KeyIndex], shape: tuple[int, int, int], model: str) -> None:
    """Raise UsageError if a key or index is made for noise of another shape than that of the model with this name."""
    for key in keys:
        made_for = key.latent_shape if isinstance(key, Key) else key.family.latent_shape
        if made_for != shape:
            raise UsageError(
                f"{_label(key)} is made for noise {made_for}, model {model!r} has {shape}: make a key for this model with "
                "treering keygen --model"
            )


def _label(key: Key | KeyIndex) -> str:
    if isinstance(key, Key):
        return f"key {key.name!r}"
    return f"the key index {key.source}" if key.source else f"a family of keys ({key.family})"
