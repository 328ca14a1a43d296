"""What reports need of the first and the last of the detected images, kept while they are judged.

For the images with the smallest and the largest p-values, which reports show, the folder `state/kept` has a file each: a
thumbnail of the image as it was given, the part of it that was judged, and its noise estimate. All of them depend on the
image alone. So a report neither reads these images again nor needs the model.
"""

from __future__ import annotations

import contextlib
import io
import json
import re
from bisect import insort
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from treering_verify.detection.search.page import Page
from treering_verify.detection.search.placement import Placement
from treering_verify.errors import UsageError
from treering_verify.files import opened_regular, write_atomic

if TYPE_CHECKING:
    import numpy.typing as npt
    import torch
    from PIL import Image

    from treering_verify.results import KeyEvidence

FOLDER = "kept"
MOST = 24
"""Images that are kept: half of them the strongest, half the weakest."""
THUMBNAIL = 256
"""Longer side of a thumbnail, in pixels."""

_NAME = re.compile(r"[0-9a-f]{64}\.safetensors")
_MOST_BYTES = 64 * 1024**2
_BY_ROUNDING = 2  # pixels by which a box on a page may differ from its record


@dataclass(frozen=True, eq=False)
class Exhibit:
    """What is kept of one image.

    Attributes
    ----------
    page : bytes
        JPEG: the image as it was given, made small.
    part : bytes
        JPEG: the part of it that was judged, turned back; b"" where that is the whole image.
    noise_hat : (C, h, w) float16, optional
        Its noise estimate: of the part, if there is one. None where the evidence comes from the whole page's map.
    settings_id : str
        Settings of the audit that kept it.
    """

    page: bytes = field(repr=False)
    part: bytes = field(repr=False)
    noise_hat: npt.NDArray[np.float16] | None = field(repr=False)
    settings_id: str


class Rank(NamedTuple):
    """What the choice of exhibits depends on: corrected and plain log10 p, and the SHA-256 of the file."""

    log10_adjusted: float
    log10_pvalue: float
    sha256: str


Gap = tuple[Rank, Rank] | None
"""Weakest of the strongest and strongest of the weakest images: what lies between is not wanted. None: all are."""


