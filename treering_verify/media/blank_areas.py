"""What an image shows, and where it shows nothing: what was cut off or covered, and filled with one colour.

Such an area says nothing about the noise under it, and its edge, which the model never drew, harms what lies around. So its
pixels take the colour of the nearest one that shows something before the decoder is undone, and noise_hat is read only
where the image shows something. The image alone decides that, never a key, so p-values stay exact (DESIGN 4.3).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import torch

    Mask = npt.NDArray[np.bool_]

_SMALLEST = 0.0025  # share of the image that an area has at least
_MOST = 16  # such areas: an image of more is drawn in them
_EDGE = 20  # grey levels that its surroundings differ from it by, at least
_REACH = 8  # pixels: what counts as surroundings, and how far a codec blurs an edge
_RINGING = 40  # grey levels that it blurs by
# A frame stands out at once: what touches it differs from it as what lies around it does. A codec's or a scaler's edge
# begins at next to nothing. What is clipped, a bright sky, fades out, and lies between.
_SHARP, _BLURRED = 0.6, 0.11
# Of the surroundings, so much at most may be of one colour: more is an image of few levels, or of a codec's bare blocks.
_OTHERS = 0.1


def visible_area(image: torch.Tensor) -> torch.Tensor:
    """Say which pixels show something.

    Parameters
    ----------
    image : (B, K, H, W) float in [-1, 1]
        Images; or videos, in whose areas each frame has a colour of its own.

    Returns
    -------
    (B, 1, H, W) float32
        1, or 0 in areas of one colour that stand out from what lies around them.
    """
    import torch

    levels = ((image.detach().cpu() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).numpy()
    return torch.from_numpy(np.stack([~_blank(one) for one in levels])[:, None]).float()


def filled(image: torch.Tensor, visible: torch.Tensor) -> torch.Tensor:
    """Give every pixel that shows nothing the colour of the nearest one that does.

    Parameters
    ----------
    image : (B, K, H, W)
    shown : (B, 1, H, W)
        As `visible_area` says. An image that shows nothing at all stays as it is.
    """
    import torch
    from scipy.ndimage import distance_transform_edt

    images = []
    for picture, mask in zip(image, visible[:, 0].numpy() > 0, strict=True):
        if mask.any() and not mask.all():
            y, x = distance_transform_edt(~mask, return_distances=False, return_indices=True)
            picture = picture[:, torch.from_numpy(y).to(image.device), torch.from_numpy(x).to(image.device)]
        images.append(picture)
    return torch.stack(images)


def masked(noise: torch.Tensor, visible: torch.Tensor) -> torch.Tensor:
    """Read noise where the image shows something: less its mean there, and nothing elsewhere.

    Parameters
    ----------
    noise : (B, C, h, w)
    shown : (B, 1 or C, H, W)
        From 0 to 1, of any resolution. Noise that is shown throughout, or not at all, stays as it is.
    """
    import torch

    cells = torch.nn.functional.adaptive_avg_pool2d(visible.to(noise), (noise.shape[-2], noise.shape[-1]))
    weight = cells.sum(dim=(-2, -1), keepdim=True)
    centred = noise - (noise * cells).sum(dim=(-2, -1), keepdim=True) / weight.clamp_min(1e-6)
    flat = cells.flatten(1)
    partly = ((flat > 0).any(dim=1) & (flat < 1).any(dim=1)).view(-1, 1, 1, 1)
    return torch.where(partly, centred * cells, noise)


def _blank(levels: npt.NDArray[np.uint8]) -> Mask:
    """Areas of an image (K, H, W) that show nothing."""
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
    """Pixels that all four neighbours agree with."""
    flat = np.ones(levels.shape[1:], dtype=bool)
    down = (levels[:, 1:] == levels[:, :-1]).all(axis=0)
    across = (levels[:, :, 1:] == levels[:, :, :-1]).all(axis=0)
    flat[1:] &= down
    flat[:-1] &= down
    flat[:, 1:] &= across
    flat[:, :-1] &= across
    return flat


def _area(levels: npt.NDArray[np.uint8], flat: Mask, inside: Mask) -> Mask:
    """Area of one colour up to its edge, and beyond where a codec blurred that; empty where it may belong to the image."""
    from scipy.ndimage import binary_propagation, maximum_filter

    colour = levels[:, inside][:, 0].astype(np.int16)
    away = np.abs(levels.astype(np.int16) - colour[:, None, None]).max(axis=0)
    area = binary_propagation(inside, mask=away == 0)
    around, rim = (maximum_filter(area, 2 * reach + 1) & ~area for reach in (_REACH, 1))
    if not around.any():
        return np.asarray(area)
    touching, surroundings = float(np.median(away[rim])), float(np.median(away[around]))
    sharp, blurred = touching >= _SHARP * surroundings, touching <= _BLURRED * surroundings
    if surroundings < _EDGE or np.mean(flat[around]) > _OTHERS or not (sharp or blurred):
        return np.zeros_like(area)
    if blurred:
        area = binary_propagation(area, mask=area | (around & (away <= _RINGING)))
    return np.asarray(area)
