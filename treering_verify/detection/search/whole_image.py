"""What may have been done to the whole image, so that it needs no place: other colours, text on top, offsets in time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING, Any

from treering_verify.detection.search.estimates import Estimates
from treering_verify.detection.search.grid import DIRECT
from treering_verify.detection.search.noise_map import NoiseMap
from treering_verify.detection.search.settings import Level
from treering_verify.detection.search.video_offsets import Offset, Timeline
from treering_verify.media.blank_areas import drawn_area, fill_occluded
from treering_verify.media.conversion import to_pil, to_tensor
from treering_verify.models import LatentModel

if TYPE_CHECKING:
    import torch

LITTLE = 0.08
"""Share of an image that must be left to be read."""
_LOOKS = 5  # tests of an image; each has as much of their share of alpha, whether an image needs it or not
OTHER_WAYS = DIRECT / _LOOKS / 4
"""Share of alpha of changed images that were mirrored or turned, too."""
_FEW = 16  # colours of an image that was drawn in dots, at most; or nearly all of it is this near to black or white:
_NEAR, _NEARLY_ALL = 0.25, 0.8
_WAYS = [(quarters, mirrored) for quarters in range(4) for mirrored in (False, True) if quarters or mirrored]
_SMOOTH = 1.5  # pixels over which the dots are smoothed
_HARD = 1.0  # least difference of a channel across a hard edge, of the 2 between black and white
_MANY = 0.01  # share of an image's pixels at hard edges, from which on text or stickers may lie on it


@dataclass(frozen=True, eq=False)
class WholeImage:
    """A change that may have been made to the whole image, such as inverted colours, and the noise once it is undone.

    Attributes
    ----------
    words : str
    weight : float
        Share of alpha of each of the two estimates of its noise.
    cheap : callable
        Returns the first estimate, (1, C, h, w).
    full : callable, optional
        Returns the second estimate.
    visible, visible_in_full : torch.Tensor
        What each estimate shows, (1, 1 or C, h, w).
    upright : bool
        Whether the image was neither turned nor mirrored besides. Others are tested last: what was only turned is found on
        the page's maps, and named truly.
    record : dict, optional
        Where the page shows the image (`Page.record`); None if the page is the image.
    """

    words: str
    weight: float
    cheap: Callable[[], torch.Tensor]
    visible: torch.Tensor
    full: Callable[[], torch.Tensor] | None
    visible_in_full: torch.Tensor
    upright: bool = True
    record: dict[str, Any] | None = None

    @classmethod
    def of(
        cls,
        estimates: Estimates,
        words: str,
        weight: float,
        image: torch.Tensor,
        cells: torch.Tensor,
        record: dict[str, Any] | None = None,
    ) -> WholeImage:
        """Return the test of a changed image, whose noise is estimated by the screen and in full, once each."""
        cheap, full = cache(partial(estimates.by_screen, image)), cache(partial(estimates.in_full, image))
        return cls(words, weight, cheap, cells, full, cells, record=record)


def looks(estimates: Estimates, image: torch.Tensor, level: Level, own: NoiseMap | None = None) -> list[WholeImage]:
    """Return an image as it is, with its colours inverted, with red and blue swapped, without what covers it.

    An image that was drawn in dots of few colours, such as black and white, is tested with its dots smoothed, too. Each
    changed image may also have been mirrored, or turned by quarters.

    Parameters
    ----------
    estimates : Estimates
    image : (1, 3, H, W)
    level : Level
        Whether other colours are tried. What covers an image is looked for where `looks_for_covers` says so.
    own : NoiseMap, optional
        The screen's estimate of the image as it is, if it is known.
    """
    import torch

    everywhere = torch.ones(1, 1, *estimates.model.latent_shape[1:])
    weight = DIRECT / _LOOKS / 2
    tests = []
    if estimates.model.screen is not None:
        cheap = cache(partial(estimates.by_screen, image)) if own is None else partial(_noise_of, own)
        visible = everywhere if own is None else own.visible[None, None]
        tests.append(WholeImage("", weight, cheap, visible, None, everywhere))
    changes = []
    if level.looks:
        changes += [("its dots smoothed", _smoothed(image))] if _dotted(image) else []
        changes += [("colours inverted", -image), ("red and blue swapped", image.flip(1))]
    tests += [WholeImage.of(estimates, words, weight, some, everywhere) for words, some in changes]
    if (without := uncovered(estimates.model, image, level)) is not None:
        filled, shown = without
        words = covered_words(shown)
        changes.append((words, filled))
        tests.append(WholeImage.of(estimates, words, weight, filled, estimates.cells(shown)))
    # The image as it is has no second estimate here. The changed images, mirrored or turned, have half of that share of
    # alpha, and what covers windows of the page has the other half (`changed_windows`).
    ways = _WAYS if image.shape[-1] == image.shape[-2] else [way for way in _WAYS if way[0] % 2 == 0]
    each = OTHER_WAYS / (_LOOKS - 1) / 2 / len(ways)
    upright = zip(tests[len(tests) - len(changes) :], changes, strict=True)
    return tests + [_another_way(one, estimates, each, some, *way) for one, (_, some) in upright for way in ways]


def looks_for_covers(image: torch.Tensor, level: Level, model: LatentModel) -> bool:
    """Whether a level looks for what covers an image, (1, 3, H, W): always, or where hard edges suggest text or stickers."""
    from scipy.ndimage import maximum_filter, minimum_filter

    if level.looks:
        return True
    pixels = image[0].cpu().numpy()
    reach = (1, *[max(3, model.image_size[0] // model.latent_shape[1] // 2 | 1)] * 2)
    across = (maximum_filter(pixels, reach) - minimum_filter(pixels, reach)).max(axis=0)
    return bool((across > _HARD).mean() > _MANY)


def uncovered(model: LatentModel, image: torch.Tensor, level: Level) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Return an image, (1, 3, H, W), with what covers it filled, and what it shows, (1, 1, H, W); None if nothing does."""
    if not looks_for_covers(image, level, model):
        return None
    shown = drawn(model, image)
    return (fill_occluded(image, shown), shown) if LITTLE < float(shown.mean()) < 1 else None


