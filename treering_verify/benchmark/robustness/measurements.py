"""What `robustness` measures, and how: batches of images under every condition, each kept, so that a run can go on."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from treering_verify.benchmark.harness.cache import kept
from treering_verify.benchmark.harness.conditions import Condition
from treering_verify.benchmark.harness.image_quality import Cost, cost, keys_among, rendered
from treering_verify.benchmark.harness.keyed_images import generate_each
from treering_verify.benchmark.harness.scope import CLEAN, SEEDS, Scope
from treering_verify.benchmark.harness.trials import KEYS, Rivals, evidence_of_each, nearest_rivals, recover
from treering_verify.benchmark.harness.unmarked_images import Crowd
from treering_verify.detection.calibration.scores import PUBLISHED
from treering_verify.inversion.recovery import InversionOptions
from treering_verify.models import LatentModel
from treering_verify.models.weights import fingerprint
from treering_verify.version import __version__
from treering_verify.watermark.keys.key import Family, Key
from treering_verify.watermark.patterns import PATTERNS

if TYPE_CHECKING:
    import torch
    from PIL import Image

    Arrays = dict[str, NDArray[Any]]
    Rendered = tuple[torch.Tensor, list[object]]

DEFAULT = "default"
UNMARKED = "unmarked"
_BATCH = 16
_FIRST = SEEDS["robustness"]
# Where in the benchmark's range of seeds each kind of image and of key lies; marked images and their keys come first.
_JUDGED, _CALIBRATION, _COST, _OTHERS, _CALIBRATION_KEYS, _FRESH_KEYS = (
    1 << 20,
    2 << 20,
    3 << 20,
    4 << 20,
    1 << 27,
    1 << 28,
)


@dataclass(frozen=True)
class Task:
    """One condition, for whom, and on how many images.

    Attributes
    ----------
    condition : Condition
    marked : dict of str to int
        Images of each pattern.
    unmarked : int
        Images without a key, which all these patterns judge.
    published : bool
        Whether published statistics are read too.
    searched : bool
        Whether the default search is tried too on marked images, where the condition moves pixels; and
    searched_unmarked : tuple of str
        on unmarked ones, under keys of these patterns.
    method : str
        Name of the inversion, and
    inversion : Pipeline
        what it is.
    """

    condition: Condition
    marked: Mapping[str, int]
    unmarked: int
    published: bool = False
    searched: bool = True
    searched_unmarked: tuple[str, ...] = ()
    method: str = DEFAULT
    inversion: InversionOptions = field(default_factory=InversionOptions)

    @property
    def patterns(self) -> tuple[str, ...]:
        """Patterns that are measured."""
        return tuple(self.marked)

    def searches(self, pattern: str, *, marked: bool) -> bool:
        """Whether a pattern's images are searched."""
        wanted = self.searched if marked else pattern in self.searched_unmarked
        return wanted and self.condition.geometric and PATTERNS[pattern].searched


@dataclass(frozen=True, eq=False)
class Measurements:
    """All that was measured.

    Attributes
    ----------
    marked : dict
        (pattern, method, attack) -> arrays of `evidence_of_each` and `nearest_rivals`, one value an image.
    unmarked : dict
        (pattern, attack) -> arrays of `evidence_of_each`, each image under a fresh key.
    null : dict
        Pattern -> published statistics of clean unmarked images that are in none of the others.
    costs : dict
        Pattern, or "unmarked" -> what it costs the image.
    kinds : list
        What the unmarked images are.
    """

    marked: dict[tuple[str, str, str], Arrays]
    unmarked: dict[tuple[str, str], Arrays]
    null: dict[str, Arrays]
    costs: dict[str, Cost]
    kinds: list[str]


def measure(model: LatentModel, scope: Scope, tasks: Sequence[Task], calibration: int, pictured: int) -> Measurements:
    """Measure all tasks, batch by batch.

    Parameters
    ----------
    model, scope
    tasks : sequence of Task
        Of distinct conditions, for each method.
    calibration : int
        Clean unmarked images that fix the thresholds of published statistics.
    pictured : int
        Images of each pattern whose images are compared.
    """
    scope.help_with("Batches", lambda: _Bench(model, scope, tuple(tasks)).steps(calibration, pictured))
    bench = _Bench(model, scope, tuple(tasks))
    steps = deque(bench.steps(calibration, pictured))
    with scope.progress("Batches", len(steps)) as advance:
        while steps:
            steps.popleft()()  # and lets go of the images that only it needed
            advance()
    return Measurements(
        {name: _joined(parts) for name, parts in bench.marked.items()},
        {name: _joined(parts) for name, parts in bench.unmarked.items()},
        {name: _joined(parts) for name, parts in bench.null.items()},
        bench.costs,
        [str(kind) for part in bench.kinds for kind in part],
    )


