"""The coordinator of a cluster's workers: cached answers, what reports need, who judges what, and which inputs end workers.

There is one for all workers, on the machine that started the audit. It knows nothing of Ray.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from treering_verify.audit.inputs.reading import Reading
from treering_verify.audit.output.cache import Cache, row_of_twin
from treering_verify.audit.output.feature_sample import Bounds, FeatureSample, Sketch
from treering_verify.audit.output.rows import Row
from treering_verify.detection.exhibits import FOLDER, Gap, KeptFolder, Rank
from treering_verify.errors import UsageError

Place = tuple[int, int]  # of an input: its chunk, and its place there
Twin = Literal["twin"]
TWIN: Twin = "twin"


class Attempts(NamedTuple):
    """How often an input was begun and not ended, and the SHA-256 of its content then, if known."""

    strikes: int
    sha256: str | None


class Coordinator:
    """What the workers of one run share: attempts at inputs, which worker judges which image, and answers that are known.

    A worker reports which inputs it begins and which it ended. An input that was begun and not ended gets a strike when it
    is handed out again: its worker died, or its machine was lost. A continued audit begins without strikes.

    Parameters
    ----------
    state : path
        Folder of the answers (`cache`), and of what reports need of detected images (`exhibits`).
    settings_id : str
    made_by : str
        Digest of how sketches are made (`sketches.Sketcher`).
    """

    def __init__(self, state: str | Path, settings_id: str, made_by: str = "") -> None:
        self._cache = Cache(Path(state), settings_id)
        self._sample = FeatureSample(Path(state), made_by)
        self._kept = KeptFolder(Path(state) / FOLDER, settings_id)
        self._begun: dict[Place, int] = {}
        self._claims: dict[str, Place] = {}  # by SHA-256: the input for which it is being judged
        self._failed: dict[str, Row] = {}  # by SHA-256: the cache has good answers only
        self._halted = False

    def enter(self, places: Sequence[Place]) -> list[Attempts]:
        """Return the earlier attempts at inputs that a worker received; UsageError after `halt`."""
        self._go_on()
        content = {place: digest for digest, place in self._claims.items()}
        return [Attempts(self._begun.get(place, 0), content.get(place)) for place in places]

    def begin(self, places: Iterable[Place]) -> None:
        """Record that a worker begins these inputs."""
        for place in places:
            self._begun[place] = self._begun.get(place, 0) + 1

    def end(self, places: Iterable[Place]) -> None:
        """Record that a worker ended these inputs without harm."""
        for place in places:
            self._begun.pop(place, None)

    def claim(self, images: Sequence[tuple[Place, Reading]]) -> list[Row | Twin | None]:
        """Return for each image its row, if it is known, or which worker is to judge it.

        Parameters
        ----------
        images : sequence of (place, reading)
            Their pixels are not needed.

        Returns
        -------
        list of Row, TWIN or None
            The row, if the content was judged before; TWIN if it is being judged for another input; None if the caller is
            to judge it.

        Raises
        ------
        UsageError
            After `halt`.
        """
        self._go_on()
        found: list[Row | Twin | None] = []
        for (place, reading), row in zip(images, self.answers([r for _, r in images]), strict=True):
            assert reading.sha256 is not None
            if row is None and self._claims.setdefault(reading.sha256, place) != place:
                found.append(TWIN)
            else:
                found.append(row)
        return found

    def add(self, rows: Sequence[Row]) -> None:
        """Store answers; UsageError if the disk is full."""
        self._cache.add(row for row in rows if row.status == "ok")
        for row in rows:
            if row.sha256 is not None:
                self._claims.pop(row.sha256, None)
                if row.status != "ok":
                    self._failed[row.sha256] = row

    def sample(self, sketches: Sequence[Sketch]) -> Bounds:
        """Store sketches of judged images, and return which are wanted from now on; UsageError if the disk is full."""
        return self._sample.add(sketches)

    def keep(self, rank: Rank, content: bytes) -> Gap:
        """Store what reports need of a detected image, and return what is not wanted; see `exhibits.KeptFolder.put`."""
        return self._kept.put(rank, content)

    def answers(self, readings: Sequence[Reading]) -> list[Row | None]:
        """Return the rows of contents that were judged before, None for others."""
        return [self._answer(reading) for reading in readings]

    def _answer(self, reading: Reading) -> Row | None:
        failed = self._failed.get(reading.sha256 or "")
        return row_of_twin(reading, failed) if failed else self._cache.find(reading)

    def halt(self) -> None:
        """Let the workers end after their current batches."""
        self._halted = True

    def _go_on(self) -> None:
        if self._halted:
            raise UsageError("the audit was stopped: run the same command again to resume it")

    def release(self) -> None:
        """Drop all claims, when no worker is busy."""
        self._claims.clear()

    def close(self) -> None:
        """Close the files of answers and sketches."""
        self._cache.__exit__()
        self._sample.__exit__()
