"""The judge of an audit: readings -> rows, in batches that are divided where memory runs out or the model fails.

`judge_batch` and `judge_files` know nothing of folders, processes or shards, so the worker of a cluster calls the same.
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from treering_verify.audit.inputs.reading import Reading, read_encoded, refused
from treering_verify.audit.output.rows import Row
from treering_verify.detection.animations import best_frame
from treering_verify.detection.exhibits import Kept, part_of
from treering_verify.detection.identification import index_test
from treering_verify.detection.judge import Judge
from treering_verify.detection.screening import Screening, default_screening
from treering_verify.detection.search.page import Page
from treering_verify.detection.search.settings import AUDIT, search_of
from treering_verify.errors import KeyFileError, ModelError, UsageError
from treering_verify.files import printable
from treering_verify.inversion.recovery import InversionOptions
from treering_verify.models import LatentModel, makes_videos
from treering_verify.results import DETECTED
from treering_verify.watermark.keys.index import KeyIndex

if TYPE_CHECKING:
    from treering_verify.audit.sketches import Sketches
    from treering_verify.detection.identification import Keys
    from treering_verify.detection.search.settings import Search
    from treering_verify.detection.two_pass import Finding
    from treering_verify.results import KeyEvidence

LOG = logging.getLogger("treering_verify.audit")
_MAX_FAILURES = 16  # in a row; then a test image tells a broken model from bad images
_SIZES = (4, 8, 16, 32, 64)
_EVIDENCE = ("key", "fingerprint", "log10_pvalue", "log10_adjusted", "statistic", "degrees_of_freedom")  # a row's
_BATCH_SECONDS = 15.0  # of a batch: rows come early, and little is lost when an audit is stopped
_MEMORY = 0.7  # of the time an image took, for the next batch's, which may be of easier images
_GAIN = 0.97  # a larger batch must take less than this share of the time per image


@dataclass(frozen=True, eq=False)
class AuditJudge:
    """A judge with what rows record about it.

    Attributes
    ----------
    judge : Judge
        Its inversion's batch size plays no part: `judge_batch` judges what it is given as one batch.
    indexes : list of KeyIndex
        Indexes whose keys are all tried.
    settings_id : str
        Digest of the settings, written into each row.
    device : str
        Device of the model.
    sketches : Sketches, optional
        Takes what was judged, for the statistics of chance.
    kept : Kept, optional
        Keeps what reports need of detected images.
    """

    judge: Judge
    indexes: list[KeyIndex] = field(repr=False)
    settings_id: str = ""
    device: str = "cpu"
    sketches: Sketches | None = None
    kept: Kept | None = field(default=None, repr=False)

    @classmethod
    def of(
        cls,
        keys: Keys,
        model: LatentModel,
        alpha: float,
        inversion: InversionOptions,
        screening: Screening | Literal["auto"] | None = None,
        search: Search | str | float | None = None,
    ) -> AuditJudge:
        """Return a judge for keys and indexes; with screening "auto", `default_screening` chooses.

        Raises
        ------
        UsageError
            If there is no key, two have the same name, one or the profile does not fit the model, alpha is out of
            range, or the model lacks what the screening pass needs.
        """
        test = index_test(keys, model)
        if screening == "auto":
            screening = default_screening(model, inversion, test.keys_tried)
        judge = Judge.of(
            model, test, alpha=alpha, inversion=inversion, screening=screening, search=search_of(search, AUDIT)
        )
        return cls(judge, test.indexes)

    @property
    def model(self) -> LatentModel:
        """The model that inverts the images."""
        return self.judge.model

    def on(self, model: LatentModel, device: str) -> AuditJudge:
        """Return the same judge with its model on another device, such as a GPU."""
        return replace(self, judge=replace(self.judge, model=model), device=device)


def shape_of(model: LatentModel) -> tuple[int, ...]:
    """Return the shape of the pixels that readers produce: (height, width), of videos (frames, height, width)."""
    return (model.frames, *model.image_size) if makes_videos(model) else model.image_size


def row_of(judge: AuditJudge, reading: Reading, **answer: Any) -> Row:
    """Return the row of a reading; `answer` holds the fields that the reading does not know."""
    names = ("path", "status", "code", "reason", "sha256", "bytes", "width", "height", "mode", "seconds")
    facts: dict[str, Any] = {name: getattr(reading, name) for name in names}
    return Row(**{**facts, "alpha": judge.judge.alpha, "settings_id": judge.settings_id, **answer})


def judge_batch(judge: AuditJudge, readings: Sequence[Reading]) -> list[Row]:
    """Judge images, or videos, of one shape together, and return one row for each, in order.

    Parameters
    ----------
    judge : AuditJudge
    readings : sequence of Reading
        At least one, with pixels of the model's shape.

    Raises
    ------
    MemoryError, torch.OutOfMemoryError, RuntimeError
        If the batch needs too much memory; `judge_in_parts` divides it.
    KeyFileError
        If a detected key is damaged in its index.
    """
    import numpy as np
    import torch
    from PIL import Image

    # (B, H, W, 3) or (B, F, H, W, 3) uint8 -> (B, 3, H, W) or (B, 3 F, H, W) in [-1, 1], as conversion.to_tensor. Of an
    # animated image each frame is an item of its own.
    arrays = [r.pixels if r.frames else r.pixels[None] for r in readings if r.pixels is not None]
    pixels = torch.from_numpy(np.concatenate(arrays))
    channels_first = pixels.movedim(-1, -3).to(torch.float32).contiguous()
    images = (channels_first / 127.5 - 1.0).flatten(1, -3)
    pages = [
        None if r.page is None else Page((Image.fromarray(r.page),), r.reduced)
        for r in readings
        for _ in r.frames or (0,)
    ]
    findings = judge.judge.find(images, pages)
    rows, estimates = [], []
    for reading in readings:
        of_frames = [next(findings) for _ in reading.frames or (0,)]
        finding = best_frame(of_frames, reading.frames, reading.frames_total)
        decision = judge.judge.decide(finding, reading.note, _size(reading, judge.model), reading.compression)
        strongest = {name: getattr(finding.evidence[0], name) for name in _EVIDENCE}
        if finding.evidence[0].log10_adjusted == 0:  # whichever key comes first then, it has no evidence
            strongest |= {"key": None, "fingerprint": None}
        row = row_of(
            judge,
            reading,
            verdict=decision.verdict,
            code=decision.code,
            reason=decision.reason,
            residual=None if math.isnan(finding.residual) else finding.residual,
            converged=finding.converged,
            seconds=reading.seconds + finding.seconds,
            decided_by=finding.decided_by,
            log10_first=finding.log10_first,
            hypothesis=(finding.evidence[0].hypothesis or None) if decision.verdict == DETECTED else None,
            placement=_placement(finding.evidence[0]) if decision.verdict == DETECTED else None,
            search=None if finding.search is None else finding.search["level"],
            key_retired=finding.evidence[0].retired or None,
            key_origin=finding.evidence[0].origin or None,
            **strongest,
        )
        rows.append(row)
        estimates.append(finding.noise_hat)
        if judge.kept and row.verdict == DETECTED:
            _keep(judge, judge.kept, reading, of_frames)
    if judge.sketches:
        judge.sketches.take(rows, estimates)
    return rows


def _placement(evidence: KeyEvidence) -> str | None:
    return json.dumps(evidence.placement) if evidence.placement else None


def _keep(judge: AuditJudge, kept: Kept, reading: Reading, findings: Sequence[Finding]) -> None:
    """Keep what a report needs of a detected image: of an animated one, of the frame with the strongest evidence."""
    from PIL import Image

    frame = min(range(len(findings)), key=lambda i: findings[i].evidence[0].log10_adjusted)
    assert reading.pixels is not None
    shown = reading.page if reading.page is not None else reading.pixels
    while shown.ndim > 3:
        shown = shown[frame if reading.frames else 0]
    image = Image.fromarray(shown)
    evidence, part = findings[frame].evidence[0], None
    if evidence.placement and not makes_videos(judge.model):
        part = part_of(Page((image,), reading.reduced), evidence.placement, judge.model.image_size)
    if reading.sha256:
        kept.add(reading.sha256, evidence, image, part, findings[frame].shown_noise)


def _size(reading: Reading, model: LatentModel) -> tuple[int, int] | None:
    """Return width and height of an image; None of a video, and of the image with which an audit tries the model."""
    if makes_videos(model) or reading.width is None or reading.height is None:
        return None
    return reading.width, reading.height


def judge_files(judge: AuditJudge, files: Sequence[tuple[str, bytes]]) -> list[Row]:
    """Judge encoded images in memory, (path, bytes), and return one row for each, in order, whatever is in them."""
    readings = []
    for path, data in files:
        try:
            readings.append(read_encoded(path, data, shape_of(judge.model)))
        except MemoryError:
            readings.append(refused(path, "reader_memory"))
    judged = iter(judge_in_parts(judge, [reading for reading in readings if reading.pixels is not None]))
    return [row_of(judge, reading) if reading.pixels is None else next(judged) for reading in readings]


def judge_in_parts(
    judge: AuditJudge, readings: Sequence[Reading], on_halving: Callable[[int], None] = lambda size: None
) -> list[Row]:
    """Judge a batch, divided into halves as often as it fails; a single image that fails gets a row that says so.

    Parameters
    ----------
    judge, readings
        As `judge_batch`; there may be none.
    on_halving : callable
        Called with the size to continue with after memory ran out.
    """
    if not readings:
        return []
    try:
        return judge_batch(judge, readings)
    except (KeyFileError, UsageError):
        raise
    except Exception as error:
        exhausted = _is_out_of_memory(error)
        detail = printable(f"{type(error).__name__}: {error}".splitlines()[0])[:200]
    # Outside the handler, because there the traceback would hold the batch's tensors in memory.
    half = len(readings) // 2
    LOG.warning("a batch of %d failed, %s: %s", len(readings), "divided" if half else "given up", detail)
    if not half:
        failure = refused(readings[0].path, "model_out_of_memory" if exhausted else "model_failed", detail)
        reading = readings[0]
        return [row_of(judge, reading, status="error", code=failure.code, reason=failure.reason)]
    if exhausted:
        _release()
        on_halving(half)
    return judge_in_parts(judge, readings[:half], on_halving) + judge_in_parts(judge, readings[half:], on_halving)


class Batching:
    """The batch size: given, or found by trying; never more than memory allowed, nor than `_BATCH_SECONDS` judge.

    Sizes of 4, 8, ... 64 are tried on two batches each, for as long as each is faster per image than the one before.
    """

    def __init__(self, size: int | None = None) -> None:
        self._trying = list(_SIZES[1:]) if size is None else []
        self._chosen = size or _SIZES[0]
        self._affordable = 1  # until the first image has been timed
        self._seconds: float | None = None
        self._best: tuple[int, float] | None = None
        self._times: list[float] = []
        self._failures = 0

    @property
    def size(self) -> int:
        """Images of the next batch."""
        return min(self._chosen, self._affordable)

    def judge(self, judge: AuditJudge, readings: Sequence[Reading]) -> list[Row]:
        """Judge a batch, and use its time and its failures to set the next size.

        Raises
        ------
        ModelError
            If the model fails on one image after another, and on a test image too.
        """
        size = self.size
        started = time.perf_counter()
        rows = judge_in_parts(judge, readings, self._halved)
        seconds = (time.perf_counter() - started) / len(readings)
        if self._chosen == size == len(readings):
            self._learn(seconds)
        slowest = max(seconds, _MEMORY * (self._seconds or 0.0), 1e-9)
        self._seconds = (
            0.0 if self._seconds is None else slowest
        )  # the first batch warms the device up, and is forgotten
        self._affordable = max(1, int(_BATCH_SECONDS / slowest))
        for row in rows:
            self._failures = self._failures + 1 if row.code in ("model_failed", "model_out_of_memory") else 0
            if self._failures >= _MAX_FAILURES:
                self._failures = 0
                _check_model(judge, row.reason)
        return rows

    def _halved(self, size: int) -> None:
        self._chosen, self._trying = min(self._chosen, size), []

    def _learn(self, seconds: float) -> None:
        if not self._trying:
            return
        self._times.append(seconds)
        if len(self._times) < 2:
            return
        found, self._times = min(self._times), []
        if self._best and found > _GAIN * self._best[1]:
            self._chosen, self._trying = self._best[0], []
        else:
            self._best = (self._chosen, found)
            self._chosen = self._trying.pop(0)
        if not self._trying:
            LOG.info("batches of %d", self._chosen)


def _check_model(judge: AuditJudge, reason: str) -> None:
    """Raise ModelError if the model fails on a test image: many bad files are no reason to stop, a broken model is."""
    import numpy as np

    pixels = np.random.default_rng(0).integers(0, 256, (*shape_of(judge.model), 3), np.uint8)
    try:
        judge_batch(judge, [Reading("", "ok", pixels=pixels)])
    except Exception as error:
        raise ModelError(
            f"the model failed on {_MAX_FAILURES} images in a row and then on a test image ({reason}); finished "
            "results are on disk: check the model and its device, and run the same command again"
        ) from error


def _is_out_of_memory(error: Exception) -> bool:
    import torch

    text = str(error).lower()  # the CPU's allocator raises a plain RuntimeError
    kinds = (MemoryError, torch.OutOfMemoryError)
    return isinstance(error, kinds) or "out of memory" in text or "can't allocate memory" in text


def _release() -> None:
    import gc

    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
