"""The engine of detection: read, invert, test, decide. Every verdict of this package is made here.

    source --read--> image --invert--> noise estimate --test--> evidence --decide--> verdict

`verify`, `identify`, `decode`, the calibrated detectors, audits and a model's self-test differ in their `EvidenceTest` only.
Where that shows no key, and the test names keys as targets, the page itself is searched for them (`search.search_page`).

The p-value is exact for any image that does not depend on the key (docs/exact-test.md): reading, resizing and both
inversions depend on the image alone, so they can cost power but never validity.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from treering_verify.detection.animations import best_frame
from treering_verify.detection.decision import Decision, check_alpha, decide
from treering_verify.detection.evidence import combined
from treering_verify.detection.reading import Reading, read, several
from treering_verify.detection.screening import Screening
from treering_verify.detection.search.grid import IDENTITY
from treering_verify.detection.search.index_search import search_index
from treering_verify.detection.search.page import Page
from treering_verify.detection.search.search import search_page
from treering_verify.detection.search.settings import OFF, Search, search_of
from treering_verify.detection.search.target import Target
from treering_verify.detection.search.video_offsets import Timeline
from treering_verify.detection.two_pass import Finding, find
from treering_verify.errors import ImageError
from treering_verify.files import printable
from treering_verify.inversion.recovery import (
    InversionOptions,
    filters_used,
    images_at_a_time,
    recover_in_batches,
    restorer_used,
)
from treering_verify.media.digests import sha256_of
from treering_verify.models import LatentModel, makes_videos
from treering_verify.models.profile import check_profile
from treering_verify.models.provenance import provenance_of, utc_now
from treering_verify.results import FREE_NUMBERS, KeyEvidence, Verdict
from treering_verify.watermark.keys.index import origin_of_key, public_keys, retired_keys
from treering_verify.watermark.patterns import PATTERNS

if TYPE_CHECKING:
    import torch

    from treering_verify.media.images import ImageSource
    from treering_verify.media.videos import VideoSource
    from treering_verify.watermark.keys.index import KeyIndex
    from treering_verify.watermark.keys.key import Key

    Source = ImageSource

DEFAULT_ALPHA = 1e-6
_MOST_KEYS = 20  # in a record; of more there is a digest
_BATCH_PIXELS = 64_000_000  # of the pages in a batch, about
_UNSETTLED = ("budget", "diverged")  # statuses of a decoder inversion that did not converge


class EvidenceTest(Protocol):
    """A test of noise estimates: what a judge looks for."""

    @property
    def keys_tried(self) -> int:
        """Count of keys that the p-values are corrected for."""

    @property
    def tried(self) -> Sequence[Key | KeyIndex]:
        """The keys and indexes that are looked for."""

    def evidence(self, noise_hat: torch.Tensor) -> Sequence[tuple[KeyEvidence, ...]]:
        """Test noise estimates (B, C, h, w): per image the evidence, strongest first, at least one."""


@runtime_checkable
class PageTest(Protocol):
    """An `EvidenceTest` whose keys a page can be searched for."""

    def targets(self) -> list[Target]:
        """Return the keys that pages are searched for: none where their pattern, or their number, forbids it."""


@runtime_checkable
class IndexPageTest(Protocol):
    """An `EvidenceTest` of so many keys that pages are searched at some places only (`index_search.Index`)."""

    @property
    def keys_tried(self) -> int:
        """Count of keys."""

    @property
    def searched(self) -> bool:
        """Whether pages can be searched for the keys' patterns."""

    def nearest(self, noise: torch.Tensor, visible: torch.Tensor, keep: int) -> list[list[tuple[int, float, float]]]:
        """Return the best keys of windows of a page."""

    def target(self, key: int) -> Target:
        """Return a key by its number."""


@dataclass(frozen=True, eq=False)
class _Read:
    """A source, what was read of it or why it could not be, and the seconds that took."""

    source: Source | VideoSource
    reading: Reading | ImageError
    seconds: float


