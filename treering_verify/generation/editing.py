"""Background-preserving editing: a new prompt inside a mask, the image's own latent outside it.

The second application in Hong et al. (NeurIPS 2024). The decoder inversion's error is an error of the background too, so a
better inversion preserves the background better.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from treering_verify.errors import UsageError
from treering_verify.inversion import decoder as decoder_inversion
from treering_verify.inversion import noise as noise_inversion
from treering_verify.inversion.recovery import InversionOptions, problem_of
from treering_verify.media.conversion import fit, to_pil, to_tensor
from treering_verify.media.images import open_image
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
    """Repaint an image inside a mask, and keep it outside.

    The image is inverted to its latent, then for a share of the grid towards its noise, and denoised under the prompt. After
    every step the latent outside the mask is set to the inversion's point at that step (as in Blended Latent Diffusion,
    Avrahami et al., arXiv 2206.02779, with the inverted path instead of fresh noise), and at the end to the latent itself.

    Parameters
    ----------
    model : LatentModel
    image : path, bytes or PIL.Image.Image
        An image of another size is cropped and scaled to the model's.
    mask : path, bytes or PIL.Image.Image
        A mask of the image's size: white is repainted, black preserved, in whole latent cells, with the border at mid-grey.
    prompt : str or None
        What to paint: a class name for class-conditional models.
    inversion : InversionOptions, optional
        The decoder inversion to use. Its noise inversion is not used: here that is always naive DDIM.
    steps : int
        Steps of the whole grid, at least 1.
    strength : float
        Share of the grid to invert, in (0, 1]: how far the inside may leave the image.
    guidance : float
        Classifier-free guidance of the denoising.

    Returns
    -------
    PIL.Image.Image
        The edited image, of the model's size.

    Raises
    ------
    ImageError
        If the image or the mask cannot be read.
    UsageError
        If the mask has another size or is empty, a number is out of range, or the model makes videos.
    """
    import torch

    images_only(model, "editing")

    if not 0 < strength <= 1 or steps < 1:
        raise UsageError("strength must lie in (0, 1], and steps be 1 or more")
    original, region = open_image(image), open_image(mask)
    if original.size != region.size:
        raise UsageError(f"the mask has size {region.size}, the image {original.size}: make them equal")
    inside = cells(fit(region, model.image_size)[0], model)
    if not bool(inside.any()):
        raise UsageError("the mask is dark everywhere, so nothing would be repainted: mark a region in white")
    latent = edit_latent(
        model,
        to_tensor(fit(original, model.image_size)[0]),
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
    """Return the latents (B, C, h, w) of edited images (B, 3, H, W); masks (B or 1, 1, h, w) are True inside."""
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
    """Return edited latents (B, C, h, w), from latents that a decoder inversion found; see `edit_latent`."""
    import torch

    with torch.inference_mode():
        depth = max(1, round(strength * steps))
        inverted = noise_inversion.trajectory(model, latent, steps=steps)[: depth + 1]
        times = model.timesteps(steps)[::-1][: depth + 1]
        z = inverted[-1]
        for k in range(depth, 0, -1):
            z = step(model, z, times[k], times[k - 1], prompts, guidance)
            z = torch.where(inside, z, inverted[k - 1])  # the background stays on the inversion's path
    return z


def cells(mask: Image.Image, model: LatentModel) -> torch.Tensor:
    """Return which latent cells, (1, 1, h, w) bool, have any pixel lighter than mid-grey in a mask of the image's size."""
    import torch

    _, height, width = model.latent_shape
    light = (to_tensor(mask).amax(dim=1, keepdim=True) + 1) / 2
    return torch.nn.functional.adaptive_max_pool2d(light, (height, width)) > 0.5
