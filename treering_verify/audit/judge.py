"""Judge images in batches: a pure function from readings to rows, and what keeps it going when a batch is too much.

`judge_batch` and `judge_files` know nothing of folders, processes or shards, so the worker of a cluster calls the same.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from treering_verify.audit.inputs.read import Reading, read_encoded, refused
from treering_verify.audit.output.rows import Row
from treering_verify.detection.identification import gather
from treering_verify.detection.screening import Screening, default_screening
from treering_verify.detection.two_pass import answer
from treering_verify.detection.verification import DEFAULT_ALPHA, check_shape, decide
from treering_verify.errors import KeyFileError, ModelError, UsageError
from treering_verify.files import printable
from treering_verify.inversion.recovery import InversionOptions
from treering_verify.models import LatentModel, makes_videos
from treering_verify.models.profile import check_profile
from treering_verify.watermark.keys.index import KeyIndex

if TYPE_CHECKING:
    from treering_verify.detection.identification import Keys

LOG = logging.getLogger("treering_verify.audit")
_MAX_FAILURES = 16  # in a row, after which an image of our own shows whether it is the model or the images
_SIZES = (4, 8, 16, 32, 64)
_EVIDENCE = ("key", "fingerprint", "log10_pvalue", "log10_adjusted", "statistic", "degrees_of_freedom")  # in a row
_GAIN = 0.97  # a larger batch must take less than this share of the time per image


@dataclass(frozen=True, eq=False)
class Judge:
    """What rows are made with.

    Attributes
    ----------
    model : LatentModel
    indexes : list of KeyIndex
        All their keys are tried.
    alpha : float
    pipeline : Pipeline
        Its batch size plays no part: a batch is what `judge_batch` is given.
    settings_id : str
        Written into each row.
    device : str
        Where the model is.
    passes : Passes, optional
        Where most images are to be decided by a cheap first pass; None takes all through the pipeline.
    """

    model: LatentModel
    indexes: list[KeyIndex] = field(repr=False)
    alpha: float = DEFAULT_ALPHA
    pipeline: InversionOptions = field(default_factory=InversionOptions)
    settings_id: str = ""
    device: str = "cpu"
    weakness: str = ""  # why marks of this model would be missed, as its profile says
    screening: Screening | None = None

    @classmethod
    def of(
        cls,
        keys: Keys,
        model: LatentModel,
        alpha: float,
        pipeline: InversionOptions,
        screening: Screening | Literal["auto"] | None = None,
    ) -> Judge:
        """Judge by keys and indexes; passes "auto" are what `default_screening` chooses.

        Raises
        ------
        UsageError
            If there is no key, two have the same name, one or the profile does not fit the model, alpha is out of
            range, or the model cannot give the first pass.
        """
        indexes = gather(keys)
        for index in indexes:
            check_shape(f"a family of keys ({index.family})", index.family.latent_shape, model)
        if not 0 < alpha < 1:
            raise UsageError(f"alpha is {alpha}: choose a false-positive rate between 0 and 1, such as 1e-6")
        count = sum(map(len, indexes))
        weakness = check_profile(pipeline.profile, model, alpha, count)
        chosen = default_screening(model, pipeline, count) if screening == "auto" else screening
        return cls(model, indexes, alpha, pipeline, weakness=weakness, screening=chosen and chosen.of(model))

    @property
    def keys_tried(self) -> int:
        """Count of keys that p-values are corrected for."""
        return sum(map(len, self.indexes))


def shape_of(model: LatentModel) -> tuple[int, ...]:
    """Return the shape that readers bring inputs to: (height, width), of videos (frames, height, width)."""
    return (model.frames, *model.image_size) if makes_videos(model) else model.image_size


def row_of(judge: Judge, reading: Reading, **answer: Any) -> Row:
    """Row of a reading, with what is known about it beyond."""
    names = ("path", "status", "code", "reason", "sha256", "bytes", "width", "height", "mode", "seconds")
    facts: dict[str, Any] = {name: getattr(reading, name) for name in names}
    return Row(**{**facts, "alpha": judge.alpha, "settings_id": judge.settings_id, **answer})


def judge_batch(judge: Judge, readings: Sequence[Reading]) -> list[Row]:
    """Judge images, or videos, of one shape together: one row for each, in order.

    Parameters
    ----------
    judge : Judge
    readings : sequence of Reading
        With pixels of the model's shape, at least one.

    Raises
    ------
    MemoryError, torch.OutOfMemoryError, RuntimeError
        If the batch is too much; `judge_in_parts` divides it.
    KeyFileError
        If a key that is about to be named is damaged in its index.
    """
    import numpy as np
    import torch

    pixels = torch.from_numpy(np.stack([reading.pixels for reading in readings if reading.pixels is not None]))
    images = pixels.movedim(-1, -3).to(torch.float32).contiguous() / 127.5 - 1.0  # as images.to_tensor
    images = images.flatten(1, -3)  # of videos: frame after frame
    answers = answer(judge.model, images, judge.indexes, judge.pipeline, judge.screening, judge.alpha)
    rows = []
    for reading, found in zip(readings, answers, strict=True):
        verdict, code, reason = decide(
            found.evidence, judge.alpha, reading.note, found.status, judge.weakness, found.visible
        )
        best = found.evidence[0]
        strongest = {name: getattr(best, name) for name in _EVIDENCE}
        row = row_of(
            judge,
            reading,
            verdict=verdict,
            code=code,
            reason=reason,
            residual=None if math.isnan(found.residual) else found.residual,
            converged=found.converged,
            seconds=reading.seconds + found.seconds,
            decided_by=found.decided_by,
            log10_first=found.log10_first,
            **strongest,
        )
        rows.append(row)
    return rows


def judge_files(judge: Judge, files: Sequence[tuple[str, bytes]]) -> list[Row]:
    """Judge encoded images, (path, bytes), that lie in memory: one row for each, in order, whatever is in them."""
    readings = []
    for path, data in files:
        try:
            readings.append(read_encoded(path, data, shape_of(judge.model)))
        except MemoryError:
            readings.append(refused(path, "reader_memory"))
    rows = {id(r): row_of(judge, r) for r in readings if r.pixels is None}
    good = [r for r in readings if r.pixels is not None]
    rows |= {id(r): row for r, row in zip(good, judge_in_parts(judge, good), strict=True)}
    return [rows[id(r)] for r in readings]


def judge_in_parts(
    judge: Judge, readings: Sequence[Reading], on_halving: Callable[[int], None] = lambda size: None
) -> list[Row]:
    """Judge a batch, in halves where it is too much or fails, down to single images, of which one may fail alone.

    Parameters
    ----------
    judge, readings
        As `judge_batch`; there may be none.
    on_halving : callable
        Told the size to go on with when memory ran out.
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
    # Outside the handler, where the traceback would keep the batch's tensors alive.
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
    """How many images go through the model together: given, or found by trying; never more than memory allowed.

    Sizes of 4, 8, ... 64 are tried on two batches each, for as long as each is faster per image than the one before.
    """

    def __init__(self, size: int | None = None) -> None:
        self._trying = list(_SIZES[1:]) if size is None else []
        self.size = size or _SIZES[0]
        self._best: tuple[int, float] | None = None
        self._times: list[float] = []
        self._failures = 0

    def judge(self, judge: Judge, readings: Sequence[Reading]) -> list[Row]:
        """Judge a batch and learn from how it went.

        Raises
        ------
        ModelError
            If the model fails on one image after another, and on a harmless image too.
        """
        size = self.size
        started = time.perf_counter()
        rows = judge_in_parts(judge, readings, self._halved)
        if self.size == size and len(readings) == size:
            self._learn((time.perf_counter() - started) / size)
        for row in rows:
            self._failures = self._failures + 1 if row.code in ("model_failed", "model_out_of_memory") else 0
            if self._failures >= _MAX_FAILURES:
                self._failures = 0
                _probe(judge, row.reason)
        return rows

    def _halved(self, size: int) -> None:
        self.size, self._trying = min(self.size, size), []

    def _learn(self, seconds: float) -> None:
        if not self._trying:
            return
        self._times.append(seconds)
        if len(self._times) < 2:
            return
        found, self._times = min(self._times), []
        if self._best and found > _GAIN * self._best[1]:
            self.size, self._trying = self._best[0], []
        else:
            self._best = (self.size, found)
            self.size = self._trying.pop(0)
        if not self._trying:
            LOG.info("batches of %d", self.size)


def _probe(judge: Judge, reason: str) -> None:
    """Judge an image that no file can have spoilt: a row of hostile files is no reason to stop, a broken model is."""
    import numpy as np

    pixels = np.random.default_rng(0).integers(0, 256, (*shape_of(judge.model), 3), np.uint8)
    try:
        judge_batch(judge, [Reading("", "ok", pixels=pixels)])
    except Exception as error:
        raise ModelError(
            f"the model failed on {_MAX_FAILURES} images in a row and then on a test image ({reason}); what is "
            "finished is kept: see to the model or its device, and run the same command again"
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
