"""Find occluded areas of an image: regions of one colour, where it was cropped or covered.

An occluded area tells nothing about the noise under it. Its edge, which the model did not draw, disturbs the inversion
around it. So before the inversion the pixels of the area get the colour of the nearest visible pixel, and after it the
noise estimate is read in the visible area only. Both depend on the image alone, never on a key, so p-values stay exact
(docs/exact-test.md).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import torch

    Mask = npt.NDArray[np.bool_]

_SMALLEST = 0.0025  # smallest area, as a share of the image
_MOST = 16  # areas: an image with more of them is a drawing
_EDGE = 20  # smallest difference from the surroundings, in grey levels
_REACH = 8  # width of the surroundings, and of what a codec blurs, in pixels
_RINGING = 40  # largest change of an area by a codec's blur, in grey levels
# Difference of the touching pixels from the area, relative to that of the surroundings. It is near 1 at a sharp edge, and
# near 0 at an edge that a codec or a scaler has blurred. Between lie overexposed parts such as a bright sky, which fade out.
_SHARP, _BLURRED = 0.6, 0.11
# Largest share of the surroundings in areas of one colour. An image of few levels, or of a codec's flat blocks, has more.
_OTHERS = 0.1

_FAR = 6  # times the median misfit of an image, that what covers it has at least
_NEGLIGIBLE = 0.02  # share of an image that does no harm when it is covered
_ABOVE_OWN = 2  # times the misfit of what the autoencoder drew itself


def visible_area(image: torch.Tensor) -> torch.Tensor:
    """Return which pixels of images are visible, and which are occluded.

    Parameters
    ----------
    image : (B, K, H, W) float in [-1, 1]
        Images, or videos, where an occluded area may have another colour in each frame.

    Returns
    -------
    (B, 1, H, W) float32
        1 where visible; 0 in areas of one colour that stand out from their surroundings.
    """
    import torch

    levels = ((image.detach().cpu() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).numpy()
    return torch.from_numpy(np.stack([~_blank(one) for one in levels])[:, None]).float()


def fill_occluded(image: torch.Tensor, visible: torch.Tensor) -> torch.Tensor:
    """Return images whose occluded pixels have the colour of the nearest visible pixel.

    Parameters
    ----------
    image : (B, K, H, W)
        Images or videos.
    visible : (B, 1, H, W)
        The result of `visible_area`. An image that is occluded everywhere is returned unchanged.
    """
    import torch
    from scipy.ndimage import distance_transform_edt

    images = []
    for pixels, mask in zip(image, visible[:, 0].numpy() > 0, strict=True):
        if mask.any() and not mask.all():
            y, x = distance_transform_edt(~mask, return_distances=False, return_indices=True)
            pixels = pixels[:, torch.from_numpy(y).to(image.device), torch.from_numpy(x).to(image.device)]
        images.append(pixels)
    return torch.stack(images)


def mask_occluded(noise: torch.Tensor, visible: torch.Tensor) -> torch.Tensor:
    """Return a noise estimate with its mean removed in the visible area, and 0 in the occluded area.

    Parameters
    ----------
    noise : (B, C, h, w)
        Noise estimate.
    visible : (B, 1 or C, H, W)
        From 0 to 1, at any resolution. Noise that is visible everywhere or nowhere is returned unchanged.
    """
    import torch

    cells = torch.nn.functional.adaptive_avg_pool2d(visible.to(noise), (noise.shape[-2], noise.shape[-1]))
    weight = cells.sum(dim=(-2, -1), keepdim=True)
    centred = noise - (noise * cells).sum(dim=(-2, -1), keepdim=True) / weight.clamp_min(1e-6)
    flat = cells.flatten(1)
    partly = ((flat > 0).any(dim=1) & (flat < 1).any(dim=1)).view(-1, 1, 1, 1)
    return torch.where(partly, centred * cells, noise)


def _blank(levels: npt.NDArray[np.uint8]) -> Mask:
    """Return the occluded areas of an image, (K, H, W) -> (H, W)."""
    from scipy.ndimage import find_objects, label

    flat = _flat(levels)
    blank = np.zeros(flat.shape, dtype=bool)
    smallest = _SMALLEST * flat.size
    if flat.sum() < smallest:  # most images
        return blank
    areas, _ = label(flat)
    places = find_objects(areas)
    large = np.flatnonzero(np.bincount(areas.ravel())[1:] >= smallest)
    for number in large if len(large) <= _MOST else ():
        window = tuple(slice(max(0, part.start - _REACH), part.stop + _REACH) for part in places[number])
        blank[window] |= _area(levels[:, *window], flat[window], areas[window] == number + 1)
    return blank


def _flat(levels: npt.NDArray[np.uint8]) -> Mask:
    """Return the pixels that equal all four neighbours."""
    flat = np.ones(levels.shape[1:], dtype=bool)
    down = (levels[:, 1:] == levels[:, :-1]).all(axis=0)
    across = (levels[:, :, 1:] == levels[:, :, :-1]).all(axis=0)
    flat[1:] &= down
    flat[:-1] &= down
    flat[:, 1:] &= across
    flat[:, :-1] &= across
    return flat


def _area(levels: npt.NDArray[np.uint8], flat: Mask, inside: Mask) -> Mask:
    """Grow an area of one colour to its edge, and over what a codec blurred; empty if it may belong to the image."""
    from scipy.ndimage import binary_propagation, maximum_filter

    colour = levels[:, inside][:, 0].astype(np.int16)
    difference = np.abs(levels.astype(np.int16) - colour[:, None, None]).max(axis=0)
    area = binary_propagation(inside, mask=difference == 0)
    around, rim = (maximum_filter(area, 2 * reach + 1) & ~area for reach in (_REACH, 1))
    if not around.any():
        return np.asarray(area)
    touching, surroundings = float(np.median(difference[rim])), float(np.median(difference[around]))
    sharp, blurred = touching >= _SHARP * surroundings, touching <= _BLURRED * surroundings
    if surroundings < _EDGE or np.mean(flat[around]) > _OTHERS or not (sharp or blurred):
        return np.zeros_like(area)
    if blurred:
        area = binary_propagation(area, mask=area | (around & (difference <= _RINGING)))
    return np.asarray(area)


def drawn_area(image: torch.Tensor, redraw: Callable[[torch.Tensor], torch.Tensor], cell: int) -> torch.Tensor:
    """Return the area of an image that an autoencoder can draw; the rest is text, a logo or a sticker on top of it.

    What it cannot draw differs from D(E(x)) by far more than the rest of the image, and by more than what the autoencoder
    itself drew differs from what it makes of that. So model and image set the scale, and no key has a part in it.

    Parameters
    ----------
    image : (1, 3, H, W) float in [-1, 1]
    redraw : callable
        x -> D(E(x)); called once more for D(E(D(E(x)))) where anything stands out.
    cell : int
        Pixels on a side of a latent cell.

    Returns
    -------
    (1, 1, H, W) float32
        1, or 0 in areas that the autoencoder cannot draw.
    """
    import torch
    from scipy.ndimage import binary_closing, binary_dilation, label

    def large(far: Mask) -> Mask:
        areas, _ = label(binary_closing(far, iterations=max(1, cell // 2)))
        enough = np.bincount(areas.ravel()) >= cell**2
        enough[0] = False
        return np.asarray(enough[areas])

    drawn = redraw(image)
    misfit = _largest_difference(image, drawn)
    threshold = _FAR * float(np.median(misfit))
    covered = large(misfit > threshold)
    if covered.mean() < _NEGLIGIBLE:
        covered[:] = False
    else:
        own = _largest_difference(drawn, redraw(drawn))
        covered = large(misfit > max(threshold, _ABOVE_OWN * float(np.quantile(own, 0.99))))
        covered = binary_dilation(covered, iterations=max(1, 3 * cell // 4))
    return torch.from_numpy(~covered)[None, None].float()


def _largest_difference(one: torch.Tensor, other: torch.Tensor) -> npt.NDArray[np.float32]:
    """Return the largest difference of any channel of two images, (1, 3, H, W) -> (H, W)."""
    return np.asarray((one - other)[0].abs().amax(0).cpu().numpy())
