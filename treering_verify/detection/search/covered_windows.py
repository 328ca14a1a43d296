"""Windows of a page that text or stickers cover: their noise without what covers them.

A meme in a screenshot, a story with stickers, a frame of a video with its subtitles: the image lies on a page, and something
lies on the image. Both are undone at once in two kinds of windows: boxes that the page alone draws, and guesses that were
refined and showed too little.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from treering_verify.detection.search.estimates import Estimates
from treering_verify.detection.search.frames import boxes
from treering_verify.detection.search.grid import SHARES, STAGES
from treering_verify.detection.search.neighbours import NEAR
from treering_verify.detection.search.page import Page
from treering_verify.detection.search.placement import Placement
from treering_verify.detection.search.settings import Level
from treering_verify.detection.search.whole_image import LITTLE, OTHER_WAYS, WholeImage, covered_words, uncovered

if TYPE_CHECKING:
    import torch

BOXES = OTHER_WAYS / 2
"""Share of alpha of boxes without what covers them, of both estimates of their noise together."""
OF_A_WINDOW = STAGES * OTHER_WAYS / 2 / sum(SHARES.values()) / 2
"""Weight that each estimate of a window without what covers it has besides, over that of one of the window's stages."""
_EACH = 2  # boxes for each guess that a level refines
_CLEAR = 1.3  # how clearly a box is drawn at least, of 2: those of photographs have 1.2 at most


def covered_boxes(estimates: Estimates, page: Page, level: Level) -> Iterator[WholeImage]:
    """Yield the tests of boxes that are drawn on a page and partly covered, the most clearly drawn first."""
    size = estimates.model.image_size
    found = boxes(page, size, _EACH * level.refined, _CLEAR)
    for box in found:
        if (without := window_uncovered(estimates, page, box, level)) is not None:
            filled, shown = without
            words, record = f"{NEAR}{page.words(box, size)}, {covered_words(shown)}", page.record(box, size)
            weight = BOXES / 2 / len(found)
            yield WholeImage.of(estimates, words, weight, filled, estimates.cells(shown), record)


def window_uncovered(
    estimates: Estimates, page: Page, placement: Placement, level: Level
) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Return a window of a page with what covers it filled, and what it shows of the image; None if nothing covers it."""
    image, visible = page.window(placement, estimates.model.image_size)
    without = uncovered(estimates.model, image, level)
    if without is None:
        return None
    filled, shown = without[0], without[1] * visible
    return (filled, shown) if float(shown.mean()) > LITTLE else None
