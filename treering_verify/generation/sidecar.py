"""The description of a marked image, which is stored beside it: what it was made with and when; no secret."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from treering_verify.media.digests import sha256_of
from treering_verify.models import LatentModel
from treering_verify.models.provenance import provenance_of, utc_now
from treering_verify.results import SIDECAR_VERSION
from treering_verify.watermark.keys.index import public_keys
from treering_verify.watermark.keys.key import Key

_MOST_KEYS = 20


def sidecar(
    model: LatentModel,
    key: Key | Sequence[Key] | None,
    settings: Mapping[str, Any],
    *,
    file: str | Path | None = None,
    **facts: Any,
) -> dict[str, Any]:
    """Return the sidecar of an image, JSON-ready, as `treering generate` writes it (docs/records.md).

    For scripts that mark by `watermarked_noise`, ``sidecar(from_pipeline(pipe), key, {"steps": 50}, file="a.png", seed=7)``.

    Parameters
    ----------
    model : LatentModel
    key : Key, sequence of Key, or None
        The key of the image, the keys of a call's images, or None for an unmarked one.
    settings : mapping
        What the image depends on besides, such as steps and guidance.
    file : str or Path, optional
        The image as it is stored, for its SHA-256.
    **facts
        Further fields, such as `seed`.
    """
    several = key is not None and not isinstance(key, Key)
    keys: list[Key] = [] if key is None else [key] if isinstance(key, Key) else list(key)
    names: list[Any] = [one.name for one in keys] or [None]
    fingerprints: list[Any] = [one.fingerprint for one in keys] or [None]
    return {
        "schema_version": SIDECAR_VERSION,
        "model": model.name,
        "marked": bool(keys),
        "key": names if several else names[0],
        "fingerprint": fingerprints if several else fingerprints[0],
        **facts,
        **settings,
        "time": utc_now(),
        "provenance": provenance_of(model, public_keys(keys, _MOST_KEYS), dict(settings)),
        **({} if file is None else {"sha256": sha256_of(file)}),
    }
