"""Measurements of `robustness`: batches of images under every condition, each cached, so that a run can resume."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from treering_verify.benchmark.harness.cache import cached
from treering_verify.benchmark.harness.conditions import Condition
from treering_verify.benchmark.harness.image_quality import Cost, cost, keys_among, rendered
from treering_verify.benchmark.harness.keyed_images import generate_each
from treering_verify.benchmark.harness.scope import CLEAN, SEEDS, Scope
from treering_verify.benchmark.harness.trials import KEYS, Rivals, evidence_of_each, nearest_rivals, recover
from treering_verify.benchmark.harness.unmarked_images import UnmarkedImages
from treering_verify.detection.calibration.registry import DETECTORS
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
# Offsets in the benchmark's range of seeds, for each kind of image and key; marked images and their keys come first.
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
    """One condition, with the patterns, the number of images and the inversion.

    Attributes
    ----------
    condition : Condition
    marked : dict of str to int
        Number of marked images of each pattern.
    unmarked : int
        Number of unmarked images, judged under keys of all these patterns.
    published : bool
        Whether published statistics are computed too.
    searched : bool
        Whether marked images are also judged with the default search, where the pattern can be searched.
    searched_unmarked : tuple of str
        Patterns under whose keys unmarked images are searched too.
    method : str
        Name of the inversion.
    inversion : InversionOptions
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
        """The patterns that are measured."""
        return tuple(self.marked)

    def searches(self, pattern: str, *, marked: bool) -> bool:
        """Return whether a pattern's images are searched."""
        wanted = self.searched if marked else pattern in self.searched_unmarked
        return wanted and PATTERNS[pattern].searched


@dataclass(frozen=True, eq=False)
class Measurements:
    """All measurements.

    Attributes
    ----------
    marked : dict
        (pattern, method, attack) -> arrays of `evidence_of_each` and `nearest_rivals`, one value per image.
    unmarked : dict
        (pattern, attack) -> arrays of `evidence_of_each`, each image under a new key.
    calibration : dict
        Pattern -> published statistics of other clean unmarked images, from which thresholds are computed.
    costs : dict
        Pattern, or "unmarked" -> its cost to the image.
    kinds : list
        Kinds of the unmarked images.
    """

    marked: dict[tuple[str, str, str], Arrays]
    unmarked: dict[tuple[str, str], Arrays]
    calibration: dict[str, Arrays]
    costs: dict[str, Cost]
    kinds: list[str]


def measure_tasks(
    model: LatentModel, scope: Scope, tasks: Sequence[Task], calibration: int = 0, compared: int = 0
) -> Measurements:
    """Measure all tasks, batch by batch, and return the measurements.

    Parameters
    ----------
    model, scope
    tasks : sequence of Task
        Their conditions must differ, for each method.
    calibration : int
        Number of clean unmarked images for the thresholds of published statistics.
    compared : int
        Number of images of each pattern that are compared with unmarked ones; 0: their cost is not measured.
    """
    scope.help_with("Batches", lambda: _Bench(model, scope, tuple(tasks)).steps(calibration, compared))
    bench = _Bench(model, scope, tuple(tasks))
    steps = deque(bench.steps(calibration, compared))
    with scope.progress("Batches", len(steps)) as advance:
        while steps:
            steps.popleft()()  # releases the images that only this step needed
            advance()
    return Measurements(
        {name: _joined(parts) for name, parts in bench.marked.items()},
        {name: _joined(parts) for name, parts in bench.unmarked.items()},
        {name: _joined(parts) for name, parts in bench.calibration.items()},
        bench.costs,
        [str(kind) for part in bench.kinds for kind in part],
    )


