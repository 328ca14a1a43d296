from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from helpers.audits import KEY, noisy_image

from treering_verify.audit import judge as judging
from treering_verify.audit.inputs.reading import Reading, read_encoded
from treering_verify.audit.judge import AuditJudge, Batching, judge_batch, judge_files, judge_in_parts
from treering_verify.benchmark.speed.null_model import NULL_INVERSION, NullModel
from treering_verify.detection.identification import identify
from treering_verify.detection.verification import verify
from treering_verify.errors import ModelError, UsageError
from treering_verify.watermark.keys.key import Key


def encoded(seed: int) -> bytes:
    buffer = io.BytesIO()
    noisy_image(seed).save(buffer, format="PNG")
    return buffer.getvalue()


def readings(count: int) -> list[Reading]:
    return [read_encoded(f"{seed}", encoded(seed), (128, 128)) for seed in range(count)]


def judge_of(model: NullModel, *more: Key) -> AuditJudge:
    return AuditJudge.of([KEY, *more], model, 1e-6, NULL_INVERSION)


class Exhausted(NullModel):
    """A model with room for a few images only, and a grudge against some."""

    def __init__(self, room: int, broken: bool = False) -> None:
        self.room, self.broken, self.sizes = room, broken, list[int]()

    def encode(self, image: torch.Tensor) -> torch.Tensor:
        self.sizes.append(len(image))
        if len(image) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        if self.broken or (image == 1).all(dim=(1, 2, 3)).any():
            raise ModelError("no usable numbers")
        return super().encode(image)


def test_rows_say_what_verify_and_identify_say() -> None:
    """But for the key of rows whose corrected p-value is 1: they name none."""
    model, other = NullModel(), Key.generate((4, 32, 32), name="other", seed=6)
    rows = judge_batch(judge_of(model, other), readings(8))
    assert {row.key is None for row in rows} == {True, False}
    for row in rows:
        verdict = verify(noisy_image(int(row.path)), [KEY, other], model=model, inversion=NULL_INVERSION, search=None)
        best = verdict.best
        assert best is not None and row.verdict == verdict.verdict
        named = (None, None) if best.log10_adjusted == 0 else (best.key, best.fingerprint)
        assert (row.key, row.fingerprint) == named
        assert row.log10_adjusted == pytest.approx(best.log10_adjusted, rel=1e-5)
        assert row.log10_pvalue == pytest.approx(best.log10_pvalue, rel=1e-5)
        assert row.statistic == pytest.approx(best.statistic, rel=1e-5)
        assert row.residual is None and math.isnan(verdict.residual)  # the null pipeline computes none
        assert row.degrees_of_freedom == 1024 and row.converged == verdict.converged
        identified = identify(noisy_image(int(row.path)), [KEY, other], model=model, inversion=NULL_INVERSION)
        assert identified.best is not None and row.key in (None, identified.best.key)


def test_the_same_function_judges_bytes_in_memory() -> None:
    files = [("a", encoded(1)), ("bad", encoded(1)[:200]), ("b", encoded(2))]
    rows = judge_files(judge_of(NullModel()), files)
    assert [(row.path, row.status, row.code) for row in rows] == [
        ("a", "ok", ""),
        ("bad", "error", "cut_short"),
        ("b", "ok", ""),
    ]
    assert judge_files(judge_of(NullModel()), []) == []


def test_out_of_memory_halves_the_batch_down_to_one() -> None:
    model, told = Exhausted(room=1), list[int]()
    rows = judge_in_parts(judge_of(model), readings(5), told.append)
    assert [row.path for row in rows] == list("01234") and all(row.status == "ok" for row in rows)
    assert model.sizes == [5, 2, 1, 1, 3, 1, 2, 1, 1] and min(told) == 1


def test_one_image_that_is_too_much_alone_is_an_error_of_its_own() -> None:
    rows = judge_in_parts(judge_of(Exhausted(room=0)), readings(2))
    assert [(row.status, row.code) for row in rows] == [("error", "model_out_of_memory")] * 2


def white() -> Reading:
    buffer = io.BytesIO()
    noisy_image(0).point(lambda v: 255).save(buffer, format="PNG")
    return read_encoded("white", buffer.getvalue(), (128, 128))


def test_an_image_that_the_model_fails_on_costs_itself_only() -> None:
    batch = readings(3)
    rows = judge_in_parts(judge_of(Exhausted(room=9)), [*batch[:1], white(), *batch[1:]])
    assert [(row.path, row.status, row.code) for row in rows] == [
        ("0", "ok", ""),
        ("white", "error", "model_failed"),
        ("1", "ok", ""),
        ("2", "ok", ""),
    ]


def test_a_folder_of_hostile_images_does_not_stop_an_audit_but_a_broken_model_does() -> None:
    batching = Batching(4)
    assert len(batching.judge(judge_of(Exhausted(room=9)), [white()] * 17)) == 17
    with pytest.raises(ModelError, match="16 images in a row and then on a test image"):
        batching.judge(judge_of(Exhausted(room=9, broken=True)), readings(4) * 5)


def test_after_running_out_of_memory_batches_stay_small() -> None:
    batching, judge = Batching(8), judge_of(Exhausted(room=2))
    batching.judge(judge, readings(8))
    assert batching.size == 2
    batching.judge(judge, readings(2))
    assert batching.size == 2


@pytest.mark.parametrize(
    ("seconds_per_image", "chosen"), [({4: 0.4, 8: 0.3, 16: 0.2, 32: 0.199}, 16), ({4: 0.1, 8: 0.1}, 4)]
)
def test_the_batch_grows_while_that_makes_it_faster(
    seconds_per_image: dict[int, float], chosen: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = 0.0

    def timed(judge: AuditJudge, batch: Sequence[Any], on_halving: object) -> list[Any]:
        nonlocal clock
        clock += seconds_per_image.get(len(batch), 0.1) * len(batch)
        return []

    monkeypatch.setattr(judging, "judge_in_parts", timed)
    monkeypatch.setattr(judging.time, "perf_counter", lambda: clock)
    batching, judge = Batching(), judge_of(NullModel())
    for _ in range(12):
        batching.judge(judge, [None] * batching.size)  # type: ignore[list-item]
    assert batching.size == chosen


@pytest.mark.parametrize(("seconds_per_image", "size"), [(40.0, 1), (2.0, 7), (0.01, 64)])
def test_a_batch_is_no_larger_than_a_quarter_of_a_minute_judges(
    seconds_per_image: float, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = 0.0
    sizes = []

    def timed(judge: AuditJudge, batch: Sequence[Any], on_halving: object) -> list[Any]:
        nonlocal clock
        sizes.append(len(batch))
        clock += seconds_per_image * len(batch)
        return []

    monkeypatch.setattr(judging, "judge_in_parts", timed)
    monkeypatch.setattr(judging.time, "perf_counter", lambda: clock)
    batching, judge = Batching(64), judge_of(NullModel())
    for _ in range(3):
        batching.judge(judge, [None] * batching.size)  # type: ignore[list-item]
    assert sizes == [1, size, size]  # the first row needs one image, whatever the batch size


def test_bad_requests_say_what_to_do() -> None:
    with pytest.raises(UsageError, match="at least one"):
        AuditJudge.of([], NullModel(), 1e-6, NULL_INVERSION)
    with pytest.raises(UsageError, match="--model"):
        AuditJudge.of(Key.generate((4, 64, 64), seed=1), NullModel(), 1e-6, NULL_INVERSION)
    with pytest.raises(UsageError, match="between 0 and 1"):
        AuditJudge.of(KEY, NullModel(), 0.0, NULL_INVERSION)
