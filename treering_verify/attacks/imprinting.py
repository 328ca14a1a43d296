"""Attacks on a key by whoever has the model and marked images of it, but not the key: forgery and removal in the noise.

A *carrier* is noise, (C, h, w), recovered from marked images: it carries the key without saying which of its bins do; with
(B, C, h, w) each image has one of its own. The attacker knows the scheme, so that the key lives on an annulus, and guesses
a band, (inner, outer) in bins from DC, that covers it; outside the band the image keeps its own noise, so that its
composition stays.

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
"""What the default keys of both patterns live on, with nothing to spare."""

_STEPS = 20


def recover(model: LatentModel, images: torch.Tensor, *, steps: int = _STEPS) -> torch.Tensor:
    """Take images back to their noise, as a verifier would: (B, 3, H, W) -> (B, C, h, w).

    From a marked image this is a carrier of its key.
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
    """Average the noise of many marked images of one key.

    In the mean of N images the key's coefficients stay, and everything else shrinks to 1 / N of its power; the mean of
    unmarked images takes away what recovered noise has in common anyway.

    Parameters
    ----------
    model : LatentModel
    marked, unmarked : (N, 3, H, W), (M, 3, H, W) float32
        `unmarked` may be left out.
    steps, batch_size : int
        Of the noise inversion; images that go through the model together.

    Returns
    -------
    (C, h, w) float32
    """
    import torch

    def mean(images: torch.Tensor) -> torch.Tensor:
        return torch.cat([recover(model, part, steps=steps) for part in images.split(batch_size)]).mean(dim=0)

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
    """Forge: put a carrier's spectrum into foreign images by way of their noise.

    The images are taken to noise; on the band, f <- sqrt(1 - w^2) f + w c, with c the carrier scaled to unit power
    there; the latent z' is generated from that noise. What changes is added to the image, x + D(z') - D(z), z generated
    from the unchanged noise: so errors of the inversion and what the autoencoder cannot draw do not show. It keeps
    a foreign image, with ghosts of what moved. Redrawn whole, the image carries more of the mark, but is no longer
    the foreign one where the inversion without a prompt loses it, as it does on the embedded model.

    Parameters
    ----------
    images : (B, 3, H, W) float32
    model : LatentModel
    carrier : (C, h, w) or (B, C, h, w) float32
        From `recover` (of one image) or `average_carrier`.
    weight : float
        w in [0, 1]; 0 gives the images back.
    band : (int, int)
        Inner and outer radius.
    steps : int
        Steps of the way up and of the way down.
    redraw : bool
        Return D(z') itself.
    noise : (B, C, h, w) float32, optional
        Of the images, from `recover` with as many steps, for who attacks them more than once.

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
    noise = recover(model, images, steps=steps) if noise is None else noise
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
    """Remove: take a carrier's direction out of the images' noise on the band, and put fresh noise in its place.

    f <- f - s g c + s |g c| n with g = <f, c> / <c, c>, and n complex unit-normal from the image's seed. Without n a small
    share of the key would be left on otherwise empty bins, and a cosine does not see how small. The carrier for this is an
    average of many images: of a single one only the part that is key helps.

    Parameters
    ----------
    images, model, carrier, band, steps, redraw, noise
        As for `imprint`.
    seeds : sequence of int
        One per image.
    strength : float
        s, 0 or more; 0 gives the images back, and more than 1 turns the cosine negative.

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
    noise = recover(model, images, steps=steps) if noise is None else noise
    bins, own, stolen = _on_band(noise, carrier, model, band)
    share = (own * stolen.conj()).real.sum(dim=(1, 2), keepdim=True) / stolen.abs().square().sum((1, 2), keepdim=True)
    # Read like everything else, fresh noise has complex coefficients of unit power on the band.
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
    """Forge: generate new images from stolen noise, with prompts of the attacker's choice.

    Parameters
    ----------
    model : LatentModel
    carrier : (C, h, w) or (B, C, h, w) float32
    prompts, seeds : sequences of B
        One of each per image. A seed draws the noise outside the band, so that many images come from one carrier.
    band : (int, int) or None
        None uses the carrier as it is, whatever the seed.
    steps, guidance
        Of the generation.

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
        raise UsageError(f"the carrier has shape {tuple(carrier.shape)}, the model's noise {model.latent_shape}")
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
    """Add to the images what generating from `after` instead of `before` changes; or return what `after` generates."""
    import torch

    nothing: list[Condition] = [None] * len(images)

    def drawn(noise: torch.Tensor) -> torch.Tensor:
        return model.decode(denoise(model, noise, steps=steps, conditions=nothing))

    with torch.inference_mode():
        return (drawn(after) if whole else images + drawn(after) - drawn(before)).clamp(-1.0, 1.0)
