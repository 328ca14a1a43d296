"""One progress for all parts of a run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from treering_verify.benchmark.paper.parts.whole import WholeRun


def test_one_progress_shows_all_parts_by_their_shares_and_ends_where_the_run_does() -> None:
    seen: list[int] = []

    @contextmanager
    def progress(what: str, total: int) -> Iterator[Any]:
        assert total == 100
        yield lambda: seen.append(1)

    whole = WholeRun({"images": 10, "first": 30, "left out": 100, "last": 10})
    with whole.shown(progress):
        with whole.begun("images"):
            pass
        assert len(seen) == round(100 * 10 / 150)
        with whole.begun("first"), whole.part("steps", 3) as advance:
            before = len(seen)
            advance()
            assert len(seen) - before == pytest.approx(20 / 3, abs=1)
            advance()
            advance()
        with whole.begun("last"):
            assert 25 < len(seen) < 40  # what is left out cannot be known before
    assert len(seen) == 100
