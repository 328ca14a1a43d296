"""Forgery and removal in the noise, by an attacker who has the model and marked images of a key, but not the key.

A *carrier* is a noise estimate, (C, h, w), of marked images. It contains the key, in bins that the attacker does not know;
with (B, C, h, w) each image has a carrier of its own. The attacker knows the scheme, and so that the key's bins form an
annulus, and guesses a band, (inner, outer) in bins from DC, that covers it. Outside the band the image's own noise stays,
and with it the composition.

Müller et al. (arXiv 2412.03283) and Jain et al. (arXiv 2504.20111) show such forgeries from a single image on larger models;
Yang et al. (arXiv 2406.09026) average. Images are (B, 3, H, W) float32 in [-1, 1], of the model's size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from treering_verify.attacks.regeneration import fresh_noise
from treering_verify.errors import UsageError
from treering_verify.inversion import decoder as decoder_inversion
from treering_verify.inversion import noise as noise_inversion
from treering_verify.models.protocol import Condition, LatentModel
from treering_verify.models.sampling import denoise
from treering_verify.watermark import spectrum

if TYPE_CHECKING:
    import torch

BAND = (3, 12)
"""Exactly the annulus of the default keys of both patterns."""

_STEPS = 20


def estimate_noise(model: LatentModel, images: torch.Tensor, *, steps: int = _STEPS) -> torch.Tensor:
    """Return the noise estimates (B, C, h, w) of images (B, 3, H, W), as a verifier would compute them.

    The estimate of a marked image is a carrier of its key.
    """
    import torch

    problem = decoder_inversion.Problem(images, model.encode, model.decode, model.refine)
    latent = decoder_inversion.invert(problem).latent
    with torch.inference_mode():
        return noise_inversion.naive(model, latent, steps=steps).clone()


def average_carrier(
    model: LatentModel,
    marked: torch.Tensor,
    unmarked: torch.Tensor | None = None,
    *,
    steps: int = _STEPS,
    batch_size: int = 16,
) -> torch.Tensor:
    """Return a carrier: the mean noise estimate of many marked images of one key.

    In the mean of N images the key's coefficients stay, and everything else shrinks to 1 / N of its power. Subtracting the
    mean of unmarked images removes what all noise estimates have in common.

    Parameters
    ----------
    model : LatentModel
    marked, unmarked : (N, 3, H, W), (M, 3, H, W) float32
        `unmarked` may be left out.
    steps, batch_size : int
        Steps of the noise inversion; images that go through the model together.

    Returns
    -------
    (C, h, w) float32
    """
    import torch

    def mean(images: torch.Tensor) -> torch.Tensor:
        return torch.cat([estimate_noise(model, part, steps=steps) for part in images.split(batch_size)]).mean(dim=0)

    return mean(marked) if unmarked is None else mean(marked) - mean(unmarked)


def imprint(
    images: torch.Tensor,
    model: LatentModel,
    carrier: torch.Tensor,
    *,
    weight: float = 1.0,
    band: tuple[int, int] = BAND,
    steps: int = _STEPS,
    redraw: bool = False,
    noise: torch.Tensor | None = None,
) -> torch.Tensor:
    """Write a carrier's spectrum into the noise of other images, to forge its mark.

    The images are inverted to noise. On the band, f <- sqrt(1 - w^2) f + w c, with c the carrier scaled to unit power there;
    the latent z' is generated from that noise, and z from the unchanged noise. The result is x + D(z') - D(z), so that the
    errors of inversion and autoencoder cancel. The image stays, with faint traces of what moved. D(z') itself has more of
    the mark, but is another image where inversion without a prompt loses the content, as on the embedded model.

    Parameters
    ----------
    images : (B, 3, H, W) float32
    model : LatentModel
    carrier : (C, h, w) or (B, C, h, w) float32
        From `estimate_noise` (of one image) or `average_carrier`.
    weight : float
        w in [0, 1]; 0 returns the images unchanged.
    band : (int, int)
        Inner and outer radius.
    steps : int
        Steps of the inversion and of the generation.
    redraw : bool
        Return D(z') itself.
    noise : (B, C, h, w) float32, optional
        The images' noise estimates by `estimate_noise` with the same steps, to save it in repeated attacks.

    Returns
    -------
    (B, 3, H, W) float32

    Raises
    ------
    UsageError
        If the carrier has another shape, or weight or band is out of range.
    """
    if not 0 <= weight <= 1:
        raise UsageError(f"weight is {weight}: choose 0 to 1")
    noise = estimate_noise(model, images, steps=steps) if noise is None else noise
    bins, own, stolen = _on_band(noise, carrier, model, band)
    mixed = (1.0 - weight**2) ** 0.5 * own + weight * _unit(stolen)
    return _redraw(images, model, noise, _written(noise, bins, mixed), steps, redraw)


def erase(
    images: torch.Tensor,
    model: LatentModel,
    carrier: torch.Tensor,
    seeds: Sequence[int],
    *,
    strength: float = 1.0,
    band: tuple[int, int] = BAND,
    steps: int = _STEPS,
    redraw: bool = False,
    noise: torch.Tensor | None = None,
) -> torch.Tensor:
    """Remove a mark: replace a carrier's direction in the images' noise on the band by fresh noise.

    f <- f - s g c + s |g c| n with g = <f, c> / <c, c>, and n complex unit-normal from the image's seed. Without n a small
    share of the key would remain on otherwise empty bins, and a cosine does not depend on how small it is. The carrier
    should be an average of many images: in that of a single image most directions are not the key's.

    Parameters
    ----------
    images, model, carrier, band, steps, redraw, noise
        As for `imprint`.
    seeds : sequence of int
        One per image.
    strength : float
        s, 0 or more; 0 returns the images unchanged, and more than 1 turns the cosine negative.

    Returns
    -------
    (B, 3, H, W) float32

    Raises
    ------
    UsageError
        If the carrier has another shape, or strength or band is out of range.
    """
    if strength < 0:
        raise UsageError(f"strength is {strength}: choose 0 or more")
    noise = estimate_noise(model, images, steps=steps) if noise is None else noise
    bins, own, stolen = _on_band(noise, carrier, model, band)
    share = (own * stolen.conj()).real.sum(dim=(1, 2), keepdim=True) / stolen.abs().square().sum((1, 2), keepdim=True)
    # n: the coefficients of fresh noise on the band are complex and have unit power
    fresh = spectrum.read(fresh_noise(model.latent_shape, seeds).to(images), bins)
    replaced = strength * (share.abs() * stolen.abs() * fresh - share * stolen)
    return _redraw(images, model, noise, _written(noise, bins, own + replaced), steps, redraw)


def reprompt(
    model: LatentModel,
    carrier: torch.Tensor,
    prompts: Sequence[Condition],
    seeds: Sequence[int],
    *,
    band: tuple[int, int] | None = BAND,
    steps: int = 50,
    guidance: float = 2.0,
) -> torch.Tensor:
    """Generate new images from a carrier with prompts of the attacker's choice, to forge its mark.

    Parameters
    ----------
    model : LatentModel
    carrier : (C, h, w) or (B, C, h, w) float32
    prompts, seeds : sequences of B
        One of each per image. A seed draws the noise outside the band, so that many images come from one carrier.
    band : (int, int) or None
        None uses the carrier as it is, whatever the seed.
    steps, guidance
        Parameters of the generation.

    Returns
    -------
    (B, 3, H, W) float32

    Raises
    ------
    UsageError
        As for `imprint`, or if there are not as many prompts as seeds.
    """
    import torch

    if len(prompts) != len(seeds):
        raise UsageError(f"{len(prompts)} prompts for {len(seeds)} seeds: give one per seed")
    noise = fresh_noise(model.latent_shape, seeds).to(carrier)
    if band is None:
        noise = carrier.expand(noise.shape)
    else:
        bins, own, stolen = _on_band(noise, carrier, model, band)
        noise = _written(noise, bins, _unit(stolen).expand(own.shape))
    with torch.inference_mode():
        latent = denoise(model, noise, steps=steps, conditions=list(prompts), guidance=guidance)
        return model.decode(latent).clamp(-1.0, 1.0)


def _on_band(
    noise: torch.Tensor, carrier: torch.Tensor, model: LatentModel, band: tuple[int, int]
) -> tuple[spectrum.Bins, torch.Tensor, torch.Tensor]:
    """Return the band's bins, the noise's coefficients there, (B, C, n), and the carrier's, (1, C, n) or (B, C, n)."""
    if tuple(carrier.shape[-3:]) != model.latent_shape or carrier.shape[:-3] not in ((), (len(noise),)):
        raise UsageError(
            f"the carrier has shape {tuple(carrier.shape)}, the model's noise {model.latent_shape}: use that model"
        )
    try:
        bins = spectrum.annulus_bins(*model.latent_shape[1:], *band)
    except ValueError as error:
        raise UsageError(f"band {band}: {error}") from error
    return bins, spectrum.read(noise, bins), spectrum.read(carrier.reshape(-1, *model.latent_shape).to(noise), bins)


def _unit(values: torch.Tensor) -> torch.Tensor:
    """Scale each carrier's coefficients, (B, C, n), to unit power."""
    return values / values.abs().square().mean(dim=(1, 2), keepdim=True).sqrt()


def _written(noise: torch.Tensor, bins: spectrum.Bins, values: torch.Tensor) -> torch.Tensor:
    return spectrum.write(noise, bins, tuple(range(noise.shape[1])), values)


def _redraw(
    images: torch.Tensor, model: LatentModel, before: torch.Tensor, after: torch.Tensor, steps: int, whole: bool
) -> torch.Tensor:
    """Return x + D(z_after) - D(z_before), or D(z_after) if `whole`; z is generated from the noise `after` or `before`."""
    import torch

    nothing: list[Condition] = [None] * len(images)

    def generated(noise: torch.Tensor) -> torch.Tensor:
        return model.decode(denoise(model, noise, steps=steps, conditions=nothing))

    with torch.inference_mode():
        return (generated(after) if whole else images + generated(after) - generated(before)).clamp(-1.0, 1.0)
