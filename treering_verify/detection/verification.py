"""Verification of images by a few keys, all of which are tried.

p is Holm-corrected over the keys, so alpha bounds the chance of *any* false detection in an image. A p-value that a search
over the image's geometry, or a video's beginning, has found is corrected for the whole search.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, overload

from treering_verify.detection.evidence import evidence_of
from treering_verify.detection.identification import IndexTest
from treering_verify.detection.judge import DEFAULT_ALPHA, Judge
from treering_verify.detection.reading import are_several
from treering_verify.detection.search.settings import AUTO, MOST_KEYS, Search
from treering_verify.detection.search.target import Target
from treering_verify.errors import UsageError
from treering_verify.inversion.recovery import InversionOptions
from treering_verify.models import LatentModel, ModelSource, loaded_model
from treering_verify.results import KeyEvidence, Verdict
from treering_verify.watermark.keys.checks import check_fit
from treering_verify.watermark.keys.given import KeySource, keys_of
from treering_verify.watermark.keys.index import group_keys
from treering_verify.watermark.keys.key import Key
from treering_verify.watermark.patterns import PATTERNS

if TYPE_CHECKING:
    import torch

    from treering_verify.detection.judge import Source
    from treering_verify.media.videos import VideoSource
    from treering_verify.models.protocol import VideoModel


@dataclass(frozen=True, eq=False)
class KeyTest:
    """The test of a few keys.

    Attributes
    ----------
    keys : list of Key
        At least one.
    decoys : int
        Decoy keys that cross-check the strongest key's p-value. 0: none.
    """

    keys: list[Key]
    decoys: int = 0

    @property
    def keys_tried(self) -> int:
        """Count of keys that the p-values are corrected for."""
        return len(self.keys)

    @property
    def tried(self) -> Sequence[Key]:
        """The keys that are looked for."""
        return self.keys

    def evidence(self, noise_hat: torch.Tensor) -> list[tuple[KeyEvidence, ...]]:
        """Test noise estimates; see `judge.EvidenceTest`."""
        return evidence_of(noise_hat, self.keys, self.decoys)

    def targets(self) -> list[Target]:
        """Return the keys that all of a page is searched for; see `judge.PageTest`. Decoys check the image as it is."""
        if self.decoys or len(self.keys) > MOST_KEYS:
            return []
        searched = [key for key in self.keys if PATTERNS[key.pattern].searched]
        return [Target(key.name, key.fingerprint, key.family, key.numbers) for key in searched]

    @property
    def searched(self) -> bool:
        """Whether pages are searched at some places, as for an index: for more keys than all of a page is searched for."""
        if self.decoys or len(self.keys) <= MOST_KEYS or len({key.fingerprint for key in self.keys}) < len(self.keys):
            return False
        return all(PATTERNS[key.pattern].searched for key in self.keys)

    @cached_property
    def _index(self) -> IndexTest:
        return IndexTest(group_keys(self.keys))

    def nearest(self, noise: torch.Tensor, visible: torch.Tensor, keep: int) -> list[list[tuple[int, float, float]]]:
        """Return the best keys of windows of a page; see `index_search.Index`."""
        return self._index.nearest(noise, visible, keep)

    def target(self, number: int) -> Target:
        """Return a key by the number that `nearest` gives it."""
        return self._index.target(number)


def key_test(keys: KeySource | Sequence[KeySource], model: LatentModel, *, decoys: int = 0) -> KeyTest:
    """Return the test of keys on images of a model.

    Raises
    ------
    UsageError
        If there is no key, one does not fit the model, or `decoys` is negative.
    """
    chosen = fitting_keys(keys, model)
    if decoys < 0:
        raise UsageError(f"decoys is {decoys}: draw 0 or more")
    return KeyTest(chosen, decoys)


@overload
def verify(  # type: ignore[overload-overlap]
    source: VideoSource,
    keys: KeySource | Sequence[KeySource],
    *,
    model: VideoModel,
    alpha: float = DEFAULT_ALPHA,
    inversion: InversionOptions | None = None,
    search: Search | str | float | None = AUTO,
    decoys: int = 0,
) -> Verdict: ...
@overload
def verify(  # type: ignore[overload-overlap]
    source: Source,
    keys: KeySource | Sequence[KeySource],
    *,
    model: str | Path | ModelSource | LatentModel | None = None,
    alpha: float = DEFAULT_ALPHA,
    inversion: InversionOptions | None = None,
    search: Search | str | float | None = AUTO,
    decoys: int = 0,
) -> Verdict: ...
@overload
def verify(
    source: Sequence[Source],
    keys: KeySource | Sequence[KeySource],
    *,
    model: str | Path | ModelSource | LatentModel | None = None,
    alpha: float = DEFAULT_ALPHA,
    inversion: InversionOptions | None = None,
    search: Search | str | float | None = AUTO,
    decoys: int = 0,
) -> list[Verdict]: ...
def verify(
    source: Source | VideoSource,
    keys: KeySource | Sequence[KeySource],
    *,
    model: str | Path | ModelSource | LatentModel | None = None,
    alpha: float = DEFAULT_ALPHA,
    inversion: InversionOptions | None = None,
    search: Search | str | float | None = AUTO,
    decoys: int = 0,
) -> Verdict | list[Verdict]:
    """Say whether an image carries one of the keys: the verdict of one image, a list of verdicts of a list of images.

    `verify_many` has arguments and errors, and yields verdicts as they come. For a model that makes videos, a list holds the
    frames of one video.
    """
    loaded = loaded_model(model)
    sources: Sequence[Source | VideoSource] = source if are_several(source, loaded) else [source]
    judged = verify_many(sources, keys, model=loaded, alpha=alpha, inversion=inversion, search=search, decoys=decoys)
    return list(judged) if are_several(source, loaded) else next(iter(judged))


def verify_many(
    sources: Iterable[Source | VideoSource],
    keys: KeySource | Sequence[KeySource],
    *,
    model: str | Path | ModelSource | LatentModel | None = None,
    alpha: float = DEFAULT_ALPHA,
    inversion: InversionOptions | None = None,
    search: Search | str | float | None = AUTO,
    decoys: int = 0,
) -> Iterator[Verdict]:
    """Say for each image whether it carries one of the keys: one verdict per source, in order, lazily, batch by batch.

    Parameters
    ----------
    sources : iterable of paths, bytes or PIL images
        For a model that makes videos, anything that `media.videos.read_video` takes. A source that cannot be read gives a
        verdict with status "error"; the others are still judged.
    keys : Key or path, or a sequence of those
        Keys, key files, or folders of them. All are tried; p-values are Holm-corrected over them.
    model : str, Path, ModelSource or LatentModel, optional
        A loaded model, or what `load_model` takes, which is then loaded in each call; the embedded model when left out.
    alpha : float
        False-positive rate per image, over all keys together, 0 < alpha < 1.
    inversion : InversionOptions, optional
        `InversionOptions.of(profile)` where the model was tested (`Profile.load`).
    search : {"auto", "off", "quick", "fast", "thorough"}, seconds, Search or None
        Search for place, size, angle, reflection and aspect in images that are not detected as they are; "auto" is "fast".
        For more than 32 keys a page is searched at places that it suggests (docs/search.md#indexes). "off" and None save
        the correction, a factor of 2 for images as they are.
    decoys : int
        Count of decoy keys that cross-check the p-value of each image's strongest key (`treering_detectors.decoy_checks`);
        0: none. They check the image as it is, so there is no search then.

    Yields
    ------
    Verdict

    Raises
    ------
    UsageError
        If there is no key, a key or the profile does not fit the model, or alpha, decoys or search is out of range.
    """
    model = loaded_model(model)
    test = key_test(keys, model, decoys=decoys)
    yield from Judge.of(model, test, alpha=alpha, inversion=inversion, search=search).verdicts(sources)


def fitting_keys(keys: KeySource | Sequence[KeySource], model: LatentModel) -> list[Key]:
    """Return keys as a list; UsageError if there is none, one is an index, or one does not fit the model's noise."""
    given = keys_of(keys)
    chosen = [key for key in given if isinstance(key, Key)]
    if len(chosen) < len(given):
        raise UsageError("verify takes keys, and this is an index of keys: use identify")
    check_fit(chosen, model.latent_shape, model.name)
    return chosen