@dataclass(frozen=True, eq=False)
class Judge:
    """A model, a test and their settings, by which images are judged; `Judge.of` checks that they fit each other.

    Attributes
    ----------
    model : LatentModel
    test : EvidenceTest
    alpha : float
        False-positive rate per image, over all keys together.
    inversion : InversionOptions
    screening : Screening, optional
        A cheap screening pass that decides most images; None inverts every image in full.
    weakness : str
        Why marks of this model would be missed, as its profile says, or "".
    search : Search, optional
        Search of images that show no key as they are; None searches nothing.
    targets : list of Target
        The keys that all of a page is searched for.
    index : IndexPageTest, optional
        The keys that pages are searched for at some places, where they are too many for more.
    retired : mapping of str to str
        Days from which on keys are retired, by fingerprint.
    """

    model: LatentModel
    test: EvidenceTest
    alpha: float = DEFAULT_ALPHA
    inversion: InversionOptions = field(default_factory=InversionOptions)
    screening: Screening | None = None
    weakness: str = ""
    search: Search | None = None
    targets: list[Target] = field(default_factory=list, repr=False)
    index: IndexPageTest | None = None
    retired: Mapping[str, str] = field(default_factory=dict)
    _known: dict[str, tuple[str, str]] = field(default_factory=dict, init=False, repr=False)

    @classmethod
    def of(
        cls,
        model: LatentModel,
        test: EvidenceTest,
        *,
        alpha: float = DEFAULT_ALPHA,
        inversion: InversionOptions | None = None,
        screening: Screening | None = None,
        search: Search | str | float | None = None,
    ) -> Judge:
        """Return a judge; UsageError if alpha is out of range, or profile or screening do not fit the model."""
        check_alpha(alpha)
        inversion = inversion or InversionOptions()
        weakness = check_profile(inversion.profile, model, alpha, test.keys_tried)
        wanted = search_of(search)
        targets = test.targets() if wanted and isinstance(test, PageTest) else []
        many = wanted and not targets and isinstance(test, IndexPageTest) and test.searched and not makes_videos(model)
        index = test if many and isinstance(test, IndexPageTest) else None
        screening, retired = screening and screening.of(model), retired_keys(test.tried)
        return cls(model, test, alpha, inversion, screening, weakness, wanted, targets, index, retired)

    @property
    def searches(self) -> bool:
        """Whether pages are searched."""
        return bool(self.targets) or self.index is not None

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that verdicts depend on, JSON-ready."""
        profile, filters = self.inversion.profile, filters_used(self.model, self.inversion)
        restorer = restorer_used(self.model, self.inversion)
        inversion = asdict(replace(self.inversion, profile=None))
        del inversion["batch_size"]  # changes no verdict
        return {
            "alpha": self.alpha,
            **inversion,
            "profile": profile.record() if profile else None,
            **({"inverter": filters} if filters else {}),
            **({"restorer": restorer} if restorer else {}),
            "tile": self.model.tile,
            "search": self.search.words if self.search and self.searches else OFF,
            **({"screening": asdict(self.screening)} if self.screening else {}),
        }

    @property
    def unused_networks(self) -> tuple[str, ...]:
        """Networks of the model that play no part in verdicts."""
        return () if self.screening else ("screen",)

    @cached_property
    def provenance(self) -> dict[str, Any]:
        """What the records of all verdicts say of model, weights, keys, settings and versions."""
        keys = public_keys(self.test.tried, _MOST_KEYS)
        return provenance_of(self.model, keys, self.settings, without=self.unused_networks)

    def find(self, images: torch.Tensor, pages: Sequence[Page | None] | None = None) -> Iterator[Finding]:
        """Invert and test images (B, 3, H, W) together, then yield what is found in each, in order, once it is searched.

        `pages` are the images at their own size; one that is None is searched as it was brought to the model's size.
        """
        identity = IDENTITY if self.searches else 1.0
        found = find(self.model, images, self.test.evidence, self.inversion, self.screening, self.alpha * identity)
        for finding, image, page in zip(found, images.split(1), pages or [None] * len(found), strict=True):
            searched = self._searched(finding, image, page or Page.of(image[0])) if self.searches else finding
            yield replace(searched, evidence=self._described(searched.evidence))

    def _described(self, evidence: tuple[KeyEvidence, ...]) -> tuple[KeyEvidence, ...]:
        """Return evidence that says of each key whether it is retired and, at or under alpha, its origin."""
        reached = np.log10(self.alpha)
        return tuple(
            replace(
                one,
                retired=self.retired.get(one.fingerprint, ""),
                origin=self._key(one.fingerprint)[0] if one.log10_adjusted <= reached else "",
            )
            for one in evidence
        )

    def _key(self, fingerprint: str) -> tuple[str, str]:
        """Return origin and pattern of a key; a search of an index is not repeated."""
        if fingerprint not in self._known:
            self._known[fingerprint] = origin_of_key(self.test.tried, fingerprint)
        return self._known[fingerprint]

    def _searched(self, finding: Finding, image: torch.Tensor, page: Page) -> Finding:
        """Correct a finding for the search that goes with it, and search the page if no key is found without."""
        keys = self.targets or finding.evidence
        weights = {key.fingerprint: IDENTITY for key in keys}
        evidence = combined(finding.evidence, {}, weights, finding.share, self.test.keys_tried)
        if evidence[0].log10_adjusted <= np.log10(self.alpha):
            return replace(finding, evidence=evidence)
        assert self.search is not None
        invert = partial(recover_in_batches, self.model, self.inversion)
        given = self.model, page, image, finding.noise_hat
        if self.index is not None:
            targets, done = search_index(*given, self.index, self.search, invert, self.alpha)
        else:
            targets, timeline = self.targets, Timeline.of(self.model)
            done = search_page(*given, targets, self.search, invert, self.alpha, timeline)
        found = {target.fingerprint: one for target, one in zip(targets, done.found, strict=True) if one}
        # A key that only the search finds may be none of the strongest of the image as it is.
        names = {target.fingerprint: target for target in targets}
        evidence = combined(finding.evidence, found, weights, finding.share, self.test.keys_tried, names)
        seconds = finding.seconds + done.seconds
        best = found.get(evidence[0].fingerprint)
        of_search = best is not None and best.log10_pvalue == evidence[0].log10_pvalue
        return replace(
            finding,
            evidence=evidence[: len(finding.evidence)],
            seconds=seconds,
            search=done.record(self.search),
            shown_noise=best.noise_hat if best is not None and of_search else finding.noise_hat,
        )

    def decide(
        self,
        finding: Finding,
        note: str,
        size: tuple[int, int] | None,
        compression: tuple[str, int, float] | None = None,
    ) -> Decision:
        """Return the decision on one image.

        `note` says how it was fitted to the model's size (`Verdict.note`), and `size` is its own, (width, height): None of a
        video. `compression` says how a still image in a lossy format was compressed (`media.compression`).
        """
        height, width = self.model.image_size
        sides = None if size is None else (size[0] / width, size[1] / height)
        cells = math.prod(self.model.latent_shape[-2:])
        return decide(
            finding.evidence,
            self.alpha,
            note,
            finding.status,
            self.weakness,
            finding.visible,
            sides,
            finding.search,
            self._fitted(finding.evidence[0]),
            compression and (compression[0], compression[1] / cells, compression[2]),
        )

    def _fitted(self, strongest: KeyEvidence) -> float | None:
        """Return the statistic from which on a key counts as fitted to the image, or None (docs/exact-test.md)."""
        if (
            strongest.origin != FREE_NUMBERS or strongest.stratum
        ):  # the score of a calibrated detector tells nothing of it
            return None
        agreement = PATTERNS[self._key(strongest.fingerprint)[1]].agreement
        return agreement.bound(strongest.degrees_of_freedom) if agreement else None

    def verdicts(self, sources: Iterable[Source | VideoSource]) -> Iterator[Verdict]:
        """Yield one verdict per source, in order, each once it is judged; what cannot be read gets a verdict too.

        A batch is inverted together, and then searched image by image.
        """
        batch: list[_Read] = []
        for source in several(sources):
            batch.append(self._read(source))
            pages = [page for one in batch if isinstance(one.reading, Reading) for page in one.reading.pages if page]
            pixels = sum(page.pixels for page in pages)
            if len(batch) == images_at_a_time(self.model, self.inversion) or pixels > _BATCH_PIXELS:
                yield from self._judge_batch(batch)
                batch = []
        if batch:
            yield from self._judge_batch(batch)

    def _judge_batch(self, batch: list[_Read]) -> Iterator[Verdict]:
        import torch

        good = [one.reading for one in batch if isinstance(one.reading, Reading)]
        images, pages = [reading.image for reading in good], [page for reading in good for page in reading.pages]
        findings = self.find(torch.cat(images), pages) if images else iter(())
        for one in batch:
            path = str(one.source) if isinstance(one.source, (str, Path)) else ""
            if isinstance(one.reading, ImageError):
                yield self._unjudged(path, one.reading, one.seconds, sha256_of(one.source))
            else:
                of_frames = [next(findings) for _ in one.reading.pages]
                yield self._verdict(path, one.reading, of_frames, one.seconds)

    def _read(self, source: Source | VideoSource) -> _Read:
        started = time.perf_counter()
        reading: Reading | ImageError
        try:
            reading = read(source, self.model)
        except ImageError as error:
            reading = error
        return _Read(source, reading, time.perf_counter() - started)

    def _verdict(self, path: str, reading: Reading, of_frames: list[Finding], reading_seconds: float) -> Verdict:
        finding = best_frame(of_frames, reading.frames, reading.frames_total)
        page = reading.pages[0]
        size = page.size if page and not makes_videos(self.model) else None
        decision = self.decide(finding, reading.note, size, reading.compression)
        judged = f"{len(of_frames)} of {reading.frames_total} frames judged" if reading.frames else ""
        return Verdict(
            path=path,
            status="ok",
            verdict=decision.verdict,
            alpha=self.alpha,
            code=decision.code,
            reason=decision.reason,
            evidence=finding.evidence,
            note=", ".join(filter(None, (reading.note, judged))),
            residual=finding.residual,
            converged=finding.status not in _UNSETTLED,
            seconds=reading_seconds + finding.seconds,
            keys_tried=self.test.keys_tried,
            profile=self._profile,
            inverter=filters_used(self.model, self.inversion),
            visible=finding.visible,
            search=finding.search,
            sha256=reading.sha256,
            time=utc_now(),
            provenance=self.provenance,
        )

    def _unjudged(self, path: str, error: ImageError, seconds: float, sha256: str | None) -> Verdict:
        return Verdict(
            path=path,
            status="error",
            verdict=None,
            alpha=self.alpha,
            code=error.code,
            reason=printable(error.reason),
            seconds=seconds,
            profile=self._profile,
            sha256=sha256,
            time=utc_now(),
            provenance=self.provenance,
        )

    @property
    def _profile(self) -> str:
        return self.inversion.profile.digest if self.inversion.profile else ""
