"""A model's self-test: how well this model's images can be inverted to their noise, and by which settings best.

noise -> image -> noise_hat on images generated for the test, marked and unmarked, in several settings. One attack is tried
too, so that no setting is recommended that works on clean images only; `treering benchmark` measures the others.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from treering_verify.attacks import parse
from treering_verify.detection.evidence import evidence_of
from treering_verify.detection.judge import Judge
from treering_verify.errors import UsageError
from treering_verify.generation.generator import generate
from treering_verify.inversion.noise import invert
from treering_verify.inversion.recovery import InversionOptions
from treering_verify.media.conversion import to_tensor
from treering_verify.models import LatentModel
from treering_verify.models.precision import precision_of
from treering_verify.models.profile import FLOOR, KIND, PROFILE_VERSION
from treering_verify.models.weights import dtypes, fingerprint
from treering_verify.results import KeyEvidence
from treering_verify.watermark.keys.key import Key
from treering_verify.watermark.spectrum import half_plane, read

if TYPE_CHECKING:
    import torch


BANDS = 4
ATTACK = "jpeg:quality=50"
SETTINGS = (
    InversionOptions(method="encoder"),
    InversionOptions(),
    InversionOptions(noise_method="exact"),
    InversionOptions(steps=20),
)


@dataclass(frozen=True)
class Trial:
    """Results of the self-test under one setting.

    Attributes
    ----------
    inversion, noise_method, steps
        The setting, as in `InversionOptions`.
    error : float
        |noise_hat - noise| / |noise|, mean of the marked images.
    agreement : tuple of float
        Correlation of noise_hat with the noise in each of `BANDS` frequency bands, from DC to the highest.
    log10_marked, log10_attacked, log10_unmarked : float
        Median log10 p of the marked images, of the same after `ATTACK`, and the smallest of the unmarked images.
    seconds : float
        Time per image.
    """

    inversion: str
    noise_method: str
    steps: int
    error: float
    agreement: tuple[float, ...]
    log10_marked: float
    log10_attacked: float
    log10_unmarked: float
    seconds: float


@dataclass(frozen=True)
class SelfTest:
    """Results of a model's self-test; `record` makes them JSON-ready.

    Attributes
    ----------
    weights, dtypes, tile
        Identity of the model, as in `Profile`.
    precision : str
        Precision of the autoencoder's passes in every setting.
    autoencoder_error : float
        |E(x) - z_0| / |z_0|, x being the image as a file holds it.
    ode_error : float
        |noise_hat - noise| / |noise| of `exact` inversion from the true latent on the grid of generation, without prompt and
        at guidance 1, as in verification: the error that comes from not knowing them. The equation is not that of
        generation, so the error may exceed 1.
    """

    model: str
    weights: str
    dtypes: str
    tile: int
    precision: str
    latent_shape: tuple[int, int, int]
    image_size: tuple[int, int]
    images: int
    generation_steps: int
    guidance: float
    seconds_generating: float
    autoencoder_error: float
    ode_error: float
    trials: tuple[Trial, ...]

    @property
    def best(self) -> Trial:
        """The trial with the smallest p on marked images, clean and attacked taken together, and the faster of equals.

        It is chosen among those that detect the median clean image, if any does. The attack counts because a setting may be
        best on clean images and useless on attacked ones.
        """
        sound = [trial for trial in self.trials if trial.log10_marked <= FLOOR]
        return min(sound or self.trials, key=lambda trial: (trial.log10_marked + trial.log10_attacked, trial.seconds))

    @property
    def usable(self) -> bool:
        """Whether the best setting detects the median marked image at 1e-6."""
        return self.best.log10_marked <= FLOOR

    def record(self) -> dict[str, Any]:
        """Return all results and the recommended setting, as `models.profile.Profile` reads them."""
        best = self.best
        chosen = {
            "inversion": best.inversion,
            "noise_inversion": best.noise_method,
            "steps": best.steps,
            "precision": self.precision,
            "log10_marked": best.log10_marked,
        }
        return {
            "type": KIND,
            "schema_version": PROFILE_VERSION,
            **asdict(self),
            "usable": self.usable,
            "recommended": chosen,
        }


def check_model(
    model: LatentModel,
    *,
    count: int = 4,
    steps: int = 20,
    guidance: float = 2.0,
    prompts: Sequence[str | None] | None = None,
    seed: int = 0,
    batch_size: int = 4,
    precision: str = "float32",
) -> SelfTest:
    """Test whether a model can carry a watermark: mark, invert and test its own images under several settings.

    Parameters
    ----------
    model : LatentModel
    count : int
        Marked images, 2 or more; each has a fresh key of its own.
    steps, guidance, prompts
        Parameters of `generate`. Without prompts, classes take turns; a model without classes gets no prompt.
    seed : int
        Seed of the first image.
    batch_size : int
    precision : {"float32", "bfloat16", "float16"}
        Precision of the autoencoder's passes in the decoder inversion, in every setting.

    Raises
    ------
    UsageError
        If there are fewer than 2 images.
    """
    import torch

    if count < 2:
        raise UsageError(f"count is {count}: test 2 images or more")
    seeds = list(range(seed, seed + count))
    keys = [Key.generate(model.latent_shape, seed=each) for each in seeds]
    chosen = list(prompts) if prompts is not None else None
    options: dict[str, Any] = {"steps": steps, "guidance": guidance, "batch_size": batch_size}
    started = time.perf_counter()
    marked = [
        made
        for i, key in enumerate(keys)
        for made in generate(model, key, seeds=[seeds[i]], prompts=chosen and [chosen[i]], **options)
    ]
    plain = list(generate(model, None, seeds=seeds, prompts=chosen, **options))
    seconds = (time.perf_counter() - started) / (2 * count)
    noise = torch.stack([made.noise for made in marked])
    latent = torch.stack([made.latent for made in marked])
    pixels = torch.cat([to_tensor(made.image) for made in (*marked, *plain)])
    attacked = torch.cat([to_tensor(parse(ATTACK).apply(made.image)) for made in marked])
    with torch.inference_mode():
        autoencoder = torch.cat([model.encode(part) for part in pixels[:count].split(batch_size)])
        inverted = torch.cat([invert(model, part, "exact", steps=steps) for part in latent.split(batch_size)])
    return SelfTest(
        model.name,
        fingerprint(model),
        dtypes(model),
        model.tile,
        precision,
        model.latent_shape,
        model.image_size,
        count,
        steps,
        guidance,
        seconds,
        _relative(autoencoder, latent),
        _relative(inverted, noise),
        tuple(
            _trial(
                model, replace(setting, precision=precision_of(precision)), pixels, attacked, noise, keys, batch_size
            )
            for setting in _settings(steps)
        ),
    )


def _settings(steps: int) -> tuple[InversionOptions, ...]:
    """Return the settings to try, and as many steps as generation has, if few: some networks know no other number."""
    few = steps < min(each.steps for each in SETTINGS)
    return (*SETTINGS, InversionOptions(noise_method="exact", steps=steps)) if few else SETTINGS


def _trial(
    model: LatentModel,
    inversion: InversionOptions,
    pixels: torch.Tensor,
    attacked: torch.Tensor,
    noise: torch.Tensor,
    keys: list[Key],
    batch_size: int,
) -> Trial:

    started = time.perf_counter()
    noise_hat, log10 = _judged(model, inversion, pixels, keys, batch_size)
    seconds = (time.perf_counter() - started) / len(pixels)
    _, log10_attacked = _judged(model, inversion, attacked, keys, batch_size)
    marked = noise_hat[: len(keys)]
    return Trial(
        inversion.method,
        inversion.noise_method,
        inversion.steps,
        _relative(marked, noise),
        _agreement(marked, noise),
        float(np.median(log10[: len(keys)])),
        float(np.median(log10_attacked)),
        float(min(log10[len(keys) :])),
        seconds,
    )


@dataclass
class _OwnKeyTest:
    """The test of image i under key i, keys in turn; it stores the noise estimates."""

    keys: list[Key]
    noise_hat: list[torch.Tensor]
    keys_tried: int = 1

    @property
    def tried(self) -> Sequence[Key]:
        """The keys that are looked for."""
        return self.keys

    def evidence(self, noise_hat: torch.Tensor) -> list[tuple[KeyEvidence, ...]]:
        """Test noise estimates; see `judge.EvidenceTest`."""
        found = []
        for one in noise_hat.split(1):
            key = self.keys[len(self.noise_hat) % len(self.keys)]
            self.noise_hat.append(one)
            found += evidence_of(one, [key])
        return found


def _judged(
    model: LatentModel, inversion: InversionOptions, images: torch.Tensor, keys: list[Key], batch_size: int
) -> tuple[torch.Tensor, list[float]]:
    """Return the noise estimates of images, and log10 p of each under its own key; the keys take turns."""
    import torch

    test = _OwnKeyTest(keys, [])
    judge = Judge.of(model, test, inversion=inversion)
    findings = [finding for part in images.split(batch_size) for finding in judge.find(part)]
    return torch.cat(test.noise_hat), [finding.evidence[0].log10_adjusted for finding in findings]


def _relative(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return float(((found - wanted).flatten(1).norm(dim=1) / wanted.flatten(1).norm(dim=1)).mean())


def _agreement(found: torch.Tensor, wanted: torch.Tensor) -> tuple[float, ...]:
    """Return the correlation in each of `BANDS` frequency bands of equal width, from DC to the corner."""
    bins = half_plane(*wanted.shape[-2:])
    estimate, truth = (read(z, bins).numpy() for z in (found, wanted))
    band = np.minimum(bins.ring * BANDS // (bins.ring.max() + 1), BANDS - 1)
    return tuple(
        float(
            (estimate[..., band == b] * truth[..., band == b].conj()).real.sum()
            / np.sqrt((abs(estimate[..., band == b]) ** 2).sum() * (abs(truth[..., band == b]) ** 2).sum())
        )
        for b in range(BANDS)
    )
