"""The uniformity benchmark draws distinct unmarked images, and its table recognises a uniform p-value."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.progress import silent

from treering_verify.benchmark import uniformity
from treering_verify.benchmark.harness.scope import Scope
from treering_verify.benchmark.harness.unmarked_images import ANOTHER, OWN, PHOTOGRAPH, UnmarkedImage, draw_unmarked
from treering_verify.benchmark.uniformity import EXACT, PUBLISHED, WHITE, _pvalues, _uniformity
from treering_verify.detection.calibration.calibration_file import digest
from treering_verify.models import LatentModel
from treering_verify.watermark.keys.key_family import Family


@pytest.fixture(scope="module")
def some(tiny_model: LatentModel) -> list[UnmarkedImage]:
    return list(draw_unmarked(tiny_model, 20, seed=7))


def test_unmarked_images_are_distinct_of_every_kind_and_half_of_them_attacked(some: list[UnmarkedImage]) -> None:
    assert len({digest(s.image) for s in some}) == 20
    kinds = Counter(s.kind for s in some)
    assert len(kinds) == 6 and kinds[PHOTOGRAPH] == 10 and kinds[OWN] == kinds[ANOTHER] == 1
    assert all(s.image.size == (128, 128) for s in some)
    assert [bool(s.attack) for s in some] == [False, True] * 10


def test_unmarked_images_are_the_same_again_from_their_seed_only(
    some: list[UnmarkedImage], tiny_model: LatentModel
) -> None:
    again, others = (draw_unmarked(tiny_model, 6, seed=seed) for seed in (7, 8))
    assert [digest(s.image) for s in again] == [digest(s.image) for s in some[:6]]
    assert not {digest(s.image) for s in others} & {digest(s.image) for s in some}


def test_exact_p_is_uniform_on_coloured_noise_and_the_published_one_is_not() -> None:
    family = Family.choose((4, 32, 32))
    coloured = torch.randn(150, 4, 32, 32, generator=torch.Generator().manual_seed(0))
    coloured *= torch.tensor([0.1, 3.0, 0.3, 1.0]).view(4, 1, 1)
    rows = [
        {"pattern": "random", EXACT: exact, PUBLISHED: published, WHITE: white}
        for i, noise_hat in enumerate(coloured)
        for exact, published, white in _pvalues(noise_hat[None], noise_hat[None], family, [9, i])
    ]
    table = _uniformity(rows, [("random", test) for test in (EXACT, PUBLISHED, WHITE)])
    assert [row[2] for row in table.rows] == [1500] * 3
    assert [row[-1] for row in table.rows] == ["yes", "NO", "NO"]


def test_an_interrupted_benchmark_resumes_with_the_cached_batches(
    tiny_model: LatentModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uniformity, "_BATCH", 4)
    scope = Scope(silent, quick=True, count=8, folder=tmp_path)
    whole = uniformity._noise(tiny_model, scope, 8, 5, lambda: None)
    sorted(tmp_path.glob("*.npz"), key=lambda p: p.stat().st_mtime)[-1].unlink()  # the second batch
    resumed = uniformity._noise(tiny_model, scope, 8, 5, lambda: None)
    for before, after in zip(whole[:2], resumed[:2], strict=True):
        np.testing.assert_array_equal(before.numpy(), after.numpy())
    assert whole[2:] == resumed[2:]
