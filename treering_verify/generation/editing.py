"""Background-preserving editing: another class inside a mask, the image's own latent outside it.

The application beside watermarks in Hong et al. (NeurIPS 2024): whatever the decoder inversion loses is lost in the
background too, so a better inversion keeps it better.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from treering_verify.errors import UsageError
from treering_verify.inversion import decoder as decoder_inversion
from treering_verify.inversion import noise as noise_inversion
from treering_verify.inversion.recovery import InversionOptions, problem_of
from treering_verify.media.images import fit, open_image, to_pil, to_tensor
from treering_verify.models import Condition, LatentModel, images_only
from treering_verify.models.sampling import step

if TYPE_CHECKING:
    import torch
    from PIL import Image

DEFAULT_STEPS = 30
DEFAULT_STRENGTH = 0.8
DEFAULT_GUIDANCE = 3.0


def edit(
    model: LatentModel,
    image: str | Path | bytes | Image.Image,
    mask: str | Path | bytes | Image.Image,
    prompt: Condition,
    *,
    inversion: InversionOptions | None = None,
    steps: int = DEFAULT_STEPS,
    strength: float = DEFAULT_STRENGTH,
    guidance: float = DEFAULT_GUIDANCE,
) -> Image.Image:
    """Repaint an image inside a mask.

    The image is taken back to its latent and some way towards its noise, and denoised again under the prompt. At every step
    the latent outside the mask is put back to what it was on the way up (as in Blended Latent Diffusion, Avrahami et al.,
    arXiv 2206.02779, with the inverted path instead of fresh noise), and at the end to the latent itself.

    Parameters
    ----------
    model : LatentModel
    image : path, bytes or PIL.Image.Image
        Cut and scaled to the model's size where it is another.
    mask : path, bytes or PIL.Image.Image
        Of the image's size; white is repainted and black kept, in whole latent cells, with the border at mid-grey.
    prompt : str or None
        What to paint: a class name for class-conditional models.
    inversion : Pipeline, optional
        The decoder inversion to use; its noise inversion is not (the way up is always naive DDIM).
    steps : int
        Of the whole grid, at least 1.
    strength : float
        Share of the grid to go up, in (0, 1]: how far the inside may leave the image.
    guidance : float
        Classifier-free guidance on the way down.

    Returns
    -------
    PIL.Image.Image
        Of the model's size.

    Raises
    ------
    ImageError
        If one of them cannot be read.
    UsageError
        If the mask has another size or is empty, a number is out of range, or the model makes videos.
    """
    import torch

    images_only(model, "editing")

    if not 0 < strength <= 1 or steps < 1:
        raise UsageError("strength must lie in (0, 1], and steps be 1 or more")
    picture, region = open_image(image), open_image(mask)
    if picture.size != region.size:
        raise UsageError(f"the mask has size {region.size}, the image {picture.size}: make them equal")
    inside = cells(fit(region, model.image_size)[0], model)
    if not bool(inside.any()):
        raise UsageError("the mask is dark everywhere, so nothing would be repainted: mark a region in white")
    latent = edit_latent(
        model,
        to_tensor(fit(picture, model.image_size)[0]),
        inside,
        [prompt],
        inversion=inversion,
        steps=steps,
        strength=strength,
        guidance=guidance,
    )
    with torch.inference_mode():
        return to_pil(model.decode(latent)[0])


def edit_latent(
    model: LatentModel,
    image: torch.Tensor,
    inside: torch.Tensor,
    prompts: list[Condition],
    *,
    inversion: InversionOptions | None = None,
    steps: int = DEFAULT_STEPS,
    strength: float = DEFAULT_STRENGTH,
    guidance: float = DEFAULT_GUIDANCE,
) -> torch.Tensor:
    """Edit a batch: images (B, 3, H, W) and latent masks (B or 1, 1, h, w), True inside -> latents (B, C, h, w)."""
    inversion = inversion or InversionOptions()
    problem = decoder_inversion.in_precision(problem_of(model, image), inversion.precision)
    latent = decoder_inversion.invert(problem, inversion.method, inversion.settings).latent
    return repaint(model, latent, inside, prompts, steps=steps, strength=strength, guidance=guidance)


def repaint(
    model: LatentModel,
    latent: torch.Tensor,
    inside: torch.Tensor,
    prompts: list[Condition],
    *,
    steps: int = DEFAULT_STEPS,
    strength: float = DEFAULT_STRENGTH,
    guidance: float = DEFAULT_GUIDANCE,
) -> torch.Tensor:
    """Edit latents (B, C, h, w) that a decoder inversion found, as `edit_latent` does."""
    import torch

    with torch.inference_mode():
        climb = max(1, round(strength * steps))
        path = noise_inversion.trajectory(model, latent, steps=steps)[: climb + 1]
        points = model.timesteps(steps)[::-1][: climb + 1]
        z = path[-1]
        for k in range(climb, 0, -1):
            z = step(model, z, points[k], points[k - 1], prompts, guidance)
            z = torch.where(inside, z, path[k - 1])
    return z


def cells(mask: Image.Image, model: LatentModel) -> torch.Tensor:
    """Latent cells, (1, 1, h, w) bool, in which any pixel of a mask of the model's image size is lighter than mid-grey."""
    import torch

    _, height, width = model.latent_shape
    light = (to_tensor(mask).amax(dim=1, keepdim=True) + 1) / 2
    return torch.nn.functional.adaptive_max_pool2d(light, (height, width)) > 0.5