class _Bench:
    """Steps of a measurement, and where their answers are gathered."""

    def __init__(self, model: LatentModel, scope: Scope, tasks: tuple[Task, ...]) -> None:
        self.model, self.scope, self.tasks = model, scope, tasks
        self.patterns = tuple(name for name in PATTERNS if any(name in task.patterns for task in tasks))
        self.facts = (fingerprint(model), __version__, _FIRST)
        self.marked: dict[tuple[str, str, str], list[Arrays]] = {}
        self.unmarked: dict[tuple[str, str], list[Arrays]] = {}
        self.null: dict[str, list[Arrays]] = {}
        self.costs: dict[str, Cost] = {}
        self.kinds: list[NDArray[Any]] = []

    def steps(self, calibration: int, pictured: int) -> Iterator[Callable[[], None]]:
        """All of them, neighbours sharing images."""
        yield from self.on_marked()
        yield from self.on_unmarked()
        yield from self.on_null(calibration)
        yield from self.on_images(pictured)

    # --- marked images ------------------------------------------------------------------------------------------------

    def on_marked(self) -> Iterator[Callable[[], None]]:
        for pattern in self.patterns:
            tasks = [task for task in self.tasks if pattern in task.patterns]
            rivals = cache(partial(Rivals.draw, Family.choose(self.model.latent_shape, pattern=pattern), _FIRST))
            for batch in _batches(max(task.marked[pattern] for task in tasks)):
                marked = cache(partial(self._mark, pattern, batch))
                for task in tasks:
                    if batch.start < task.marked[pattern]:
                        yield partial(self._judge_marked, task, pattern, batch, marked, rivals)

    def _mark(self, pattern: str, batch: range) -> tuple[list[Key], list[Image.Image]]:
        seeds = [_FIRST + i for i in batch]
        keys = [Key.generate(self.model.latent_shape, pattern=pattern, seed=seed) for seed in seeds]
        return keys, generate_each(self.model, keys, seeds, lambda: None)

    def _judge_marked(
        self,
        task: Task,
        pattern: str,
        batch: range,
        marked: Callable[[], tuple[list[Key], list[Image.Image]]],
        rivals: Callable[[], Rivals | None],
    ) -> None:
        chosen = range(batch.start, min(batch.stop, task.marked[pattern]))
        searched = task.searches(pattern, marked=True)

        def work() -> Arrays:
            keys, pictures = marked()
            processed = task.condition.apply(pictures[: len(chosen)], chosen, self.model)
            found = recover(self.model, processed, task.inversion, published=task.published)
            answers = evidence_of_each(self.model, found, keys[: len(chosen)], searched=searched)
            return {**answers, **nearest_rivals(found, rivals())}

        facts = (*self.facts, task.condition.attack, chosen, task.published, searched, task.inversion, KEYS)
        arrays = kept(self.scope.folder, f"robustness-{pattern}", (*facts, pattern), work)
        self.marked.setdefault((pattern, task.method, task.condition.attack), []).append(arrays)

    # --- unmarked images ----------------------------------------------------------------------------------------------

    def on_unmarked(self) -> Iterator[Callable[[], None]]:
        count = max((task.unmarked for task in self.tasks), default=0)
        pictures = Crowd(self.model, count, _FIRST + _JUDGED)
        for batch in _batches(count):
            yield partial(self._describe, batch, pictures)
            for number, task in enumerate(self.tasks):
                if batch.start < task.unmarked:
                    yield partial(self._judge_unmarked, number, task, batch, pictures)

    def _describe(self, batch: range, pictures: Crowd) -> None:
        def work() -> Arrays:
            return {"kind": np.array([one.kind for one in pictures.some(batch)])}

        self.kinds.append(kept(self.scope.folder, "robustness-kinds", (*self.facts, batch), work)["kind"])

    def _judge_unmarked(self, number: int, task: Task, batch: range, pictures: Crowd) -> None:
        chosen = range(batch.start, min(batch.stop, task.unmarked))
        first_key = _FIRST + _FRESH_KEYS + (number << 20)
        searched = [pattern for pattern in task.patterns if task.searches(pattern, marked=False)]

        def work() -> Arrays:
            plain = [one.image for one in pictures.some(chosen)]
            processed = task.condition.apply(plain, chosen, self.model)
            found = recover(self.model, processed, task.inversion, published=task.published)
            answers: Arrays = {}
            for pattern in task.patterns:
                keys = self._fresh_keys(pattern, first_key, chosen)
                arrays = evidence_of_each(self.model, found, keys, searched=pattern in searched)
                answers.update({f"{pattern}|{name}": values for name, values in arrays.items()})
            return answers

        facts = (*self.facts, task.condition.attack, chosen, task.published, searched, task.inversion)
        arrays = kept(self.scope.folder, "robustness-unmarked", (*facts, task.patterns, first_key), work)
        for pattern in task.patterns:
            part = {name.partition("|")[2]: v for name, v in arrays.items() if name.partition("|")[0] == pattern}
            self.unmarked.setdefault((pattern, task.condition.attack), []).append(part)

    def _fresh_keys(self, pattern: str, first: int, images: range) -> list[Key]:
        return [Key.generate(self.model.latent_shape, pattern=pattern, seed=first + i) for i in images]

    # --- thresholds of published statistics ---------------------------------------------------------------------------

    def on_null(self, count: int) -> Iterator[Callable[[], None]]:
        patterns = tuple(
            name
            for name in self.patterns
            if PATTERNS[name].coefficients is not None
            and any(task.published and name in task.patterns for task in self.tasks)
        )
        pictures = Crowd(self.model, count, _FIRST + _CALIBRATION)
        for batch in _batches(count) if patterns else ():
            yield partial(self._calibrate, patterns, batch, pictures)

    def _calibrate(self, patterns: tuple[str, ...], batch: range, pictures: Crowd) -> None:
        def work() -> Arrays:
            plain = [one.image for one in pictures.some(batch)]
            found = recover(self.model, plain, InversionOptions(), published=True)
            answers: Arrays = {}
            for pattern in patterns:
                keys = self._fresh_keys(pattern, _FIRST + _CALIBRATION_KEYS, batch)
                arrays = evidence_of_each(self.model, found, keys, searched=False)
                answers.update({f"{pattern}|{name}": arrays[name] for name in PUBLISHED})
            return answers

        arrays = kept(self.scope.folder, "robustness-null", (*self.facts, CLEAN, patterns, batch), work)
        for pattern in patterns:
            self.null.setdefault(pattern, []).append({name: arrays[f"{pattern}|{name}"] for name in PUBLISHED})

    # --- images -----------------------------------------------------------------------------------------------------

    def on_images(self, count: int) -> Iterator[Callable[[], None]]:
        seeds, others = (range(_FIRST + place, _FIRST + place + count) for place in (_COST, _OTHERS))
        unmarked = cache(lambda: (rendered(self.model, (), seeds), rendered(self.model, (), others)))
        for pattern in (UNMARKED, *self.patterns):
            yield partial(self._compare, pattern, seeds, unmarked)

    def _compare(self, pattern: str, seeds: range, unmarked: Callable[[], tuple[Rendered, Rendered]]) -> None:
        many = keys_among(len(seeds), len(self.model.classes))

        def work() -> Arrays:
            (twins, labels), (others, _) = unmarked()
            images = twins
            if pattern != UNMARKED:
                shape = self.model.latent_shape
                keys = [Key.generate(shape, pattern=pattern, seed=seeds[0] + k) for k in range(many)]
                images, labels = rendered(self.model, keys, seeds)
            found = cost(images, twins, others, labels)
            return {"cost": np.array([found.paired, found.diversity, found.distance, found.symmetry])}

        arrays = kept(self.scope.folder, "robustness-images", (*self.facts, pattern, seeds, many), work)
        self.costs[pattern] = Cost(*map(float, arrays["cost"]))


def _batches(count: int) -> Iterator[range]:
    for start in range(0, count, _BATCH):
        yield range(start, min(start + _BATCH, count))


def _joined(parts: list[Arrays]) -> Arrays:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
