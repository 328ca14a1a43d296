"""One set of images with known latents, inverted once by every method, for the benchmarks `inversion` and `pareto`.

Errors, times and memory are measured separately. Errors come from many images in batches and are cached, so that an
interrupted run resumes. Times come from a few images with the methods in turns, so that all meet the same load of the
machine. Memory comes from a fresh process for each method.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from treering_verify.benchmark.harness.cache import cached
from treering_verify.benchmark.harness.inversion_methods import PUBLISHED, Variant, own, published, stages_of
from treering_verify.benchmark.harness.inversion_paths import Path, follow
from treering_verify.benchmark.harness.scope import CLEAN, SEEDS, Scope, Truth, truth
from treering_verify.detection.evidence import evidence_of
from treering_verify.inversion import noise as noise_inversion
from treering_verify.inversion.decoder import REFINED
from treering_verify.inversion.recovery import problem_of
from treering_verify.models import LatentModel
from treering_verify.models.weights import fingerprint
from treering_verify.results import KeyEvidence
from treering_verify.version import __version__
from treering_verify.watermark.keys.key import Key

if TYPE_CHECKING:
    import torch

_SEED = SEEDS["inversion"]
_BATCH = 16
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

    @classmethod
    def open(cls, model: LatentModel, scope: Scope, count: int) -> Laboratory:
        """Generate `count` images, or take them from the cache."""
        key = Key.generate(model.latent_shape, seed=_SEED)
        weights = fingerprint(model, without=("refine", *_JUDGING))

        def generate() -> dict[str, NDArray[Any]]:
            made = truth(model, key, seeds(count))
            return {
                "images": np.stack([np.asarray(image) for image in made.images]),
                "latent": made.latent.numpy(),
                "noise": made.noise.numpy(),
            }

        arrays = cached(scope.folder, "images", (weights, __version__, count), generate)
        return cls(model, key, _truth_of(arrays), scope, weights)

    def variants(self) -> list[Variant]:
        """Return every method that is compared on clean images."""
        longest, ours = (3, 3) if self.scope.quick else (100, 20)
        return [*published(longest), *own(ours, refined=self.model.refine is not None, stages=stages_of(self.model))]

    def path(self, variant: Variant, attack: str = CLEAN, count: int | None = None) -> Path:
        """Return the path of a method on the first `count` images after an attack, by default on all."""
        chosen = len(self.known.images) if count is None else count

        def measure() -> dict[str, NDArray[Any]]:
            known = Truth(self.known.images[:chosen], self.known.latent[:chosen], self.known.noise[:chosen])
            path = follow(
                self.model,
                known.pixels(attack),
                known.latent,
                variant.method,
                variant.settings,
                budgets=variant.budgets,
                batch=_BATCH,
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
        facts = (weights, __version__, len(self.known.images), chosen, attack, variant)
        arrays = cached(self.scope.folder, f"{variant.method}-{attack.partition(':')[0]}", facts, measure)
        tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
        return Path(
            tensors["error"],
            tensors["seconds"],
            {n: tensors[f"latent {n}"] for n in variant.budgets},
            tensors["steps"],
        )

    def evidence(self, latent: torch.Tensor) -> Judgement:
        """Return the cached judgement of latents (n, C, h, w) of the laboratory's images; see `judge`."""

        def measure() -> dict[str, NDArray[Any]]:
            return {name: np.array(values) for name, values in vars(judge(self.model, self.key, latent)).items()}

        digest = hashlib.sha256(latent.contiguous().numpy().tobytes()).hexdigest()
        facts = (fingerprint(self.model, without=("refine", "screen")), __version__, self.key.fingerprint, digest)
        arrays = cached(self.scope.folder, "evidence", facts, measure)
        return Judgement(**{name: array.tolist() for name, array in arrays.items()})

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
        import torch

        pixels = self.known.pixels()
        whole = torch.cat([pixels] * (1 + batch * (rounds + 1) // len(pixels)))
        latent = self.known.latent[:1].expand(batch, *self.known.latent.shape[1:])  # errors are not used
        clocks: dict[Variant, list[Clock]] = {variant: [] for variant in variants}
        for number in range(0 if warm_up else 1, rounds + 1):
            part = whole[number * batch : (number + 1) * batch]
            measured: dict[tuple[str, str], Clock] = {}
            for variant in variants:
                steady = variant.family in PUBLISHED or variant.settings.stagnation == float("-inf")
                settings = variant.settings
                if steady and variant.method != "learned":
                    settings = replace(settings, iterations=min(settings.iterations, TIMED_STEPS))
                same = (variant.method, repr(settings) if not steady else "")
                if same not in measured:
                    path = follow(self.model, part, latent, variant.method, settings, batch=batch)
                    measured[same] = Clock(tuple(path.seconds.tolist()))
                if number:  # the first round is the warm-up
                    clocks[variant].append(measured[same])
        return clocks


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
