"""Progress without output, that checks the announced number of steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def silent(what: str, total: int) -> Iterator[Callable[[], None]]:
    """Count the steps of a benchmark, and check that they are as many as it announced."""
    done = 0

    def advance() -> None:
        nonlocal done
        done += 1

    yield advance
    assert done == total, f"{what}: announced {total}, advanced {done}"
