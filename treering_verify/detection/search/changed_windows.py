"""Windows of a page in which the image was changed: text or stickers cover it, or its colours are inverted.

A meme in a screenshot, a story with stickers, a frame of a video with its subtitles, a page in dark mode: the image lies on
a page, and something was done to it besides. Both are undone at once in two kinds of windows: boxes that the page alone
draws, and, without what covers them, guesses that were refined and showed too little.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from treering_verify.detection.search.estimates import Estimates
from treering_verify.detection.search.frames import CLEAR, boxes
from treering_verify.detection.search.grid import DIRECT, SHARES, STAGES
from treering_verify.detection.search.neighbours import NEAR
from treering_verify.detection.search.page import Page
from treering_verify.detection.search.placement import Placement
from treering_verify.detection.search.settings import Level
from treering_verify.detection.search.whole_image import LITTLE, OTHER_WAYS, WholeImage, looks, uncovered

if TYPE_CHECKING:
    import torch

BOXES = OTHER_WAYS / 4
"""Share of alpha of boxes that were changed besides; `page_parts` has as much."""
WINDOWS = OTHER_WAYS / 2
"""Share of alpha of refined windows without what covers them."""
OF_A_WINDOW = STAGES * WINDOWS / sum(SHARES.values()) / 2
"""Weight that each estimate of a window without what covers it has besides, over that of one of the window's stages."""
_EACH = 2  # boxes for each guess that a level refines


def changed_boxes(estimates: Estimates, page: Page, level: Level) -> Iterator[WholeImage]:
    """Yield the tests of boxes that are drawn on a page, the most clearly drawn first: as `looks` changes whole images.

    Boxes as they are are none of them, since the page's maps show those.
    """
    size = estimates.model.image_size
    found = boxes(page, size, _EACH * level.refined, CLEAR)
    for box in found:
        where, record = page.words(box, size), page.record(box, size)
        for test in looks(estimates, page.window(box, size)[0], level):
            if test.words:
                weight = test.weight * BOXES / DIRECT / len(found)
                yield replace(test, words=f"{NEAR}{where}, {test.words}", weight=weight, record=record)


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