def covered_words(shown: torch.Tensor) -> str:
    """Say which share of an image is covered."""
    return f"{1 - float(shown.mean()):.0%} of it covered"


def covered_share(tests: Sequence[WholeImage]) -> float:
    """Return the share of an image that is covered, by the tests that `looks` made where it looked for that."""
    return max((1 - float(test.visible.mean()) for test in tests if test.full), default=0.0)


def late_videos(
    estimates: Estimates, video: torch.Tensor, noise_hat: torch.Tensor, timeline: Timeline
) -> list[WholeImage]:
    """Return videos that lost their first frames, or begin with others."""
    import torch

    channels, h, w = noise_hat.shape
    offsets = timeline.offsets()
    return [
        WholeImage(
            offset.changes,
            DIRECT / max(_LOOKS, len(offsets)) / 2,
            partial(_undone_in_noise, offset, noise_hat),
            torch.ones(1, 1, h, w),
            partial(estimates.in_full, offset.undo(video)),
            offset.mask(channels)[None].expand(1, channels, h, w),
        )
        for offset in offsets
    ]


def drawn(model: LatentModel, image: torch.Tensor) -> torch.Tensor:
    """Return what of an image, (1, 3, H, W), the model's autoencoder can draw, (1, 1, H, W): the rest lies on top of it."""
    import torch

    def redraw(some: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode():
            return model.decode(model.encode(some)).clamp(-1, 1)

    return drawn_area(image, redraw, model.image_size[0] // model.latent_shape[1])


def _another_way(
    upright: WholeImage, estimates: Estimates, weight: float, image: torch.Tensor, quarters: int, mirrored: bool
) -> WholeImage:
    """Return the test of a changed image that was turned or mirrored, too: its noise is nearly the other's, turned back."""

    def undone(some: torch.Tensor) -> torch.Tensor:
        turned = some.rot90(-quarters, (-2, -1))
        return turned.flip(-1) if mirrored else turned

    words = (upright.words, "mirrored" if mirrored else "", f"turned by {90 * quarters} degrees" if quarters else "")
    return WholeImage(
        ", ".join(filter(None, words)),
        weight,
        cache(lambda: undone(upright.cheap())),
        undone(upright.visible),
        cache(lambda: estimates.in_full(undone(image))),
        undone(upright.visible_in_full),
        upright=False,
    )


def _dotted(image: torch.Tensor) -> bool:
    """Whether an image, (1, 3, H, W), has few colours, or is black and white nearly everywhere."""
    extreme = float((image.abs() > 1 - _NEAR).all(1).float().mean())
    packed = ((image[0] + 1) * 127.5).round().int()
    return extreme > _NEARLY_ALL or len((packed[0] << 16 | packed[1] << 8 | packed[2]).unique()) <= _FEW


def _smoothed(image: torch.Tensor) -> torch.Tensor:
    from PIL import ImageFilter

    return to_tensor(to_pil(image[0]).filter(ImageFilter.GaussianBlur(_SMOOTH))).to(image)


def _noise_of(own: NoiseMap) -> torch.Tensor:
    return own.noise[None]


def _undone_in_noise(offset: Offset, noise: torch.Tensor) -> torch.Tensor:
    return offset.undo_in_noise(noise)[None]
