"""Images that reach the bound of a fitted key are counted, by pattern."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest

from treering_verify.benchmark import agreement
from treering_verify.benchmark.harness.scope import Scope
from treering_verify.models import LatentModel
from treering_verify.watermark.patterns import PATTERNS


def test_images_at_the_bound_are_counted(tiny_model: LatentModel, monkeypatch: pytest.MonkeyPatch) -> None:
    def given(model: object, pattern: str, seeds: range) -> dict[str, Any]:
        return {"statistic": np.array([0.9, 0.99999] * (len(seeds) // 2))}

    monkeypatch.setattr(agreement, "_statistics", given)
    found = agreement.measure(tiny_model, Scope(lambda what, count: nullcontext(lambda: None), count=4))
    (table,) = found.tables
    place = {name: i for i, name in enumerate(table.header)}
    for row in table.rows:
        assert row[place["images"]] == 4
        known = PATTERNS[row[0]].agreement is not None
        assert (row[place["bound in use"]] is not None) == known
        assert str(row[place["reach the bound in use"]]) == ("2/4 = 50.0 % [6.8, 93.2]" if known else "None")
