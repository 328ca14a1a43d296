"""One progress for all parts of a run, so that the time left is that of the whole run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from treering_verify.benchmark.harness.interruption import Progress


class WholeRun:
    """The progress of a run of several parts, each of which takes its share of the time.

    Parameters
    ----------
    shares : dict of str to float
        About how much of the time each part takes, in any unit. A part that does not begin gives its share to those that do.
    """

    def __init__(self, shares: Mapping[str, float]) -> None:
        self.left = dict(shares)
        self.done = 0.0
        self.share = 0.0
        self._counted = 0
        self._advance: Callable[[], None] = lambda: None

    @contextmanager
    def shown(self, progress: Progress) -> Iterator[None]:
        """Show the parts that begin inside the block as one progress, in per cent."""
        with progress("Per cent of the page", _WHOLE) as self._advance:
            yield
            self._reach(1.0)

    @contextmanager
    def begun(self, name: str) -> Iterator[None]:
        """Begin a part: parts before it that have not begun are left out."""
        names = list(self.left)
        before = names[: names.index(name)]
        for skipped in before:
            del self.left[skipped]
        self.share = (1 - self.done) * self.left[name] / sum(self.left.values())
        del self.left[name]
        yield
        self.done += self.share
        self._reach(self.done)

    @contextmanager
    def part(self, what: str, total: int) -> Iterator[Callable[[], None]]:
        """Count the steps of the part that has begun: the progress of a `Scope`."""
        steps = 0

        def counted() -> None:
            nonlocal steps
            steps += 1
            self._reach(self.done + self.share * min(1.0, steps / total))

        yield counted

    def _reach(self, share: float) -> None:
        while self._counted < round(_WHOLE * share):
            self._counted += 1
            self._advance()


_WHOLE = 100
