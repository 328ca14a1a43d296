"""The page: an image, or a video's frames, at its own size, and parts of it as a model takes them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from treering_verify.detection.search.placement import Box, Placement, Points
from treering_verify.media.conversion import to_pil, to_tensor

if TYPE_CHECKING:
    import torch
    from PIL import Image


@dataclass(frozen=True, eq=False)
class Page:
    """What was given to be judged, before it was brought to the model's size.

    Attributes
    ----------
    frames : tuple of PIL.Image.Image
        RGB, of one size: one for an image.
    reduced : float
        Sides of the file's image over those of `frames`: at least 1.
    part : tuple of int, optional
        Left, top, right and bottom of `frames` on a larger page that they are a part of.
    whole : tuple of int, optional
        Width and height of that page.
    """

    frames: tuple[Image.Image, ...] = field(repr=False)
    reduced: float = 1.0
    part: Box | None = None
    whole: tuple[int, int] | None = None

    @classmethod
    def of(cls, image: torch.Tensor) -> Page:
        """Return the page of one image, or video, (3 F, H, W) float32 in [-1, 1]."""
        return cls(tuple(to_pil(frame) for frame in image.split(3)))

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        return self.frames[0].size

    @property
    def pixels(self) -> int:
        """Count of pixels of a frame."""
        return self.size[0] * self.size[1]

    @property
    def file_size(self) -> tuple[int, int]:
        """Width and height of the file's image."""
        width, height = self.whole or self.size
        return round(width * self.reduced), round(height * self.reduced)

    def cut(self, part: Box) -> Page:
        """Return a part of the page (left, top, right, bottom) as a page of its own, which knows where it lies."""
        return Page(tuple(frame.crop(part) for frame in self.frames), self.reduced, part, self.size)

    def words(self, placement: Placement, image_size: tuple[int, int]) -> str:
        """Say in words how the file's image shows an image of (height, width) that lies on the page."""
        return self._in_file(placement).words(self.file_size, image_size, self._part_of_file)

    def record(self, placement: Placement, image_size: tuple[int, int]) -> dict[str, Any]:
        """Return where the file's image shows an image of (height, width) that lies on the page, JSON-ready."""
        return self._in_file(placement).record(self.file_size, image_size, self._part_of_file)

    def _in_file(self, placement: Placement) -> Placement:
        return placement.moved(*(self.part or (0, 0))[:2]).enlarged(self.reduced)

    @property
    def _part_of_file(self) -> Box | None:
        if self.part is None:
            return None
        left, top, right, bottom = (round(edge * self.reduced) for edge in self.part)
        return left, top, right, bottom

    def scaled(self, scale: float) -> torch.Tensor:
        """Return the whole page, (1, 3 F, H, W), its sides rounded to pixels; antialiased where it shrinks."""
        from PIL import Image

        size = (max(8, round(self.size[0] * scale)), max(8, round(self.size[1] * scale)))
        kind = Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.BICUBIC
        return _tensor([frame if size == frame.size else frame.resize(size, kind) for frame in self.frames])

    def window(self, placement: Placement, image_size: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
        """Cut the image that lies on the page by a placement, and bring it to a model's size.

        Parameters
        ----------
        placement : Placement
        image_size : (height, width)

        Returns
        -------
        image : (1, 3 F, height, width) float32
            The page's edge goes on outside the page.
        visible : (1, 1, height, width) float32
            1 on the page, 0 outside.
        """
        import torch

        height, width = image_size
        v, u = np.meshgrid(
            (np.arange(height) + 0.5) / height - 0.5, (np.arange(width) + 0.5) / width - 0.5, indexing="ij"
        )
        x, y = placement.to_page(u, v)
        inside = (x > 0) & (x < self.size[0]) & (y > 0) & (y < self.size[1])
        frames = [_cut(frame, placement, (x, y), image_size) for frame in self.frames]
        return _tensor(frames), torch.from_numpy(inside)[None, None].float()


def _tensor(frames: list[Image.Image]) -> torch.Tensor:
    import torch

    return torch.cat([to_tensor(frame) for frame in frames], dim=1)


def _cut(
    page: Image.Image, placement: Placement, where: tuple[Points, Points], image_size: tuple[int, int]
) -> Image.Image:
    """Sample a page at positions (x, y), each (height, width), after shrinking it where the image is larger on it."""
    from PIL import Image

    # The part of the page that is needed, its edge going on where the image reaches beyond.
    margin = 4 * max(1.0, placement.width / image_size[1], placement.height / image_size[0])
    low = [math.floor(part.min() - margin) for part in where]
    high = [math.ceil(part.max() + margin) for part in where]
    columns, rows = (
        np.clip(np.arange(start, stop), 0, length - 1) for start, stop, length in zip(low, high, page.size, strict=True)
    )
    box = (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)
    part = Image.fromarray(np.asarray(page.crop(box))[rows - box[1]][:, columns - box[0]])
    if placement.degrees % 90 == 0:
        return _straight(part, placement, (low[0], low[1]), image_size)
    return _turned(part, placement, (where[0] - low[0], where[1] - low[1]), image_size)


def _straight(
    part: Image.Image, placement: Placement, corner: tuple[int, int], image_size: tuple[int, int]
) -> Image.Image:
    """Cut an upright box out of a part of a page, whose upper left corner is given, resample it and turn it back."""
    from PIL import Image, ImageOps

    height, width = image_size
    quarter = round(placement.degrees / 90) % 4
    (left, top), (right, bottom) = (pick(axis=0) - corner for pick in (placement.corners.min, placement.corners.max))
    shrinks = placement.width > width or placement.height > height
    kind = Image.Resampling.LANCZOS if shrinks else Image.Resampling.BICUBIC
    size = (width, height) if quarter % 2 == 0 else (height, width)
    cut = part.resize(size, kind, box=(float(left), float(top), float(right), float(bottom)))
    if quarter:
        turns = (Image.Transpose.ROTATE_270, Image.Transpose.ROTATE_180, Image.Transpose.ROTATE_90)
        cut = cut.transpose(turns[quarter - 1])
    return ImageOps.mirror(cut) if placement.mirrored else cut


def _turned(
    part: Image.Image, placement: Placement, where: tuple[Points, Points], image_size: tuple[int, int]
) -> Image.Image:
    """Sample a part of a page at positions on it, bicubically."""
    import torch
    from PIL import Image

    shrink = min(1.0, image_size[1] / placement.width, image_size[0] / placement.height)
    width, height = (max(1, round(length * shrink)) for length in part.size)
    small = part if shrink == 1 else part.resize((width, height), Image.Resampling.LANCZOS)
    pixels = torch.from_numpy(np.array(small)).permute(2, 0, 1)[None].float()
    # grid_sample without align_corners: -1 and 1 are the outer edges of the first and the last pixel.
    grid = np.stack([2 * where[0] / part.width - 1, 2 * where[1] / part.height - 1], axis=-1)
    cut = torch.nn.functional.grid_sample(
        pixels, torch.from_numpy(grid)[None].float(), mode="bicubic", padding_mode="border", align_corners=False
    )
    return Image.fromarray(cut[0].round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).numpy())
