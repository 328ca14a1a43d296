"""How much a run of the page measures: a quick one, one of a given number of images, or a full one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from treering_verify.benchmark.harness import laboratory
from treering_verify.benchmark.harness.inversion_methods import Variant, swept
from treering_verify.benchmark.harness.scope import Scope

_QUICK, _FULL = 4, 24  # images


@dataclass(frozen=True)
class Extent:
    """How many images, iterations and parts a run measures.

    Attributes
    ----------
    form : {"quick", "some", "full"}
        `--quick`; `--count` without it, which takes the least iterations that the papers have figures of; neither.
    images : int
        Images of tables 1 and S2, and of figure 3.
    """

    form: Literal["quick", "some", "full"]
    images: int

    @classmethod
    def of(cls, scope: Scope) -> Extent:
        """Return what the options ask for."""
        form: Literal["quick", "some", "full"] = "quick" if scope.quick else "some" if scope.count else "full"
        return cls(form, scope.images(_QUICK, _FULL))

    @property
    def quick(self) -> bool:
        """Whether the run is the quick form."""
        return self.form == "quick"

    @property
    def full(self) -> bool:
        """Whether the run takes all iterations of the papers."""
        return self.form == "full"

    def scope(self, scope: Scope) -> Scope:
        """Return the scope of the parts: all but a full run take the quick forms of what they share with benchmarks."""
        return replace(scope, quick=not self.full, count=self.images, emulate=not self.quick)

    def upto(self, iterations: int) -> int:
        """Return the most iterations of a method that has so many in a full run."""
        return iterations if self.full else laboratory.QUICK_STEPS

    @property
    def rounds(self) -> int:
        """Rounds in which times are measured."""
        return 5 if self.full else 1

    def sweep(self, iterations: int) -> dict[str, list[Variant]]:
        """Return the published methods with other steps, by their labels; a quick run has few."""
        return swept(self.upto(iterations), few=self.quick)

    @property
    def sweep_note(self) -> str:
        """What a caption says of the sweep; nothing where it is whole."""
        return (
            " A quick run tries few other steps: of adam and gradient the fixed ones, of the others one, for 5 iterations."
            if self.quick
            else ""
        )

    @property
    def class_images(self) -> int:
        """Images of each key that are classified."""
        return {"quick": max(1, self.images // 2), "some": self.fewer, "full": 30}[self.form]

    @property
    def class_iterations(self) -> int:
        """Iterations of the published methods in the classification."""
        return min(2, self.upto(2)) if self.quick else self.upto(100)

    @property
    def fewer(self) -> int:
        """Images of each pattern under attack: a third less, since each is judged 19 times; all in a full run."""
        return 100 if self.full else max(2, 2 * self.images // 3)

    @property
    def edits(self) -> tuple[int, int | None]:
        """Most images that are edited, and DDIM steps; None for the default."""
        forms: dict[str, tuple[int, int | None]] = {"quick": (4, 5), "some": (6, 10), "full": (16, None)}
        return forms[self.form]
