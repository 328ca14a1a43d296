"""Verification of images by a few keys, all of which are tried.

p is Holm-corrected over the keys, so alpha bounds the chance of *any* false detection in an image. A p-value that a search
over the image's geometry, or a video's beginning, has found is corrected for the whole search.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from treering_verify.detection.evidence import evidence_of, searched_evidence
from treering_verify.detection.judge import DEFAULT_ALPHA, Judge, check_shape
from treering_verify.detection.search.search import Search
from treering_verify.detection.search.video_offsets import Timeline
from treering_verify.errors import UsageError
from treering_verify.inversion.recovery import InversionOptions
from treering_verify.models import LatentModel, load_model
from treering_verify.results import KeyEvidence, Verdict
from treering_verify.watermark.keys.key import Key

if TYPE_CHECKING:
    import torch

    from treering_verify.detection.judge import Invert, Source
    from treering_verify.media.videos import VideoSource

DEFAULT_SEARCH = Search()


@dataclass(frozen=True, eq=False)
class KeyTest:
    """The test of a few keys, optionally with a search for what was done to the image, or with decoy keys.

    Attributes
    ----------
    keys : list of Key
        At least one.
    search : Search, optional
        Search in images that are not detected as they are.
    decoys : int
        Count of decoy keys that cross-check the strongest key's p-value; there is no search then. 0: none.
    timeline : Timeline, optional
        Frames of the model's videos, if they can begin late.
    """

    keys: list[Key]
    search: Search | None = None
    decoys: int = 0
    timeline: Timeline | None = None

    @property
    def keys_tried(self) -> int:
        """Count of keys that the p-values are corrected for."""
        return len(self.keys)

    def evidence(
        self, noise_hat: torch.Tensor, image: torch.Tensor, invert: Invert, alpha: float
    ) -> list[tuple[KeyEvidence, ...]]:
        """Test noise estimates; see `judge.EvidenceTest`."""
        if self.search is None or self.decoys:
            return evidence_of(noise_hat, self.keys, self.decoys)
        return searched_evidence(noise_hat, image, self.keys, self.search, invert, alpha, self.timeline)


def key_test(
    keys: Key | Sequence[Key], model: LatentModel, *, search: Search | None = None, decoys: int = 0
) -> KeyTest:
    """Return the test of keys on images of a model.

    Raises
    ------
    UsageError
        If there is no key, one does not fit the model, `decoys` is negative, or the search is in time and the model makes
        images.
    """
    chosen = fitting_keys(keys, model)
    if decoys < 0:
        raise UsageError(f"decoys is {decoys}: draw 0 or more")
    timeline = Timeline.of(model)
    if search is not None:
        search.check_time(model.name, timeline)
    return KeyTest(chosen, search, decoys, timeline)


def verify(
    source: Source | VideoSource,
    keys: Key | Sequence[Key],
    *,
    model: LatentModel | None = None,
    alpha: float = DEFAULT_ALPHA,
    inversion: InversionOptions | None = None,
    search: Search | None = DEFAULT_SEARCH,
    decoys: int = 0,
) -> Verdict:
    """Judge one image; see `verify_many`."""
    judged = verify_many([source], keys, model=model, alpha=alpha, inversion=inversion, search=search, decoys=decoys)
    return next(iter(judged))


def verify_many(
    sources: Iterable[Source | VideoSource],
    keys: Key | Sequence[Key],
    *,
    model: LatentModel | None = None,
    alpha: float = DEFAULT_ALPHA,
    inversion: InversionOptions | None = None,
    search: Search | None = DEFAULT_SEARCH,
    decoys: int = 0,
) -> Iterator[Verdict]:
    """Judge images, lazily, batch by batch, one verdict per source in the order of the sources.

    Parameters
    ----------
    sources : iterable of paths, bytes or PIL images
        For a model that makes videos, anything that `media.videos.read_video` takes. A source that cannot be read gives a
        verdict with status "error"; the others are still judged.
    keys : Key or sequence of Key
        All are tried; p-values are Holm-corrected over them.
    model : LatentModel, optional
        The embedded model when left out.
    alpha : float
        False-positive rate per image, over all keys together, 0 < alpha < 1.
    inversion : InversionOptions, optional
        `InversionOptions.of(profile)` where the model was tested (`Profile.load`).
    search : Search, optional
        Search over an image's geometry or a video's beginning, where an image is not detected as it is; None searches
        nothing and saves the correction for it, a factor of 2 for images as they are.
    decoys : int
        Count of decoy keys that cross-check the p-value of each image's strongest key (`treering_detectors.decoy_checks`);
        0: none. They check the image as it is, so there is no search then.

    Yields
    ------
    Verdict

    Raises
    ------
    UsageError
        If there is no key, a key or the profile does not fit the model, alpha or decoys is out of range, or the search is in
        time and the model makes images.
    """
    model = model or load_model()
    test = key_test(keys, model, search=search, decoys=decoys)
    yield from Judge.of(model, test, alpha=alpha, inversion=inversion).verdicts(sources)


def fitting_keys(keys: Key | Sequence[Key], model: LatentModel) -> list[Key]:
    """Return keys as a list; UsageError if there is none, or one is made for another shape of noise than the model's."""
    chosen = [keys] if isinstance(keys, Key) else list(keys)
    if not chosen:
        raise UsageError("no key to look for: give at least one")
    for key in chosen:
        check_shape(f"key {key.name!r}", key.latent_shape, model)
    return chosen
