"""The gallery of the page: a thumbnail of each detected file, and the spectrum that is recovered from it."""

from __future__ import annotations

import base64
import hashlib
import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from treering_verify.errors import ImageError
from treering_verify.watermark.keys.key import Key

if TYPE_CHECKING:
    import torch
    from PIL import Image

    from treering_verify.inversion.recovery import InversionOptions
    from treering_verify.models import LatentModel

THUMBNAIL = 168
"""Side of a square that a thumbnail fits into, and side of a spectrum, in pixels."""

_DEFAULT_RADII = (4, 9)
_BATCH = 8


@dataclass(frozen=True)
class Tile:
    """One detected file on the page.

    Attributes
    ----------
    row : dict
        The file's row in the audit.
    thumbnail, spectrum : str
        ``data:`` URIs; "" if there is none.
    agreement : tuple of (ring, cosine)
        Cosine of image and key in each ring of the key; the cosine over all rings is the row's statistic. Empty without the
        key.
    note : str
        Why there is no image, or "".
    """

    row: dict[str, Any]
    thumbnail: str = ""
    spectrum: str = ""
    agreement: tuple[tuple[int, float], ...] = ()
    note: str = ""


def make_tiles(
    rows: Sequence[dict[str, Any]],
    root: Path | None,
    model: LatentModel | None = None,
    inversion: InversionOptions | None = None,
    keys: Mapping[str, Key] | None = None,
) -> list[Tile]:
    """Return a tile for each row: the files are read again; one that is missing, has changed or is elsewhere gets a note.

    Parameters
    ----------
    rows : sequence of dict
        Detected rows.
    root : Path, optional
        Folder where relative paths begin and that images come from; None: the current folder, and images from anywhere.
    model, inversion : optional
        As in the audit; without a model there are no spectra.
    keys : mapping of str to Key, optional
        Keys by fingerprint.
    """
    from treering_verify.models import makes_videos

    frames = model.frames if model and makes_videos(model) else 1
    tiles = []
    for start in range(0, len(rows), _BATCH):
        read = [_read(row, root, frames) for row in rows[start : start + _BATCH]]
        files = [data for data in read if not isinstance(data, str)]
        opened = iter(_open(files, model, inversion))
        for row, data in zip(rows[start : start + _BATCH], read, strict=True):
            found = data if isinstance(data, str) else next(opened)
            if isinstance(found, str):
                tiles.append(Tile(row, note=found))
            else:
                tiles.append(_tile(row, *found, (keys or {}).get(row["fingerprint"] or "")))
    return tiles


def agreement_by_ring(noise_hat: torch.Tensor, key: Key) -> tuple[tuple[int, float], ...]:
    """Return the cosine of the features of noise_hat, (C, h, w), and the key's numbers, for each ring."""
    from treering_verify.watermark.embedding import extract, features, key_bins

    found = features(extract(noise_hat[None], key), key).reshape(len(key.channels), -1)
    numbers = key.numbers.reshape(len(key.channels), -1)
    rings = np.arange(key.inner_radius, key.outer_radius + 1)
    ring_of = np.tile(key_bins(key).ring, 2) if key.pattern == "random" else rings
    answers = []
    for ring in rings:
        a, k = found[:, ring_of == ring].ravel(), numbers[:, ring_of == ring].ravel()
        answers.append((int(ring), float(a @ k / (np.linalg.norm(a) * np.linalg.norm(k) or 1.0))))
    return tuple(answers)


def _read(row: dict[str, Any], root: Path | None, frames: int) -> bytes | list[bytes] | str:
    """Return the bytes of a row's file, or of so many files of a folder of frames, or the reason why there are none."""
    from treering_verify.media.containers import read_member, split_member, stays_in
    from treering_verify.media.frame_folders import read_frames
    from treering_verify.media.images import read_bytes

    if "://" in row["path"]:
        return "read over a network: not fetched again"
    if not row["sha256"]:
        return "its row has no SHA-256, so nothing says which image it was"
    try:
        name = os.fsdecode(row["path_bytes"]) if row.get("path_bytes") else row["path"]
        data: bytes | list[bytes]
        place = (root or Path()) / name
        if root is not None and not stays_in(os.path.realpath(root), str(place)):
            return "outside the folder that images may come from: if they are yours, give --root"
        if os.path.isdir(place):
            stored = read_frames(place, frames)
            data, digest = stored.contents, stored.sha256
        else:
            within = split_member(str(place))
            data = read_member(*within) if within else read_bytes(place)
            digest = hashlib.sha256(data).hexdigest()
        if digest != row["sha256"]:
            return "the file has changed since the audit"
        return data
    except ImageError as error:
        return error.reason
    except (OSError, ValueError):  # a NUL, or a name that is too long
        return "no file can have that name"


def _open(
    files: list[bytes | list[bytes]], model: LatentModel | None, inversion: InversionOptions | None
) -> list[tuple[Image.Image, torch.Tensor | None] | str]:
    """Return each image, or first frame, with its noise estimate (None without a model); or the reason for neither."""
    from treering_verify.media.images import fit, open_image, to_tensor
    from treering_verify.media.videos import open_video
    from treering_verify.models import makes_videos

    decoded: list[tuple[Image.Image, list[Image.Image]] | str] = []
    for data in files:
        try:
            if model and makes_videos(model):
                frames = open_video(data, model.frames, model.image_size).frames
                decoded.append((frames[0], frames))
            else:
                image = open_image(data if isinstance(data, bytes) else data[0])
                decoded.append((image, [fit(image, model.image_size)[0]] if model else []))
        except ImageError as error:
            decoded.append(error.reason)
    if model is None:
        return [one if isinstance(one, str) else (one[0], None) for one in decoded]

    import torch

    from treering_verify.inversion.recovery import InversionOptions, recover_in_batches

    batch = [torch.cat([to_tensor(f) for f in one[1]], dim=1) for one in decoded if not isinstance(one, str)]
    noise = iter(recover_in_batches(model, inversion or InversionOptions(), torch.cat(batch)) if batch else ())
    return [one if isinstance(one, str) else (one[0], next(noise)) for one in decoded]


def _tile(row: dict[str, Any], image: Image.Image, noise_hat: torch.Tensor | None, key: Key | None) -> Tile:
    from PIL import Image as pillow

    from treering_verify.report.figures import spectrum_tile

    small = image.copy()
    small.thumbnail((THUMBNAIL, THUMBNAIL), pillow.Resampling.LANCZOS)
    thumbnail = _address(small, "JPEG", quality=85)
    if noise_hat is None:
        return Tile(row, thumbnail)
    channels = key.channels if key else tuple(range(len(noise_hat)))
    radii = (key.inner_radius, key.outer_radius) if key else _DEFAULT_RADII
    spectrum = _address(spectrum_tile(noise_hat, channels, radii, THUMBNAIL), "PNG")
    return Tile(row, thumbnail, spectrum, agreement_by_ring(noise_hat, key) if key else ())


def _address(image: Image.Image, format_name: str, **options: int) -> str:
    buffer = io.BytesIO()
    image.save(buffer, format=format_name, **options)
    return f"data:image/{format_name.lower()};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
