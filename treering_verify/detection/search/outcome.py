"""What a search found, and what it covered."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from treering_verify.detection.search.grid import Guess, Pass
from treering_verify.detection.search.settings import Search

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Found:
    """The strongest evidence that a search has for a key.

    Attributes
    ----------
    log10_pvalue : float
        Corrected for all that the search could have tested.
    statistic : float
        Cosine.
    hypothesis : str
        What was done to the image, in words.
    record : dict, optional
        Where the page shows it (`Placement.record`); None where the whole image was tested.
    noise_hat : (C, h, w), optional
        The noise estimate that was tested, of what is visible; None where it is a part of a page's map.
    """

    log10_pvalue: float
    statistic: float
    hypothesis: str
    record: dict[str, Any] | None = None
    noise_hat: torch.Tensor | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True)
class Coverage:
    """For what sizes, angles and aspects the whole of a page was searched; each is mirrored, too.

    Attributes
    ----------
    share : float
        Share of the search's weight that was searched: 1 if nothing of the level was left out.
    sizes : tuple of float, optional
        Least and largest, in sides of the model's image: upright and by quarter turns; None if none was searched.
    turned_sizes : tuple of float, optional
        The same at the other angles.
    angles : int
        How many angles, evenly spaced; 4 are the quarter turns.
    aspects : tuple of float
        Width over height, relative to the model's image, that were searched besides 1.
    """

    share: float
    sizes: tuple[float, float] | None
    turned_sizes: tuple[float, float] | None
    angles: int
    aspects: tuple[float, ...]

    @classmethod
    def of(cls, planned: Iterable[Pass], done: Iterable[Pass], image_size: tuple[int, int]) -> Coverage:
        """Return what passes cover, of those that were planned, for a model's image of (height, width)."""
        height, width = image_size
        searched = [guess for one in done for guess in one.guesses]
        whole = sum(guess.weight for one in planned for guess in one.guesses)
        share = sum(guess.weight for guess in searched) / whole if whole else 0.0
        upright = [guess for guess in searched if guess.group in ("upright", "quarter")]
        turned = [guess for guess in searched if guess.group == "turned"]
        stretched = {round(guess.width * height / (guess.height * width), 2) for guess in searched} - {1.0}
        angles = len({guess.degrees for guess in searched})
        return cls(
            min(1.0, round(share, 4)), _range(upright, width), _range(turned, width), angles, (*sorted(stretched),)
        )


def _range(guesses: list[Guess], width: int) -> tuple[float, float] | None:
    sizes = [guess.width / width for guess in guesses]
    return (round(min(sizes), 3), round(max(sizes), 3)) if sizes else None


@dataclass(frozen=True)
class Searched:
    """What a search did.

    Attributes
    ----------
    found : tuple of Found or None
        For each target.
    coverage : Coverage
    hypotheses, windows : int
        Sizes, angles and reflections that were tried, and the places for all of them together.
    left_out : tuple of str
        What was not searched, in words; nothing where every key was found.
    fills_page : bool
        Whether all sizes were searched at which an image, whole or cropped, fills the page.
    occluded : float or None
        Share of the image that is covered by what the model's autoencoder cannot draw; None where that was not looked at.
    seconds : float
    candidates : int or None
        Boxes that the page alone suggested, where only those and a grid of crops were searched (`search_index`).
    unsearched_boxes : tuple of float
        Sizes of clearly drawn boxes of the model's shape at which nothing was searched, in shorter sides of its image.
    """

    found: tuple[Found | None, ...]
    coverage: Coverage
    hypotheses: int = 0
    windows: int = 0
    left_out: tuple[str, ...] = ()
    seconds: float = 0.0
    fills_page: bool = True
    occluded: float | None = None
    candidates: int | None = None
    unsearched_boxes: tuple[float, ...] = ()

    def record(self, search: Search) -> dict[str, Any]:
        """Return a JSON-ready form."""
        covered = {
            name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self.coverage).items()
        }
        return {
            "level": search.words,
            "hypotheses": self.hypotheses,
            "windows": self.windows,
            "covered": covered,
            "left_out": list(self.left_out),
            "fills_page": self.fills_page,
            "occluded": None if self.occluded is None else round(self.occluded, 4),
            "candidates": self.candidates,
            "unsearched_boxes": [round(size, 3) for size in self.unsearched_boxes],
        }
