"""Identification of images: which of many keys, if any, is in this image? The set is open: "none" is an answer.

Every key of the index is tried, so p is Holm-corrected for all of them, and alpha bounds the chance that an image without
any of these keys is attributed to one. The keys of an index file are rounded; their p-values are upper bounds of those of
the exact keys (`treering_detectors.bounded_cosine_tests`). Key files are not rounded, and have the p-values of `verify`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, cast, overload

import numpy as np

from treering_verify.detection.evidence import rank
from treering_verify.detection.judge import DEFAULT_ALPHA, Judge
from treering_verify.detection.reading import are_several
from treering_verify.detection.search.settings import AUTO, MOST_KEYS, Search
from treering_verify.detection.search.target import Target
from treering_verify.errors import KeyFileError, UsageError
from treering_verify.inversion.recovery import InversionOptions
from treering_verify.media.blank_areas import mask_occluded
from treering_verify.models import LatentModel, ModelSource, loaded_model
from treering_verify.results import KeyEvidence, Verdict
from treering_verify.watermark.embedding import extract, features
from treering_verify.watermark.keys.checks import check_fit
from treering_verify.watermark.keys.given import KeySource, keys_of
from treering_verify.watermark.keys.index import KeyIndex, group_keys
from treering_verify.watermark.keys.key import Key
from treering_verify.watermark.patterns import PATTERNS

if TYPE_CHECKING:
    import numpy.typing as npt
    import torch
    from treering_detectors import Evidence

    from treering_verify.detection.judge import Source

    Keys = KeySource | Sequence[KeySource]

DEFAULT_TOP = 5
# Keys beyond the `top` that are tested again in float64, so that rounding in the float32 pass cannot hide one of the best.
_SPARE_ROWS = 32


@overload
def identify(  # type: ignore[overload-overlap]
    source: Source,
    keys: Keys,
    *,
    model: str | Path | ModelSource | LatentModel | None = None,
    alpha: float = DEFAULT_ALPHA,
    top: int = DEFAULT_TOP,
    inversion: InversionOptions | None = None,
    search: Search | str | float | None = AUTO,
) -> Verdict: ...
@overload
def identify(
    source: Sequence[Source],
    keys: Keys,
    *,
    model: str | Path | ModelSource | LatentModel | None = None,
    alpha: float = DEFAULT_ALPHA,
    top: int = DEFAULT_TOP,
    inversion: InversionOptions | None = None,
    search: Search | str | float | None = AUTO,
) -> list[Verdict]: ...
def identify(
    source: Source | Sequence[Source],
    keys: Keys,
    *,
    model: str | Path | ModelSource | LatentModel | None = None,
    alpha: float = DEFAULT_ALPHA,
    top: int = DEFAULT_TOP,
    inversion: InversionOptions | None = None,
    search: Search | str | float | None = AUTO,
) -> Verdict | list[Verdict]:
    """Say which of the keys an image carries, if any: a verdict, or of a list of images a list of them.

    `identify_many` has arguments and errors, and yields verdicts as they come.
    """
    loaded = loaded_model(model)
    images: Sequence[Source] = source if are_several(source, loaded) else [cast("Source", source)]
    judged = identify_many(images, keys, model=loaded, alpha=alpha, top=top, inversion=inversion, search=search)
    return list(judged) if are_several(source, loaded) else next(iter(judged))


def identify_many(
    sources: Iterable[Source],
    keys: Keys,
    *,
    model: str | Path | ModelSource | LatentModel | None = None,
    alpha: float = DEFAULT_ALPHA,
    top: int = DEFAULT_TOP,
    inversion: InversionOptions | None = None,
    search: Search | str | float | None = AUTO,
) -> Iterator[Verdict]:
    """Say for each image which of the keys it carries, if any: one verdict per source, with its best matches, in order.

    Parameters
    ----------
    sources : iterable of paths, bytes or PIL images
        A source that cannot be read gives a verdict with status "error"; the others are still judged.
    keys : Key, KeyIndex or path, or a sequence of those
        All are tried; p-values are Holm-corrected over them.
    model : str, Path, ModelSource or LatentModel, optional
        A loaded model, or what `load_model` takes, which is then loaded in each call; the embedded model when left out.
    alpha : float
        False-positive rate per image, over all keys together, 0 < alpha < 1.
    top : int
        Count of matches in a verdict's `evidence`, the best first, whether or not they are significant.
    inversion : InversionOptions, optional
    search : {"auto", "off", "quick", "fast", "thorough"}, seconds, Search or None
        As in `verify_many`.

    Yields
    ------
    Verdict
        As `verify_many` yields it. A match's statistic is the cosine, for rounded keys a lower bound of it.

    Raises
    ------
    UsageError
        If there is no key, two have the same name, a key does not fit the model, or alpha or top is out of range.
    KeyFileError
        If a match's key is damaged in its index.
    """
    model = loaded_model(model)
    test = index_test(keys, model, top)
    yield from Judge.of(model, test, alpha=alpha, inversion=inversion, search=search).verdicts(sources)


@dataclass(frozen=True, eq=False)
class IndexTest:
    """The test of all keys of indexes.

    Attributes
    ----------
    indexes : list of KeyIndex
        At least one.
    top : int
        Matches to report, strongest first.
    """

    indexes: list[KeyIndex] = field(repr=False)
    top: int = 1

    @property
    def keys_tried(self) -> int:
        """Count of keys that the p-values are corrected for."""
        return sum(map(len, self.indexes))

    @property
    def tried(self) -> Sequence[KeyIndex]:
        """The keys, in indexes, that are looked for."""
        return self.indexes

    def evidence(self, noise_hat: torch.Tensor) -> list[tuple[KeyEvidence, ...]]:
        """Test noise estimates; see `judge.EvidenceTest`."""
        return match_keys(noise_hat, self.indexes, self.top)

    def targets(self) -> list[Target]:
        """Return the keys that all of a page is searched for; see `judge.PageTest`."""
        if self.keys_tried > MOST_KEYS or not self.searched:
            return []
        return [self.target(number) for number in range(self.keys_tried)]

    @property
    def searched(self) -> bool:
        """Whether pages can be searched for the keys' patterns."""
        return all(PATTERNS[index.family.pattern].searched for index in self.indexes)

    def target(self, number: int) -> Target:
        """Return a key by its number, counted over all indexes."""
        for index in self.indexes:
            if number < len(index):
                break
            number -= len(index)
        names, fingerprints, numbers = index.entries(np.array([number]))
        row = np.asarray(numbers[0], dtype=np.float64)
        return Target(names[0], fingerprints[0], index.family, row, float(index.facts["drift"][number]))

    def nearest(self, noise: torch.Tensor, visible: torch.Tensor, keep: int) -> list[list[tuple[int, float, float]]]:
        """Return the best keys of windows of a page; see `index_search.Index`."""
        import torch
        from treering_detectors import cosine_log10_pvalue, nearest_rows

        found: list[list[tuple[int, float, float]]] = [[] for _ in noise]
        first = 0
        for index in self.indexes:
            read_off = features(extract(mask_occluded(noise, visible), index.family), index.family)
            rows = nearest_rows(read_off, index.numbers, index.lengths, keep, torch.get_num_threads())
            lengths = np.linalg.norm(read_off, axis=1)
            some = read_off / np.where(lengths > 0, lengths, 1)[:, None]
            for i, of_window in enumerate(rows):
                cosines = index.numbers[of_window].astype(np.float64) @ some[i] / index.lengths[of_window]
                cosines -= index.facts["drift"][of_window]
                log10 = cosine_log10_pvalue(np.clip(cosines, -1.0, np.nextafter(1.0, 0.0)), some.shape[1])
                if lengths[i] > 0:
                    found[i] += zip((first + of_window).tolist(), log10.tolist(), cosines.tolist(), strict=True)
            first += len(index)
        return [sorted(some, key=lambda item: item[1])[:keep] for some in found]


