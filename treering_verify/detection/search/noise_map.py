"""Noise of a whole page at once, and the noise of any window of it.

Autoencoder and screen are convolutional: one pass estimates the noise everywhere on the page. What a page shows turned,
mirrored or a little larger has nearly the same noise, turned, mirrored or a little larger (docs/search.md has the figures).
So a few maps, at scales that differ by half, serve every hypothesis.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from treering_verify.detection.screening import filter_map
from treering_verify.detection.search.placement import Placement
from treering_verify.media.blank_areas import fill_occluded, visible_area
from treering_verify.models import LatentModel
from treering_verify.models.inverter import fitted
from treering_verify.models.tiling import by_tiles

if TYPE_CHECKING:
    import torch

    from treering_verify.detection.search.page import Page

_OVERLAP = 8  # neighbouring tiles share an eighth of a side


@dataclass(frozen=True, eq=False)
class NoiseMap:
    """Noise of a page.

    Attributes
    ----------
    noise : (C, h, w) float32
        Zero where the page shows nothing.
    visible : (h, w) float32
        Share of each cell that the page shows.
    cells : (float, float)
        Cells per pixel of the page, across and down.
    """

    noise: torch.Tensor = field(repr=False)
    visible: torch.Tensor = field(repr=False)
    cells: tuple[float, float]

    def windows(self, placements: list[Placement], shape: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
        """Sample the noise of windows.

        Parameters
        ----------
        placements : list of Placement
            The n windows.
        shape : (h, w)
            Height and width of the model's latent.

        Returns
        -------
        noise : (n, C, h, w)
        visible : (n, 1, h, w)
        """
        import torch

        h, w = shape
        v, u = np.meshgrid((np.arange(h) + 0.5) / h - 0.5, (np.arange(w) + 0.5) / w - 0.5, indexing="ij")
        where = np.stack([np.stack(one.to_page(u, v), axis=-1) for one in placements])
        rows, columns = self.visible.shape
        # grid_sample without align_corners: -1 and 1 are the outer edges of the first and the last cell.
        grid = torch.from_numpy(2 * where * self.cells / (columns, rows) - 1).float()
        flat = grid.reshape(1, -1, w, 2)
        noise, visible = (
            torch.nn.functional.grid_sample(part[None], flat, mode=mode, padding_mode="zeros", align_corners=False)[0]
            for part, mode in ((self.noise, "bicubic"), (self.visible[None], "bilinear"))
        )
        return noise.unflatten(1, (-1, h)).transpose(0, 1), visible.unflatten(1, (-1, h)).transpose(0, 1)


def page_map(model: LatentModel, page: Page, scale: float) -> NoiseMap:
    """Estimate the noise of a page whose sides are scaled by a factor, tile by tile where it is large."""
    import torch

    image = page.scaled(scale)
    shown = visible_area(image)
    image = fill_occluded(image, shown)
    height, width = image.shape[-2:]
    factor = model.image_size[0] // model.latent_shape[1]
    bottom, right = -height % factor, -width % factor
    image = torch.nn.functional.pad(image, (0, right, 0, bottom), mode="replicate")
    shown = torch.nn.functional.pad(shown, (0, right, 0, bottom))
    visible = torch.nn.functional.avg_pool2d(shown, factor)[0, 0]
    with torch.inference_mode():
        noise = estimate(model, image, shown)[0]
    cells = (width / factor / page.size[0], height / factor / page.size[1])
    return NoiseMap(noise * visible, visible, cells)


def estimate(model: LatentModel, image: torch.Tensor, shown: torch.Tensor) -> torch.Tensor:
    """Estimate the noise of an image of any size, (1, 3, H, W), which is shown where (1, 1, H, W) is not 0.

    By the model's screen, by its fitted filters where it has none, or by its latent where it has neither. Where a whole tile
    shows nothing, or one colour, the noise is 0.
    """
    import torch

    filters = fitted(model)
    filtered = model.screen is None and filters is not None and filters.screen is not None
    factor = model.image_size[0] // model.latent_shape[1]

    def one(part: torch.Tensor) -> torch.Tensor:
        part, there = part[:, :-1], part[:, -1:]
        if not there.any() or torch.equal(part.amin((2, 3)), part.amax((2, 3))):
            return part.new_zeros(len(part), model.latent_shape[0], part.shape[2] // factor, part.shape[3] // factor)
        if filtered:
            return filter_map(model, part)
        latent = model.encode(part)
        return model.screen([latent]) if model.screen is not None and model.screen.points == (0,) else latent

    tile = 2 * max(model.latent_shape[1:])
    both = torch.cat([image, shown.to(image)], dim=1)
    if max(image.shape[-2:]) <= 1.5 * tile * factor:
        return one(both)
    return by_tiles(one, both, tile, shrink=factor, overlap=_OVERLAP)
