"""Progress that counts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def silent(what: str, total: int) -> Iterator[Callable[[], None]]:
    """Progress that counts, and holds a benchmark to what it announced."""
    done = 0

    def advance() -> None:
        nonlocal done
        done += 1

    yield advance
    assert done == total, f"{what}: announced {total}, advanced {done}"
