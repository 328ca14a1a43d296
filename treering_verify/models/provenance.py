"""What a record says of where it comes from: time, model, weights, keys, settings and versions; values only, no secret."""

from __future__ import annotations

import platform
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any
from weakref import WeakKeyDictionary

from treering_verify.models.protocol import LatentModel
from treering_verify.models.weights import fingerprint
from treering_verify.version import __version__

_PACKAGES = ("torch", "diffusers", "numpy", "scipy", "pillow", "pyarrow")
_WEIGHTS: WeakKeyDictionary[LatentModel, dict[tuple[str, ...], str]] = WeakKeyDictionary()


def provenance_of(
    model: LatentModel | None, keys: Any, settings: dict[str, Any], *, without: tuple[str, ...] = ("screen",)
) -> dict[str, Any]:
    """Return what records have in common that one model, set of keys and settings gave (docs/records.md).

    Parameters
    ----------
    model : LatentModel, optional
        None where no model took part.
    keys : list of dict, or dict
        Names and fingerprints, as `watermark.keys.index.public_keys` gives them.
    settings : dict
        JSON-ready.
    without : tuple of str
        Networks of the model that play no part.
    """
    return {
        "model": model.name if model else None,
        "weights": weights_of(model, without) if model else None,
        "keys": keys,
        "settings": settings,
        "versions": dict(versions()),
    }


def weights_of(model: LatentModel, without: tuple[str, ...] = ("screen",)) -> str:
    """Return `weights.fingerprint`, which is computed once for each model."""
    known = _WEIGHTS.setdefault(model, {})
    if without not in known:
        known[without] = fingerprint(model, without=without)
    return known[without]


@cache
def versions() -> dict[str, str | None]:
    """Return the versions of this package, Python and the packages that numbers depend on; None where one is missing."""
    found: dict[str, str | None] = {"treering-verify": __version__, "python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found


def utc_now() -> str:
    """Return the time in UTC, as 2026-11-29T13:00:00Z."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
