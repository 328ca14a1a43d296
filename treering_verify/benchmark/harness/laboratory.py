"""One set of images with known latents, inverted once by every method, for the benchmarks `inversion` and `pareto`.

Errors, times and memory are measured separately. Errors come from many images in batches and are cached, so that an
interrupted run resumes. Times come from a few images with the methods in turns, so that all meet the same load of the
machine. Memory comes from a fresh process for each method.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from treering_verify.benchmark.harness.cache import cached
from treering_verify.benchmark.harness.inversion_methods import (
    PUBLISHED,
    Variant,
    compared_precision,
    named,
    own,
    published,
    stages_of,
)
from treering_verify.benchmark.harness.inversion_paths import Path, follow, joined
from treering_verify.benchmark.harness.memory import Peak, peak_memory
from treering_verify.benchmark.harness.scope import CLEAN, SEEDS, Scope, Truth, truth
from treering_verify.detection.evidence import evidence_of
from treering_verify.inversion import noise as noise_inversion
from treering_verify.inversion.decoder import METHODS, REFINED, Settings
from treering_verify.inversion.recovery import problem_of
from treering_verify.models import LatentModel, device_of
from treering_verify.models.weights import fingerprint
from treering_verify.results import KeyEvidence
from treering_verify.version import __version__
from treering_verify.watermark.keys.key import Key

if TYPE_CHECKING:
    import torch

_SEED = SEEDS["inversion"]
_BATCH = 16
_CHUNK = 4  # images that a processor inverts before the result is cached; an accelerator inverts a batch
QUICK_STEPS = 20
"""Steps of the published methods in a quick run: the least that the paper has figures of."""
_JUDGING = ("estimate", "screen")  # networks that decoder inversion has no use for
TIMED_STEPS = 4  # of a method whose steps all cost the same; further ones are counted, not run


@dataclass(frozen=True, eq=False)
class Laboratory:
    """A model, a key, and images of it with the latents and the noise that they came from."""

    model: LatentModel
    key: Key
    known: Truth
    scope: Scope
    weights: str  # fingerprint without the small networks, which most cached measurements do not depend on
    paths: dict[object, Path] = field(default_factory=dict, repr=False)  # those measured or read so far

    @classmethod
    def open(cls, model: LatentModel, scope: Scope, count: int) -> Laboratory:
        """Generate `count` images, or take them from the cache."""
        key = Key.generate(model.latent_shape, seed=_SEED)
        weights = fingerprint(model, without=("refine", *_JUDGING))

        def generate(chosen: range) -> dict[str, NDArray[Any]]:
            made = truth(model, key, range(_SEED + chosen.start, _SEED + chosen.stop))
            return {
                "images": np.stack([np.asarray(image) for image in made.images]),
                "latent": made.latent.numpy(),
                "noise": made.noise.numpy(),
            }

        parts = [
            cached(scope.folder, "images", (weights, __version__, chosen), partial(generate, chosen))
            for chosen in chunks(count, model)
        ]
        arrays = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        return cls(model, key, _truth_of(arrays), scope, weights)

    def variants(self) -> list[Variant]:
        """Return every method that is compared on clean images."""
        longest, ours = (QUICK_STEPS, 3) if self.scope.quick else (100, 20)
        return [
            *published(longest, compared_precision(self.model, self.scope)),
            *own(ours, refined=self.model.refine is not None, stages=stages_of(self.model)),
            *(variant for variant in named(self.scope.methods) if variant.method not in METHODS.added),
        ]

    def path(self, variant: Variant, attack: str = CLEAN, count: int | None = None) -> Path:
        """Return the path of a method on the first `count` images after an attack, by default on all."""
        chosen = len(self.known.images) if count is None else count

        def measure(part: range) -> dict[str, NDArray[Any]]:
            known = self.known.part(part)
            path = follow(
                self.model,
                known.pixels(attack, part.start),
                known.latent,
                variant.method,
                variant.settings,
                budgets=variant.budgets,
                batch=_BATCH,
                precision=variant.precision,
            )
            latents = {f"latent {n}": latent.numpy() for n, latent in path.latents.items()}
            return {
                "error": path.error.numpy(),
                "seconds": path.seconds.numpy(),
                "steps": path.steps.numpy(),
                **latents,
            }

        import torch

        weights = fingerprint(self.model, without=_JUDGING) if variant.method in REFINED else self.weights
        what = (weights, __version__, attack, variant.method, variant.settings, variant.budgets, variant.precision)
        if (what, chosen) in self.paths:
            return self.paths[what, chosen]
        parts = []
        for part in chunks(chosen, self.model):
            name = f"{variant.method}-{attack.partition(':')[0]}"
            arrays = cached(self.scope.folder, name, (*what, part), partial(measure, part))
            tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
            latents = {n: tensors[f"latent {n}"] for n in variant.budgets}
            parts.append(Path(tensors["error"], tensors["seconds"], latents, tensors["steps"]))
        self.paths[what, chosen] = joined(parts)
        return self.paths[what, chosen]

    def evidence(self, latent: torch.Tensor) -> Judgement:
        """Return the cached judgement of latents (n, C, h, w) of the laboratory's images; see `judge`."""
        weights = fingerprint(self.model, without=("refine", "screen"))
        found: dict[str, list[float]] = {}
        for chosen in chunks(len(latent), self.model):
            some = latent[chosen.start : chosen.stop].contiguous()

            def measure(some: torch.Tensor = some) -> dict[str, NDArray[Any]]:
                return {name: np.array(values) for name, values in vars(judge(self.model, self.key, some)).items()}

            digest = hashlib.sha256(some.numpy().tobytes()).hexdigest()
            facts = (weights, __version__, self.key.fingerprint, digest)
            for name, array in cached(self.scope.folder, "evidence", facts, measure).items():
                found.setdefault(name, []).extend(array.tolist())
        return Judgement(**found)

    def residual(self, latent: torch.Tensor, attack: str) -> list[float]:
        """Return |E(D(z)) - E(x)| of latents z, relative to that of z = E(x); x are the first n images after an attack."""
        import torch

        from treering_verify.inversion.decoder import relative_residual

        pixels = Truth(self.known.images[: len(latent)], self.known.latent, self.known.noise).pixels(attack)
        ratios = []
        for image, z in zip(pixels.split(_BATCH), latent.split(_BATCH), strict=True):
            problem = problem_of(self.model, image)
            with torch.inference_mode():
                ratios.append(relative_residual(problem, z) / relative_residual(problem, problem.encode(image)))
        return torch.cat(ratios).tolist()

    def clock(
        self, variants: list[Variant], rounds: int, batch: int, warm_up: bool = True
    ) -> dict[Variant, list[Clock]]:
        """Time every method in turns, once a round, on `batch` clean images at a time; return a clock per round for each.

        Without `warm_up`, every method must have run before.
        """
        wanted = {variant: _timed(variant) for variant in variants}
        distinct = {(timed.method, timed.precision, timed.settings): timed for timed in wanted.values()}
        clocks: dict[Variant, list[Clock]] = {variant: [] for variant in variants}
        facts = (self.weights, fingerprint(self.model), __version__, tuple(distinct), batch, warm_up)
        cold = [warm_up]
        for number in range(1, rounds + 1):  # a round at a time, so that an interrupted run resumes
            work = partial(self._round, distinct, number, batch, cold)
            arrays = cached(self.scope.folder, "seconds", (*facts, number), work)
            seconds = dict(zip(distinct, arrays.values(), strict=True))
            for variant, timed in wanted.items():
                same = (timed.method, timed.precision, timed.settings)
                clocks[variant].append(Clock(tuple(seconds[same].tolist())))
        return clocks

    def _round(
        self, distinct: dict[tuple[str, str, Settings], Variant], number: int, batch: int, cold: list[bool]
    ) -> dict[str, NDArray[Any]]:
        """Time every method once; if `cold` says so, which it does once, after a round that does not count."""
        import torch

        pixels = self.known.pixels()
        whole = torch.cat([pixels] * (1 + batch * (number + 1) // len(pixels)))
        part = whole[number * batch : (number + 1) * batch]
        latent = self.known.latent[:1].expand(batch, *self.known.latent.shape[1:])  # errors are not used
        measured = {}
        for _ in range(2 if cold and cold.pop() else 1):
            for i, (method, precision, settings) in enumerate(distinct):
                path = follow(self.model, part, latent, method, settings, batch=batch, precision=precision)
                measured[f"method {i}"] = path.seconds.numpy()
        return measured

    def peak(self, variant: Variant) -> Peak:
        """Return the peak memory of a method on one image, which is measured once for each precision."""

        def measure() -> dict[str, NDArray[Any]]:
            image, where = self.known.pixels()[:1], device_of(self.model)
            peak = peak_memory(
                self.model.name, image, variant.method, variant.settings, variant.precision, device=where
            )
            return {"peak": np.array([peak.tensors, peak.resident])}

        few = replace(variant.settings, iterations=min(variant.settings.iterations, 6), step=0.0, scheduled=False)
        facts = (fingerprint(self.model), __version__, self.model.name, variant.method, few, variant.precision)
        return Peak(*cached(self.scope.folder, "memory", facts, measure)["peak"].tolist())


def _timed(variant: Variant) -> Variant:
    """Return the variant to time for another: of equal steps only the first few, since further ones are counted."""
    steady = variant.family in PUBLISHED or variant.settings.stagnation == float("-inf")
    if not steady or variant.method == "learned":
        return variant
    few = replace(variant.settings, iterations=min(variant.settings.iterations, TIMED_STEPS), scheduled=False)
    return replace(variant, settings=replace(few, step=1e-3 if few.step else 0.0))


def chunks(count: int, model: LatentModel) -> list[range]:
    """Return the numbers of `count` images in parts, each of which is measured and cached by itself."""
    size = _CHUNK if device_of(model) == "cpu" else _BATCH
    return [range(first, min(first + size, count)) for first in range(0, count, size)]


@dataclass(frozen=True)
class Clock:
    """Seconds per image from the start to each evaluated point; further steps are extrapolated at equal cost."""

    seconds: tuple[float, ...]

    def at(self, k: int) -> float:
        """Return seconds per image up to the evaluation of point k."""
        last = len(self.seconds) - 1
        if k <= last or last == 0:
            return self.seconds[min(k, last)]
        return self.seconds[-1] + (k - last) * (self.seconds[-1] - self.seconds[0]) / last


@dataclass(frozen=True)
class Judgement:
    """Evidence of a key in latents, one number for each latent.

    Attributes
    ----------
    log10, cosine : list of float
        log10 p and test statistic after the default noise inversion. A trained estimator suits the errors of the decoder
        inversion best that it was trained on.
    naive, naive_cosine : list of float
        The same after naive noise inversion, which has no trained part.
    """

    log10: list[float]
    cosine: list[float]
    naive: list[float]
    naive_cosine: list[float]


def judge(model: LatentModel, key: Key, latent: torch.Tensor) -> Judgement:
    """Test a key on each latent (n, C, h, w) after the default noise inversion and after the naive one."""
    import torch

    found: list[list[tuple[KeyEvidence, ...]]] = [[], []]
    for part in latent.split(_BATCH):
        with torch.inference_mode():
            for way, noise_hat in enumerate(noise_inversion.invert_with_naive(model, part)):
                found[way] += evidence_of(noise_hat, [key])
    default, naive = ([e[0] for e in way] for way in found)
    return Judgement(
        [e.log10_pvalue for e in default],
        [e.statistic for e in default],
        [e.log10_pvalue for e in naive],
        [e.statistic for e in naive],
    )


def seeds(count: int) -> range:
    """Return the seeds of the laboratory's images."""
    return range(_SEED, _SEED + count)


def _truth_of(arrays: dict[str, NDArray[Any]]) -> Truth:
    import torch
    from PIL import Image

    return Truth(
        tuple(Image.fromarray(image) for image in arrays["images"]),
        torch.from_numpy(arrays["latent"]),
        torch.from_numpy(arrays["noise"]),
    )
