"""Inversion: image -> latent -> noise estimate, by the methods that `InversionOptions` name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from treering_verify.errors import UsageError
from treering_verify.inversion import decoder as decoder_inversion
from treering_verify.inversion import noise as noise_inversion
from treering_verify.inversion.brightness import brightness_factors, clipped_values
from treering_verify.inversion.over_exposure import complete, read_noise
from treering_verify.media.blank_areas import fill_occluded, mask_occluded, visible_area
from treering_verify.models import LatentModel, makes_videos
from treering_verify.models.inverter import fitted
from treering_verify.models.precision import Precision, precision_of
from treering_verify.models.profile import Profile
from treering_verify.models.restorer import STEPS, restorer_of

if TYPE_CHECKING:
    import torch

    from treering_verify.inversion.decoder.solution import Solution


_METHOD: ContextVar[str] = ContextVar("_METHOD", default=decoder_inversion.AUTO)
_NOISE_METHOD: ContextVar[str] = ContextVar("_NOISE_METHOD", default=noise_inversion.AUTO)


@contextmanager
def inverting_by(method: str = decoder_inversion.AUTO, noise_method: str = noise_inversion.AUTO) -> Iterator[None]:
    """Let options that name no method have these, inside the block: as if a user had named them."""
    before = _METHOD.set(method), _NOISE_METHOD.set(noise_method)
    try:
        yield
    finally:
        _METHOD.reset(before[0])
        _NOISE_METHOD.reset(before[1])


@dataclass(frozen=True)
class InversionOptions:
    """Methods and settings of the inversion of an image.

    Attributes
    ----------
    method : str
        Decoder-inversion method, one of `inversion.decoder.METHODS`, or "auto": the model's best.
    settings : Settings, optional
        Its settings; the method's defaults when left out.
    noise_method : str
        Noise-inversion method, one of `inversion.noise.METHODS`, or "auto": the model's best.
    steps : int
        Steps of the noise inversion.
    batch_size : int
        Images that go through the model together.
    precision : {"float32", "bfloat16", "float16"}
        Precision of the autoencoder's passes in the decoder inversion; latents stay float32.
    profile : Profile, optional
        The model's self-test that these settings come from (`of`). An image that the model inverts worse than the
        profile's floor is inconclusive, never 'no evidence'.
    """

    method: str = field(default_factory=lambda: _METHOD.get())
    settings: decoder_inversion.Settings | None = None
    noise_method: str = field(default_factory=lambda: _NOISE_METHOD.get())
    steps: int = noise_inversion.DEFAULT_STEPS
    batch_size: int = 16
    precision: Precision = "float32"
    profile: Profile | None = field(default=None, repr=False)  # changes verdicts, never noise_hat

    @classmethod
    def of(cls, profile: Profile, *, batch_size: int = 16) -> InversionOptions:
        """Return the settings that a model's self-test recommends."""
        return cls(
            method=profile.inversion,
            noise_method=profile.noise_method,
            steps=profile.steps,
            batch_size=batch_size,
            precision=profile.precision,
            profile=profile,
        )

    def __post_init__(self) -> None:
        decoder_inversion.METHODS.check(self.method, decoder_inversion.AUTO)
        noise_inversion.METHODS.check(self.noise_method, noise_inversion.AUTO)
        precision_of(self.precision)
        if self.steps < 0 or self.batch_size < 1:
            raise UsageError("steps must be 0 or more, and batch_size 1 or more")


def problem_of(model: LatentModel, image: torch.Tensor) -> decoder_inversion.Problem:
    """Pose the decoder inversion of images (B, 3, H, W) under a model."""
    return decoder_inversion.Problem(image, model.encode, model.decode, model.refine, filters=fitted(model))


def recover_latent(model: LatentModel, image: torch.Tensor, inversion: InversionOptions) -> Solution:
    """Invert the decoder, the first half of `recover_noise`: images (B, 3, H, W) -> their latents."""
    problem = decoder_inversion.in_precision(problem_of(model, image), inversion.precision)
    return decoder_inversion.invert(problem, inversion.method, inversion.settings)


def recover_noise(
    model: LatentModel, image: torch.Tensor, inversion: InversionOptions | None = None
) -> tuple[torch.Tensor, Solution]:
    """Return the noise estimate of images, from their visible area.

    Occluded areas (`media.blank_areas.visible_area`) are filled before the inversion and masked after it. The estimate of an
    over-exposed image is that of the restored image, where the model has a restorer (`restores`).

    Parameters
    ----------
    model : LatentModel
    image : (B, 3, H, W) float32 in [-1, 1], of the model's size
    inversion : InversionOptions, optional

    Returns
    -------
    noise_hat : (B, C, h, w) float32
    solution : Solution
        The decoder inversion's result.
    """
    inversion = inversion or InversionOptions()

    def invert_latent(solution: Solution) -> torch.Tensor:
        method, steps = inversion.noise_method, inversion.steps
        return noise_inversion.invert(model, solution.latent, method, steps=steps, shares=solution.shares)

    return restored(model, image, inversion, *recover_noise_by(model, image, inversion, invert_latent))


