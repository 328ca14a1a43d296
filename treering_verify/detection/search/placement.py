"""Where an image lies on a page: its box, how far it was turned, and whether it was mirrored."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

Points = npt.NDArray[np.float64]
Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Placement:
    """One guess at where a page shows the model's image: mirrored left to right, then scaled, turned and moved.

    Attributes
    ----------
    x, y : float
        Centre of the image on the page, in pixels from the page's upper left corner.
    width, height : float
        Size of the whole image on the page, before it was turned, in pixels. A part of it may lie outside the page.
    degrees : float
        Counter-clockwise, in [0, 360).
    mirrored : bool
    """

    x: float
    y: float
    width: float
    height: float
    degrees: float = 0.0
    mirrored: bool = False

    @classmethod
    def of(cls, record: dict[str, Any], image_size: tuple[int, int]) -> Placement:
        """Return the placement of an image of (height, width) that `record` wrote."""
        x, y = np.mean(record["corners"], axis=0)
        across, down = record["scale"]
        width, height = across * image_size[1], down * image_size[0]
        return cls(float(x), float(y), width, height, record["degrees"], record["mirrored"])

    def to_page(self, u: Points, v: Points) -> tuple[Points, Points]:
        """Return page positions (x, y) of points of the image; u and v run from -1/2 to 1/2, right and down."""
        turn = math.radians(self.degrees)
        right, down = (-u if self.mirrored else u) * self.width, v * self.height
        x = self.x + right * math.cos(turn) + down * math.sin(turn)
        y = self.y - right * math.sin(turn) + down * math.cos(turn)
        return x, y

    @property
    def corners(self) -> Points:
        """Corners on the page, (4, 2) as (x, y), clockwise from the image's upper left if nothing was turned."""
        half = np.array([-0.5, 0.5, 0.5, -0.5]), np.array([-0.5, -0.5, 0.5, 0.5])
        return np.stack(self.to_page(*half), axis=1)

    def enlarged(self, factor: float) -> Placement:
        """Return the same on a page whose sides are so many times as long."""
        sides = {name: getattr(self, name) * factor for name in ("x", "y", "width", "height")}
        return replace(self, **sides)

    def moved(self, right: float, down: float) -> Placement:
        """Return the same so many pixels further right and down."""
        return replace(self, x=self.x + right, y=self.y + down)

    def box(self, within: Box) -> Box:
        """Return left, top, right and bottom of what a box of the page shows of the image, in whole pixels."""
        low, high = self.corners.min(axis=0), self.corners.max(axis=0)
        left, top = (max(edge, round(value)) for edge, value in zip(within[:2], low, strict=True))
        right, bottom = (min(edge, round(value)) for edge, value in zip(within[2:], high, strict=True))
        return left, top, right, bottom

    def words(self, size: tuple[int, int], image_size: tuple[int, int], part: Box | None = None) -> str:
        """Say how a page of (width, height) shows an image of (height, width), such as "mirrored, turned by 10 degrees".

        Where only a part of the page shows it, that is a box (left, top, right, bottom).
        """
        within = part or (0, 0, *size)
        parts = ["mirrored"] if self.mirrored else []
        if self.degrees:
            parts.append(f"turned by {self.degrees:.3g} degrees")
        across, down = self.width / image_size[1], self.height / image_size[0]
        if abs(across / down - 1) > 0.02:
            parts.append(f"scaled to {across:.0%} across and {down:.0%} down")
        elif abs(across - 1) > 0.005:
            parts.append(f"scaled to {across:.3g} of its size")
        left, top, right, bottom = box = self.box(within)
        if box == within and min(shown := _shown(self, within)) < 0.98:
            parts.append(f"cropped to {shown[0]:.2f} x {shown[1]:.2f} of its sides")
        if box != (0, 0, *size):
            parts.append(f"in the box {left}, {top} to {right}, {bottom}")
        return ", ".join(parts)

    def record(self, size: tuple[int, int], image_size: tuple[int, int], part: Box | None = None) -> dict[str, Any]:
        """Return a JSON-ready form: box, corners, scale, angle, reflection. Parameters are those of `words`."""
        return {
            "box": list(self.box(part or (0, 0, *size))),
            "corners": [[round(float(x), 1), round(float(y), 1)] for x, y in self.corners],
            "scale": [round(self.width / image_size[1], 4), round(self.height / image_size[0], 4)],
            "degrees": round(self.degrees, 2),
            "mirrored": self.mirrored,
        }


def _shown(placement: Placement, within: Box) -> tuple[float, float]:
    """Return which shares of an image's width and height fit into a box; one that is turned may leave corners of it."""
    across, down = within[2] - within[0], within[3] - within[1]
    return min(1.0, across / placement.width), min(1.0, down / placement.height)


def whole(size: tuple[int, int]) -> Placement:
    """Return the placement of an image that fills a page of (width, height)."""
    return Placement(size[0] / 2, size[1] / 2, float(size[0]), float(size[1]))
