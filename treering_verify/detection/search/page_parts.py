"""Parts of a page that are searched as pages of their own: boxes of any shape that are drawn on it.

An image in an article, in a post or on a slide is cut to the shape that its place has, or stretched to it. What lies
around it is not the image: its edge is an edge of what can be known, and its noise would go into each window that reaches
over that edge.
"""

from __future__ import annotations

from dataclasses import replace

from treering_verify.detection.search.changed_windows import BOXES, WINDOWS
from treering_verify.detection.search.frames import drawn_parts
from treering_verify.detection.search.grid import SHARES, Pass, passes
from treering_verify.detection.search.page import Page
from treering_verify.detection.search.settings import Level
from treering_verify.watermark.patterns.base import Layout

PARTS = BOXES
"""Share of alpha of images on parts of a page."""
_LESS = 2  # times fewer parts than boxes of a level


def parts_of(page: Page, image_size: tuple[int, int], level: Level) -> list[Page]:
    """Return the parts of a page that are most clearly drawn, for a model whose images are (height, width)."""
    return [page.cut(box) for box in drawn_parts(page, image_size, level.boxes // _LESS)]


def passes_of_part(part: Page, image_size: tuple[int, int], layout: Layout, level: Level, parts: int) -> list[Pass]:
    """Plan the search of one of several parts, for images that fill it: whole, cropped, stretched, mirrored or turned."""
    likely = replace(level, turns=level.turns // 2, stretched=False)
    share = PARTS / (sum(SHARES.values()) + WINDOWS) / parts
    return passes(part.size, image_size, layout, likely, share, filled=True)
