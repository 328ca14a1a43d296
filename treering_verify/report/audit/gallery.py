"""The gallery of the page: each detected file as it was given, the part that was judged, and its agreement with the key.

What the audit kept of a file (`detection.exhibits`) is used; any other file is read and inverted again.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from treering_verify.detection.exhibits import Exhibit, part_of, read_exhibit, thumbnail
from treering_verify.detection.search.neighbours import NEAR
from treering_verify.errors import ImageError
from treering_verify.report.audit.agreement import Agreement, agreement, draw_agreement
from treering_verify.watermark.keys.key import Key

if TYPE_CHECKING:
    import torch
    from PIL import Image

    from treering_verify.inversion.recovery import InversionOptions
    from treering_verify.models import LatentModel

SPECTRUM = 168
"""Side of a drawn spectrum or agreement, in pixels."""

_DEFAULT_RADII = (4, 9)
_BATCH = 8


@dataclass(frozen=True)
class Tile:
    """One detected file on the page.

    Attributes
    ----------
    row : dict
        The file's row in the audit.
    thumbnail : str
        ``data:`` URI of the image as it was given; "" if there is none.
    part : str
        ``data:`` URI of the part that was judged, turned back; "" where that is the whole image.
    outline : tuple of (x, y)
        Corners of that part, in shares of the image's width and height.
    spectrum : str
        ``data:`` URI of the power of the noise estimate by frequency, where its agreement with the key is not known.
    agreement : Agreement, optional
        With the key; None without the key.
    drawn : str
        ``data:`` URI of the agreement's map; "" where there is none.
    note : str
        Why there is no image, or "".
    """

    row: dict[str, Any]
    thumbnail: str = ""
    part: str = ""
    outline: tuple[tuple[float, float], ...] = ()
    spectrum: str = ""
    agreement: Agreement | None = None
    drawn: str = ""
    note: str = ""


@dataclass(frozen=True)
class Sources:
    """Where tiles come from.

    Attributes
    ----------
    state : Path
        The audit's subfolder with what it kept.
    root : Path, optional
        Folder where relative paths begin and that images come from; None: the current folder, and images from anywhere.
    model : callable
        Called at most once, if a file has to be read again: returns the model, or why there is none.
    inversion : InversionOptions, optional
        As in the audit.
    keys : mapping of str to Key
        Keys by fingerprint.
    spectra : bool
        Whether noise estimates are drawn.
    again : bool
        Whether files of which nothing was kept are read again.
    """

    state: Path
    root: Path | None = None
    model: Callable[[], LatentModel | str] = lambda: ""
    inversion: InversionOptions | None = None
    keys: Mapping[str, Key] = field(default_factory=dict)
    spectra: bool = True
    again: bool = True


def make_tiles(rows: Sequence[dict[str, Any]], sources: Sources) -> tuple[list[Tile], str]:
    """Return a tile for each detected row, and why files that were read again have no spectrum, or "".

    A file that is missing, has changed or is elsewhere gets a note.
    """
    found: dict[int, Tile] = {}
    for i, row in enumerate(rows):
        exhibit = read_exhibit(sources.state, row["sha256"] or "", row["settings_id"])
        tile = _kept_tile(row, exhibit, sources) if exhibit else None
        if tile:
            found[i] = tile
    left = [i for i in range(len(rows)) if i not in found]
    if not left:
        return [found[i] for i in range(len(rows))], ""
    if not sources.again:
        return [found[i] for i in sorted(found)], ""
    model = sources.model() if sources.spectra else ""
    for start in range(0, len(left), _BATCH):
        batch = left[start : start + _BATCH]
        made = _read_tiles([rows[i] for i in batch], sources, None if isinstance(model, str) else model)
        found |= dict(zip(batch, made, strict=True))
    return [found[i] for i in range(len(rows))], model if isinstance(model, str) else ""


def placement_of(row: dict[str, Any]) -> dict[str, Any] | None:
    """Return the placement in a row, which may come from anybody; None if there is none, or it is damaged."""
    try:
        record = json.loads(row.get("placement") or "null")
        numbers = [*record["box"], *record["scale"], record["degrees"], *(n for xy in record["corners"] for n in xy)]
        shaped = len(record["box"]) == len(record["corners"]) == 4 and len(record["scale"]) == 2 and len(numbers) == 15
        if shaped and isinstance(record["mirrored"], bool) and all(abs(float(n)) < 1e6 for n in numbers):
            return dict(record) if min(record["scale"]) > 0 else None
    except (ValueError, TypeError, KeyError, RecursionError):
        pass
    return None


def found_words(row: dict[str, Any]) -> str:
    """Say how a mark was found, such as "mirrored, at 31 % of the model's scale, in this box"; "" for an image as it is.

    Where other hypotheses show the key about as well, it begins with "near: ".
    """
    said = (row.get("hypothesis") or "").replace(NEAR, "near: ")
    record = placement_of(row)
    return said if record is None else ("near: " if "near: " in said else "") + _placement_words(record, row)


def _placement_words(record: dict[str, Any], row: dict[str, Any]) -> str:
    across, down = record["scale"]
    scale = f"{across:.0%}" if abs(across / down - 1) < 0.02 else f"{across:.0%} (across) and {down:.0%} (down)"
    parts = [
        "mirrored" if record["mirrored"] else "",
        f"turned by {record['degrees']:g} degrees" if record["degrees"] else "",
        f"at {scale.replace('%', ' %')} of the model's scale",
        "over the whole image" if _is_whole(record, row) else "in this box",
    ]
    return ", ".join(filter(None, parts))


def _is_whole(record: dict[str, Any], row: dict[str, Any]) -> bool:
    """Whether a placement fills its page, whichever way EXIF turned it."""
    return record["box"][:2] == [0, 0] and set(record["box"][2:]) == {row["width"], row["height"]}


def _kept_tile(row: dict[str, Any], exhibit: Exhibit, sources: Sources) -> Tile | None:
    import torch

    page, part = (_safe(data) for data in (exhibit.page, exhibit.part))
    if page is None:
        return None
    noise_hat = None if exhibit.noise_hat is None else torch.from_numpy(exhibit.noise_hat.astype("float32"))
    return _tile(row, page, part, noise_hat if sources.spectra else None, sources.keys)


def _safe(data: bytes) -> Image.Image | None:
    """Return an image that was kept; it is decoded and encoded anew, because the folder may come from anybody."""
    from treering_verify.media.isolation.decoding import decode_image

    try:
        return decode_image(data) if data else None
    except ImageError:
        return None


def _read_tiles(rows: Sequence[dict[str, Any]], sources: Sources, model: LatentModel | None) -> list[Tile]:
    from treering_verify.models import makes_videos

    frames = model.frames if model and makes_videos(model) else 1
    read = [_read(row, sources.root, frames) for row in rows]
    files = [(row, data) for row, data in zip(rows, read, strict=True) if not isinstance(data, str)]
    opened = iter(_open(files, model, sources.inversion))
    tiles = []
    for row, data in zip(rows, read, strict=True):
        found = data if isinstance(data, str) else next(opened)
        tiles.append(Tile(row, note=found) if isinstance(found, str) else _tile(row, *found, sources.keys))
    return tiles


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


_Opened = tuple["Image.Image", "Image.Image | None", "torch.Tensor | None"]


def _open(
    files: Sequence[tuple[dict[str, Any], bytes | list[bytes]]],
    model: LatentModel | None,
    inversion: InversionOptions | None,
) -> list[_Opened | str]:
    """Return each image, or first frame, the part that was judged, and its noise estimate (None without a model)."""
    from treering_verify.detection.search.page import Page
    from treering_verify.media.conversion import fit, to_tensor
    from treering_verify.media.isolation.decoding import decode_image, decode_video
    from treering_verify.models import makes_videos

    decoded: list[tuple[Image.Image, Image.Image | None, list[Image.Image]] | str] = []
    for row, data in files:
        try:
            if model and makes_videos(model):
                frames = decode_video(data, model.frames, model.image_size).frames
                decoded.append((frames[0], None, frames))
                continue
            image = decode_image(data if isinstance(data, bytes) else data[0])
            placement = placement_of(row) if model else None
            part = part_of(Page((image,)), placement, model.image_size) if model and placement else None
            decoded.append((image, part, [part or fit(image, model.image_size)[0]] if model else []))
        except ImageError as error:
            decoded.append(error.reason)
    if model is None:
        return [one if isinstance(one, str) else (one[0], None, None) for one in decoded]

    import torch

    from treering_verify.inversion.recovery import InversionOptions, recover_in_batches

    batch = [torch.cat([to_tensor(f) for f in one[2]], dim=1) for one in decoded if not isinstance(one, str)]
    noise = iter(recover_in_batches(model, inversion or InversionOptions(), torch.cat(batch)) if batch else ())
    return [one if isinstance(one, str) else (one[0], one[1], next(noise)) for one in decoded]


def _tile(
    row: dict[str, Any],
    image: Image.Image,
    part: Image.Image | None,
    noise_hat: torch.Tensor | None,
    keys: Mapping[str, Key],
) -> Tile:
    key = keys.get(row["fingerprint"] or "")
    placement = placement_of(row)
    outline: tuple[tuple[float, float], ...] = ()
    if placement and row["width"] and row["height"] and not _is_whole(placement, row):
        size = sorted((row["width"], row["height"]), reverse=image.width > image.height)  # EXIF may have turned it
        outline = tuple((float(x) / size[0], float(y) / size[1]) for x, y in placement["corners"])
    tile = Tile(row, _jpeg(image), _jpeg(part) if part else "", outline)
    if noise_hat is None or (key and tuple(noise_hat.shape) != key.latent_shape):
        return tile
    found = agreement(noise_hat, key) if key else None
    return Tile(
        row,
        tile.thumbnail,
        tile.part,
        outline,
        _spectrum(noise_hat, key) if found is None or not len(found.levels) else "",
        found,
        _png(draw_agreement(found, SPECTRUM)) if found is not None and len(found.levels) else "",
    )


def _spectrum(noise_hat: torch.Tensor, key: Key | None) -> str:
    from treering_verify.report.figures import spectrum_tile

    channels = key.channels if key else tuple(range(len(noise_hat)))
    radii = (key.inner_radius, key.outer_radius) if key else _DEFAULT_RADII
    return _png(spectrum_tile(noise_hat, channels, radii, SPECTRUM))


def _jpeg(image: Image.Image) -> str:
    return _address(thumbnail(image), "jpeg")


def _png(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return _address(buffer.getvalue(), "png")


def _address(data: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"