def restores(model: LatentModel, inversion: InversionOptions) -> bool:
    """Return whether over-exposed images are restored: by the default methods of a model that has a restorer."""
    usual = inversion.method == decoder_inversion.AUTO and inversion.noise_method == noise_inversion.AUTO
    return usual and inversion.steps == STEPS and restorer_of(model) is not None and not makes_videos(model)


def restored_factors(model: LatentModel, image: torch.Tensor, inversion: InversionOptions) -> list[float]:
    """Return the factor by which each image (B, 3, H, W) was brightened; 1 for images that are not restored."""
    return brightness_factors(image) if restores(model, inversion) else [1.0] * len(image)


def restored(
    model: LatentModel, image: torch.Tensor, inversion: InversionOptions, noise_hat: torch.Tensor, solution: Solution
) -> tuple[torch.Tensor, Solution]:
    """Replace noise estimate and solution of over-exposed images by those of the restored images.

    All other images keep theirs, bit for bit.

    Parameters
    ----------
    model, image, inversion
        As `recover_noise` takes them.
    noise_hat, solution
        Results for the images as they are.

    Returns
    -------
    noise_hat : (B, C, h, w) float32
    solution : Solution
    """
    import torch

    factors, restorer = restored_factors(model, image, inversion), restorer_of(model)
    rows = [row for row, factor in enumerate(factors) if factor > 1]
    if restorer is None or not rows:
        return noise_hat, solution
    with torch.inference_mode():
        some = image[rows]
        visible = torch.maximum(visible_area(some), clipped_values(some).any(dim=1, keepdim=True).cpu().float())
        some = fill_occluded(some, visible)
        completed, known = complete(model, restorer, some, [factors[row] for row in rows])
        found = recover_latent(model, completed, inversion)
        estimate = mask_occluded(read_noise(model, restorer, found, known, noise_hat[rows]), visible)
        noise_hat, latent, residual = noise_hat.clone(), solution.latent.clone(), solution.residual.clone()
        noise_hat[rows], latent[rows], residual[rows] = estimate, found.latent, found.residual
    status = list(solution.status)
    for row, one in zip(rows, found.status, strict=True):
        status[row] = one
    changed = replace(solution, latent=latent, residual=residual, status=tuple(status))
    return noise_hat, changed


def recover_noise_by(
    model: LatentModel,
    image: torch.Tensor,
    inversion: InversionOptions,
    invert_latent: Callable[[Solution], torch.Tensor],
) -> tuple[torch.Tensor, Solution]:
    """Return what `recover_noise` does, by any noise inversion `invert_latent`: solution -> noise, (B, C, h, w)."""
    import torch

    visible = visible_area(image)
    solution = recover_latent(model, fill_occluded(image, visible), inversion)
    with torch.inference_mode():
        noise_hat = mask_occluded(invert_latent(solution), visible)
    return noise_hat, replace(solution, visible=tuple(visible.flatten(1).mean(dim=1).tolist()))


def recover_with_naive(
    model: LatentModel, image: torch.Tensor, inversion: InversionOptions
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return noise_hat as `recover_noise` does, and the unmasked noise_hat of `naive`, which published statistics need."""
    unmasked: list[torch.Tensor] = []

    def invert_latent(solution: Solution) -> torch.Tensor:
        noise_hat, naive_noise = noise_inversion.invert_with_naive(
            model, solution.latent, inversion.noise_method, steps=inversion.steps, shares=solution.shares
        )
        unmasked.append(naive_noise)
        return noise_hat

    found = recover_noise_by(model, image, inversion, invert_latent)
    return restored(model, image, inversion, *found)[0], unmasked[0]


def filters_used(model: LatentModel, inversion: InversionOptions) -> str:
    """Return the digest of the fitted filters that an inversion runs, for records; "" if it runs none."""
    filters = fitted(model)
    return filters.digest if filters and inversion.method in (decoder_inversion.AUTO, "filtered") else ""


def restorer_used(model: LatentModel, inversion: InversionOptions) -> str:
    """Return the digest of the restorer that over-exposed images go through, for records; "" where none does."""
    restorer = restorer_of(model)
    return restorer.digest if restorer and restores(model, inversion) else ""


def images_at_a_time(model: LatentModel, inversion: InversionOptions) -> int:
    """Return how many inputs go through a model at a time: one for videos, `batch_size` for images."""
    return 1 if makes_videos(model) else inversion.batch_size


def recover_in_batches(model: LatentModel, inversion: InversionOptions, image: torch.Tensor) -> torch.Tensor:
    """Return the noise estimates (n, C, h, w) of any number of images (n, 3, H, W) or videos, batch by batch."""
    import torch

    parts = image.split(images_at_a_time(model, inversion))
    return torch.cat([recover_noise(model, part, inversion)[0] for part in parts])