def index_test(keys: Keys, model: LatentModel, top: int = 1) -> IndexTest:
    """Return the test of all keys and indexes on images of a model.

    Raises
    ------
    UsageError
        If there is no key, two have the same name, one does not fit the model, or `top` is less than 1.
    """
    indexes = gather(keys)
    check_fit(indexes, model.latent_shape, model.name)
    if top < 1:
        raise UsageError(f"top is {top}: ask for at least 1 match")
    return IndexTest(indexes, top)


def gather(keys: Keys) -> list[KeyIndex]:
    """Return keys and indexes as indexes; UsageError if there is no key, or two have one name."""
    given = keys_of(keys)
    indexes = [k for k in given if isinstance(k, KeyIndex)] + group_keys([k for k in given if isinstance(k, Key)])
    if len(indexes) > 1:  # within one, names were found distinct when it was made
        names, counts = np.unique(np.concatenate([i.facts["name"] for i in indexes]), return_counts=True)
        if counts.max() > 1:
            raise UsageError(
                f"two keys are called {names[counts.argmax()].decode()!r}, so a verdict could not say which matched: "
                "rename one (keygen --name), or leave one out"
            )
    return indexes


def match_keys(
    noise_hat: torch.Tensor, indexes: Sequence[KeyIndex], top: int = DEFAULT_TOP
) -> list[tuple[KeyEvidence, ...]]:
    """Return the `top` best keys of the indexes for each noise estimate of (B, C, h, w), Holm-adjusted over all keys.

    Raises
    ------
    KeyFileError
        If a match's key is damaged in its index.
    """
    found: list[list[tuple[str, str, Evidence]]] = [[] for _ in range(len(noise_hat))]
    for index in indexes:
        estimates = features(extract(noise_hat, index.family), index.family)
        for some, image in zip(_strongest(estimates, index, top + _SPARE_ROWS), found, strict=True):
            image += some
    tried = sum(map(len, indexes))
    return [rank(image, tried)[:top] for image in found]


def _strongest(
    estimates: npt.NDArray[np.float64], index: KeyIndex, keep: int
) -> Iterator[list[tuple[str, str, Evidence]]]:
    """Yield for each image, (B, d), the keys of an index with the smallest p-values, in the order of the index."""
    import torch
    from treering_detectors import bounded_cosine_tests, nearest_rows

    try:
        nearest = nearest_rows(estimates, index.numbers, index.lengths, keep, torch.get_num_threads())
    except ValueError as error:
        if not np.isfinite(estimates).all():
            raise
        # The index has damaged numbers; the message shows none of them.
        raise KeyFileError(f"the key index {index.source} is damaged: {error}") from None
    for image, rows in zip(estimates, nearest, strict=True):
        names, fingerprints, numbers = index.entries(rows)
        evidence = bounded_cosine_tests(image, numbers, index.facts["drift"][rows])
        yield list(zip(names, fingerprints, evidence, strict=True))
