"""Pages of marked images, each under a key of its own, and of their unmarked twins, judged once and cached.

What was judged is in the cache of the output folder, and in every `shared-*.parquet` of that folder: put results of other
machines or days there by such names, and their rows are taken instead of being measured again.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from treering_verify.benchmark.harness.cache import cached
from treering_verify.benchmark.harness.scope import SEEDS, Scope
from treering_verify.benchmark.harness.shared_images import overlap
from treering_verify.detection.identification import IndexTest, index_test
from treering_verify.detection.judge import Judge
from treering_verify.detection.screening import default_screening
from treering_verify.detection.verification import key_test
from treering_verify.generation.generator import generate
from treering_verify.inversion.recovery import InversionOptions
from treering_verify.models import LatentModel
from treering_verify.models.weights import fingerprint
from treering_verify.results import DETECTED
from treering_verify.version import __version__
from treering_verify.watermark.keys.key import Key

if TYPE_CHECKING:
    from PIL import Image

    from treering_verify.benchmark.harness.shared_chains import Chain

MARKED, TWIN = "marked", "unmarked twin"
INDEX = "index"
"""Beside the levels of the search: `fast` for an index, which the image's key is one of."""
FIRST = SEEDS["shared"]
KEYS = 1000
"""Keys of the index."""
_BLOCK = (
    8  # images from which a chain takes what it puts beside one, so that pages do not depend on how many are measured
)


@dataclass(frozen=True, eq=False)
class Trials:
    """What is judged.

    Attributes
    ----------
    model : LatentModel
    scope : Scope
    count : int
        Images.
    levels : tuple of str
        Levels of the search, or `INDEX`: a marked page is judged by one after another, until its key is found.
    """

    model: LatentModel
    scope: Scope
    count: int
    levels: tuple[str, ...]

    def page(self, chain: Chain, i: int, truth: str) -> tuple[Image.Image, tuple[int, int, int, int] | None]:
        """Return the page of an image, and its box there."""
        length = min(_BLOCK, self.count)
        first = i // length * length
        return chain.apply([self._image(one, truth) for one in range(first, first + length)], i - first)

    def rows(self, chain: Chain, i: int, truth: str) -> list[dict[str, Any]]:
        """Return a row for each level that judged a page."""
        levels = self.levels if truth == MARKED else (self.twins,)
        before = [row for row in self._before if (row["chain"], row["image"], row["truth"]) == (chain.name, i, truth)]
        if {row["search"] for row in before} >= set(levels) or any(row["verdict"] == DETECTED for row in before):
            return before
        return self.judged(chain, i, truth, levels)

    def judged(self, chain: Chain, i: int, truth: str, levels: tuple[str, ...]) -> list[dict[str, Any]]:
        """Judge a page by one level after another until its key is found: a row for each level."""
        facts = (*self._facts, min(_BLOCK, self.count), chain.name, i, truth, levels)
        return self.scope.cached("shared", facts, partial(self._judged, chain, i, truth, levels))

    def rows_of_others(self, chains: Sequence[Chain]) -> list[dict[str, Any]]:
        """Return the rows of all other chains, by the same levels, that results in the folder have."""
        names = {chain.name for chain in chains}
        return [row for row in self._before if row["chain"] not in names and row["search"] in self.levels]

    @property
    def twins(self) -> str:
        """The level that judges unmarked twins."""
        return self.levels[min(1, len(self.levels) - 1)]

    @cached_property
    def _facts(self) -> tuple[str, str, int]:
        return fingerprint(self.model, without=()), __version__, FIRST

    @cached_property
    def _before(self) -> list[dict[str, Any]]:
        folder = self.scope.folder
        rows = [] if folder is None else [row for row in _stored(folder.parents[1]) if _of(row, self._facts)]
        once = {(row["chain"], row["image"], row["truth"], row["search"]): row for row in rows}  # two files may agree
        return list(once.values())

    def _image(self, i: int, truth: str) -> Image.Image:
        from PIL import Image

        def measure() -> dict[str, Any]:
            (made,) = generate(self.model, _key(self.model, i) if truth == MARKED else None, seeds=[FIRST + i])
            return {"image": np.asarray(made.image)}

        return Image.fromarray(cached(self.scope.folder, "shared-image", (*self._facts, i, truth), measure)["image"])

    def _judged(self, chain: Chain, i: int, truth: str, levels: Sequence[str]) -> Iterator[dict[str, Any]]:
        model_digest, version, _ = self._facts
        base = {"group": chain.group, "chain": chain.name, "image": i, "truth": truth}
        facts = {"model": model_digest, "version": version}
        return (base | row | facts for row in self._verdicts(chain, i, truth, levels))

    def _judge(self, level: str, i: int) -> Judge:
        """Return the judge of an image's key by a level of the search, in two passes as audits have them."""
        if level == INDEX:
            return Judge.of(self.model, self._index, search="fast")
        test, inversion = key_test([_key(self.model, i)], self.model), InversionOptions()
        screening = default_screening(self.model, inversion, 1)
        return Judge.of(self.model, test, inversion=inversion, screening=screening, search=level)

    @cached_property
    def _index(self) -> IndexTest:
        return index_test([_key(self.model, i) for i in range(KEYS)], self.model)

    def _verdicts(self, chain: Chain, i: int, truth: str, levels: Sequence[str]) -> Iterator[dict[str, Any]]:
        page, box = self.page(chain, i, truth)
        for level in levels:
            judge = self._judge(level, i)
            started = time.process_time()
            (verdict,) = judge.verdicts([page])
            best = verdict.best
            assert best is not None
            found = best.placement["box"] if best.placement else None
            yield {
                "search": level,
                "verdict": verdict.verdict if best.key == _name(i) or verdict.verdict != DETECTED else "another key",
                "as_it_is": verdict.verdict == DETECTED and verdict.search is None,
                "log10_pvalue": best.log10_adjusted,
                "hypothesis": best.hypothesis,
                "overlap": overlap(tuple(found), box) if found and box else None,
                "seconds": time.process_time() - started,
            }
            if verdict.verdict == DETECTED:
                return


def _name(i: int) -> str:
    return f"image-{i}"


def _key(model: LatentModel, i: int) -> Key:
    return Key.generate(model.latent_shape, seed=FIRST + i, name=_name(i))


def _stored(folder: Path) -> list[dict[str, Any]]:
    """Return the rows of all Parquet files of the benchmark in a folder."""
    from pathlib import Path

    from pyarrow import parquet

    return [
        row for path in sorted(Path(folder).glob("shared*.parquet")) for row in parquet.read_table(path).to_pylist()
    ]


def _of(row: dict[str, Any], facts: tuple[str, str, int]) -> bool:
    return (row.get("model"), row.get("version")) == facts[:2]