class KeptFolder:
    """The folder of an audit's exhibits.

    Parameters
    ----------
    folder : Path
        Made when the first image is kept.
    settings_id : str
        Exhibits of other settings are deleted.
    """

    def __init__(self, folder: Path, settings_id: str) -> None:
        self._folder = folder
        self._ranks: list[Rank] = []
        for path in sorted(folder.iterdir()) if folder.is_dir() else []:
            facts = _facts(path)
            if facts.get("settings_id") == settings_id:
                insort(self._ranks, Rank(facts["log10_adjusted"], facts["log10_pvalue"], path.stem))
            else:
                path.unlink()

    def put(self, rank: Rank, content: bytes) -> Gap:
        """Store the exhibit of an image that is among the strongest or the weakest so far, and return what is not wanted.

        Raises
        ------
        UsageError
            If the folder is not writable.
        """
        if all(rank.sha256 != other.sha256 for other in self._ranks):
            insort(self._ranks, rank)
            dropped = self._ranks.pop(MOST // 2) if len(self._ranks) > MOST else None
            if dropped is not rank:
                self._write(rank, content)
            if dropped is not None and dropped is not rank:
                self._path(dropped).unlink(missing_ok=True)
        full = len(self._ranks) == MOST
        return (self._ranks[MOST // 2 - 1], self._ranks[MOST // 2]) if full else None

    def _path(self, rank: Rank) -> Path:
        return self._folder / f"{rank.sha256}.safetensors"

    def _write(self, rank: Rank, content: bytes) -> None:
        try:
            self._folder.mkdir(exist_ok=True)
            write_atomic(self._path(rank), content)
        except OSError as error:
            raise UsageError(
                f"cannot write an image for reports: {error.strerror}; finished results are kept: free space, and "
                "run the same command again"
            ) from error


class Kept:
    """Makes the exhibits of detected images, and gives them to the folder of an audit.

    Parameters
    ----------
    settings_id : str
    put : callable
        `KeptFolder.put`, or a proxy of it: a cluster's workers send their exhibits to the machine that writes the results.
    """

    def __init__(self, settings_id: str, put: Callable[[Rank, bytes], Gap]) -> None:
        self._settings_id, self._put = settings_id, put
        self._gap: Gap = None

    def add(
        self,
        sha256: str,
        evidence: KeyEvidence,
        image: Image.Image,
        part: Image.Image | None,
        noise_hat: torch.Tensor | None,
    ) -> None:
        """Keep what a report needs of a detected image, unless stronger and weaker ones are enough.

        Raises
        ------
        UsageError
            If the folder is not writable.
        """
        rank = Rank(evidence.log10_adjusted, evidence.log10_pvalue, sha256)
        if self._gap is None or not self._gap[0] < rank < self._gap[1]:
            self._gap = self._put(rank, self._content(rank, image, part, noise_hat))

    def _content(
        self, rank: Rank, image: Image.Image, part: Image.Image | None, noise_hat: torch.Tensor | None
    ) -> bytes:
        from safetensors.numpy import save

        arrays = {"page": np.frombuffer(thumbnail(image), np.uint8)}
        if part is not None:
            arrays["part"] = np.frombuffer(thumbnail(part), np.uint8)
        if noise_hat is not None:
            # In channels-last order the bytes in memory are not those of the array.
            arrays["noise_hat"] = np.ascontiguousarray(noise_hat.cpu().numpy().astype(np.float16))
        facts = {**rank._asdict(), "settings_id": self._settings_id}
        return bytes(save(arrays, {"facts": json.dumps(facts)}))


def read_exhibit(state: Path, sha256: str, settings_id: str) -> Exhibit | None:
    """Return what an audit kept of an image, or None. The file may come from anybody: nothing in it is run.

    Parameters
    ----------
    state : Path
        The subfolder of the audit's folder where exhibits are.
    sha256, settings_id : str
        Values of the image's row.
    """
    path = state / FOLDER / f"{sha256}.safetensors"
    if not _NAME.fullmatch(path.name):
        return None
    facts = _facts(path)
    if facts.get("settings_id") != settings_id:
        return None
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        with opened_regular(path) as file:
            arrays = load(file.read(_MOST_BYTES))
    except (OSError, ValueError, SafetensorError):
        return None
    noise_hat = arrays.get("noise_hat")
    if noise_hat is not None and (noise_hat.ndim != 3 or not np.isfinite(noise_hat).all()):
        return None
    images = [arrays[name].tobytes() if name in arrays else b"" for name in ("page", "part")]
    return Exhibit(images[0], images[1], noise_hat, settings_id)


def part_of(page: Page, placement: dict[str, Any], image_size: tuple[int, int]) -> Image.Image:
    """Return the part of a page that shows an image, turned back; `placement` is its record.

    What lies around the record's box is left out: a page may show an image cut to another shape.
    """
    from treering_verify.media.conversion import to_pil

    placed = Placement.of(placement, image_size).enlarged(1 / page.reduced)
    left, top, right, bottom = box = (*(round(edge / page.reduced) for edge in placement["box"]),)
    differs = max(abs(a - b) for a, b in zip(box, placed.box((0, 0, *page.size)), strict=True)) > _BY_ROUNDING
    if differs and 0 <= left < right <= page.size[0] and 0 <= top < bottom <= page.size[1]:
        page, placed = page.cut((left, top, right, bottom)), placed.moved(-left, -top)
    return to_pil(page.window(placed, image_size)[0][0, :3])


def thumbnail(image: Image.Image) -> bytes:
    """Return an image as a small JPEG."""
    from PIL import Image as pillow

    small = image.convert("RGB")
    small.thumbnail((THUMBNAIL, THUMBNAIL), pillow.Resampling.LANCZOS)
    buffer = io.BytesIO()
    small.save(buffer, format="JPEG", quality=85)
    return buffer.getvalue()


def _facts(path: Path) -> dict[str, Any]:
    """Return the facts in the header of an exhibit; none of one that is damaged, or of something else."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError), opened_regular(path) as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(min(length, 1 << 16)))
        facts = json.loads(header["__metadata__"]["facts"])
        numbers = (facts["log10_adjusted"], facts["log10_pvalue"])
        if all(isinstance(number, float) for number in numbers):
            return dict(facts)
    return {}