class _Bench:
    """The steps of the measurement, and their results."""

    def __init__(self, model: LatentModel, scope: Scope, tasks: tuple[Task, ...]) -> None:
        self.model, self.scope, self.tasks = model, scope, tasks
        self.patterns = tuple(name for name in PATTERNS if any(name in task.patterns for task in tasks))
        self.facts = (fingerprint(model), __version__, _FIRST, *DETECTORS.added)
        self.marked: dict[tuple[str, str, str], list[Arrays]] = {}
        self.unmarked: dict[tuple[str, str], list[Arrays]] = {}
        self.calibration: dict[str, list[Arrays]] = {}
        self.costs: dict[str, Cost] = {}
        self.kinds: list[NDArray[Any]] = []

    def steps(self, calibration: int, compared: int) -> Iterator[Callable[[], None]]:
        """Yield all steps; neighbours in the order share images."""
        yield from self.on_marked()
        yield from self.on_unmarked()
        yield from self.on_calibration(calibration)
        yield from self.on_images(compared)

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
            keys, images = marked()
            processed = task.condition.apply(images[: len(chosen)], chosen, self.model)
            found = recover(self.model, processed, task.inversion, published=task.published)
            answers = evidence_of_each(self.model, found, keys[: len(chosen)], searched=searched)
            return {**answers, **nearest_rivals(found, rivals())}

        facts = (*self.facts, task.condition.attack, chosen, task.published, searched, task.inversion, KEYS)
        arrays = cached(self.scope.folder, f"robustness-{pattern}", (*facts, pattern), work)
        self.marked.setdefault((pattern, task.method, task.condition.attack), []).append(arrays)

    # --- unmarked images ----------------------------------------------------------------------------------------------

    def on_unmarked(self) -> Iterator[Callable[[], None]]:
        count = max((task.unmarked for task in self.tasks), default=0)
        images = UnmarkedImages(self.model, count, _FIRST + _JUDGED)
        for batch in _batches(count):
            yield partial(self._describe, batch, images)
            for number, task in enumerate(self.tasks):
                if batch.start < task.unmarked:
                    yield partial(self._judge_unmarked, number, task, batch, images)

    def _describe(self, batch: range, images: UnmarkedImages) -> None:
        def work() -> Arrays:
            return {"kind": np.array([one.kind for one in images.some(batch)])}

        self.kinds.append(cached(self.scope.folder, "robustness-kinds", (*self.facts, batch), work)["kind"])

    def _judge_unmarked(self, number: int, task: Task, batch: range, images: UnmarkedImages) -> None:
        chosen = range(batch.start, min(batch.stop, task.unmarked))
        first_key = _FIRST + _FRESH_KEYS + (number << 20)
        searched = [pattern for pattern in task.patterns if task.searches(pattern, marked=False)]

        def work() -> Arrays:
            plain = [one.image for one in images.some(chosen)]
            processed = task.condition.apply(plain, chosen, self.model)
            found = recover(self.model, processed, task.inversion, published=task.published)
            answers: Arrays = {}
            for pattern in task.patterns:
                keys = self._fresh_keys(pattern, first_key, chosen)
                arrays = evidence_of_each(self.model, found, keys, searched=pattern in searched)
                answers.update({f"{pattern}|{name}": values for name, values in arrays.items()})
            return answers

        facts = (*self.facts, task.condition.attack, chosen, task.published, searched, task.inversion)
        arrays = cached(self.scope.folder, "robustness-unmarked", (*facts, task.patterns, first_key), work)
        for pattern in task.patterns:
            part = {name.partition("|")[2]: v for name, v in arrays.items() if name.partition("|")[0] == pattern}
            self.unmarked.setdefault((pattern, task.condition.attack), []).append(part)

    def _fresh_keys(self, pattern: str, first: int, images: range) -> list[Key]:
        return [Key.generate(self.model.latent_shape, pattern=pattern, seed=first + i) for i in images]

    # --- thresholds of published statistics ---------------------------------------------------------------------------

    def on_calibration(self, count: int) -> Iterator[Callable[[], None]]:
        patterns = tuple(
            name
            for name in self.patterns
            if PATTERNS[name].coefficients is not None
            and any(task.published and name in task.patterns for task in self.tasks)
        )
        images = UnmarkedImages(self.model, count, _FIRST + _CALIBRATION)
        for batch in _batches(count) if patterns else ():
            yield partial(self._calibrate, patterns, batch, images)

    def _calibrate(self, patterns: tuple[str, ...], batch: range, images: UnmarkedImages) -> None:
        def work() -> Arrays:
            plain = [one.image for one in images.some(batch)]
            found = recover(self.model, plain, InversionOptions(), published=True)
            answers: Arrays = {}
            for pattern in patterns:
                keys = self._fresh_keys(pattern, _FIRST + _CALIBRATION_KEYS, batch)
                arrays = evidence_of_each(self.model, found, keys, searched=False)
                answers.update({f"{pattern}|{name}": arrays[name] for name in DETECTORS})
            return answers

        arrays = cached(self.scope.folder, "robustness-calibration", (*self.facts, CLEAN, patterns, batch), work)
        for pattern in patterns:
            self.calibration.setdefault(pattern, []).append({name: arrays[f"{pattern}|{name}"] for name in DETECTORS})

    # --- images -----------------------------------------------------------------------------------------------------

    def on_images(self, count: int) -> Iterator[Callable[[], None]]:
        seeds, others = (range(_FIRST + place, _FIRST + place + count) for place in (_COST, _OTHERS))
        unmarked = cache(lambda: (rendered(self.model, (), seeds), rendered(self.model, (), others)))
        for pattern in (UNMARKED, *self.patterns) if count else ():
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

        arrays = cached(self.scope.folder, "robustness-images", (*self.facts, pattern, seeds, many), work)
        self.costs[pattern] = Cost(*map(float, arrays["cost"]))


def _batches(count: int) -> Iterator[range]:
    for start in range(0, count, _BATCH):
        yield range(start, min(start + _BATCH, count))


def _joined(parts: list[Arrays]) -> Arrays:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
