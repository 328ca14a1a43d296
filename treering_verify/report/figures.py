"""Figures of a spectrum: as written and as recovered, and as a tile of a page."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from treering_verify.files import write_atomic
from treering_verify.report.panels import pyplot_of_files

if TYPE_CHECKING:
    import torch
    from PIL import Image

    from treering_verify.watermark.keys.key import Key


def save_spectrum_figure(
    path: Path, key: Key, true_noise: torch.Tensor, recovered: torch.Tensor, control: torch.Tensor
) -> None:
    """Write a figure of a spectrum as written and as recovered, and of its agreement with the key, bin by bin.

    Parameters
    ----------
    path : Path
        PNG file to write.
    key : Key
    true_noise, recovered, control : (C, h, w)
        Noise with the key, noise_hat of that image, noise_hat of an unmarked image.
    """
    pyplot = pyplot_of_files()

    from treering_verify.watermark.spectrum import transform

    height, width = key.latent_shape[1:]
    half = key.outer_radius + 2
    window = (
        slice(height // 2 - half, height // 2 + half + 1),
        slice(width // 2 - half, width // 2 + half + 1),
    )
    channels = list(key.channels)
    written, found, other = (
        transform(noise[channels].double())[(slice(None), *window)].numpy()
        for noise in (true_noise, recovered, control)
    )

    def agreement(spectrum: Any) -> Any:
        """Return the mean over channels of Re(F conj K), each at unit power: 0 on average for an unmarked image."""
        power = (abs(spectrum) ** 2).mean(axis=(1, 2), keepdims=True) ** 0.5
        return (spectrum * written.conj() / power).real.mean(axis=0)

    panels = (
        ("written into the noise\n(real part, first channel)", written[0].real),
        ("recovered from the PNG\n(real part, first channel)", found[0].real / (abs(found[0]) ** 2).mean() ** 0.5),
        ("recovered x written\n(all channels)", agreement(found)),
        ("unmarked twin x written\n(all channels)", agreement(other)),
    )
    figure, axes = pyplot.subplots(1, 4, figsize=(12.4, 3.9), layout="constrained")
    extent = (-half - 0.5, half + 0.5, half + 0.5, -half - 0.5)
    for axis, (title, values) in zip(axes, panels, strict=True):
        drawn = axis.imshow(values, cmap="RdBu_r", vmin=-1.5, vmax=1.5, extent=extent)
        for radius in (key.inner_radius - 0.5, key.outer_radius + 0.5):
            axis.add_patch(pyplot.Circle((0, 0), radius, fill=False, color="black", linewidth=0.9))
        axis.set_title(title, fontsize=10)
        axis.set_xticks([])
        axis.set_yticks([])
    figure.colorbar(drawn, ax=axes, shrink=0.75)
    figure.suptitle("Centre of the noise's spectrum: the key lives between the circles, red is agreement", fontsize=11)
    buffer = BytesIO()
    figure.savefig(buffer, dpi=100, format="png", metadata={"Software": None})
    pyplot.close(figure)
    write_atomic(path, buffer.getvalue())


def spectrum_tile(noise_hat: torch.Tensor, channels: tuple[int, ...], radii: tuple[int, int], size: int) -> Image.Image:
    """Return an image of the centre of a recovered spectrum: mean power over channels, from 0 (dark) to 3 or more (light).

    It depends on the image alone.

    Parameters
    ----------
    noise_hat : (C, h, w)
    channels : tuple of int
        Channels to average over.
    radii : (inner, outer)
        Radii of the key's annulus, drawn as circles; the window reaches two bins further.
    size : int
        Side of the image in pixels.
    """
    import numpy as np
    from matplotlib import colormaps
    from PIL import Image, ImageDraw

    from treering_verify.watermark.spectrum import transform

    height, width = noise_hat.shape[-2:]
    half = min(radii[1] + 2, height // 2 - 1, width // 2 - 1)
    power = (transform(noise_hat[list(channels)].double()).abs() ** 2).mean(dim=0).numpy()
    window = power[height // 2 - half : height // 2 + half + 1, width // 2 - half : width // 2 + half + 1]
    colours = (colormaps["cividis"](np.clip(window / 3, 0, 1))[..., :3] * 255).astype(np.uint8)
    image = Image.fromarray(colours).resize((size, size), Image.Resampling.NEAREST)
    draw, cell = ImageDraw.Draw(image), size / (2 * half + 1)
    for radius in (radii[0] - 0.5, radii[1] + 0.5):
        reach = radius * cell
        draw.ellipse((size / 2 - reach, size / 2 - reach, size / 2 + reach, size / 2 + reach), outline="white")
    return image
