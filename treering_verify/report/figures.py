"""Figures: the recovered spectrum as a PNG, and the figures of benchmarks as SVG."""

from __future__ import annotations

from io import BytesIO, StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from treering_verify.files import write_atomic
from treering_verify.report.confusion_matrix import ConfusionMatrix
from treering_verify.report.findings import Cloud, Curves, Figure, Matrix, Thumbnails

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
    pyplot = _pyplot()

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


def draw_figure(figure: Figure) -> str:
    """Return the panels of a figure as one SVG document, without a date, so that equal figures are equal files."""
    sheet, buffer = _drawn(figure), StringIO()
    sheet.savefig(buffer, format="svg", bbox_inches="tight", metadata={"Date": None, "Creator": None})
    _pyplot().close(sheet)
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def draw_png(figure: Figure) -> bytes:
    """Return the panels of a figure as a PNG file."""
    sheet, buffer = _drawn(figure), BytesIO()
    sheet.savefig(buffer, dpi=110, format="png", bbox_inches="tight", metadata={"Software": None})
    _pyplot().close(sheet)
    return buffer.getvalue()


_SIDE_BY_SIDE = 3  # panels in a row; further ones wrap


def _drawn(figure: Figure) -> Any:
    many = len(figure.panels)
    columns = 2 if many == 4 else min(many, _SIDE_BY_SIDE)
    rows = -(-many // columns)
    square = any(isinstance(panel, Matrix) for panel in figure.panels)
    width, height = (4.6, 5.0) if square else (5.6, 4.4)
    if any(isinstance(panel, Thumbnails) for panel in figure.panels):
        width, height = 13.0, 12.0
    size = (width * columns if many > 1 else max(width, 6.5), height * rows)
    sheet, axes = _pyplot().subplots(
        rows, columns, figsize=size, layout="compressed" if square else "constrained", squeeze=False
    )
    sheet.get_layout_engine().set(w_pad=0.1, h_pad=0.1)
    for axis in axes.flat[many:]:
        axis.set_visible(False)
    for axis, panel in zip(axes.flat, figure.panels, strict=False):
        axis.set_title(panel.title, fontsize=10)
        if isinstance(panel, Curves):
            _draw_curves(axis, panel)
        elif isinstance(panel, Cloud):
            _draw_cloud(sheet, axis, panel)
        elif isinstance(panel, Thumbnails):
            _draw_thumbnails(axis, panel)
        else:
            ConfusionMatrix(panel.labels, panel.counts, panel.title, panel.none).plot(axis)
    return sheet


_COLOURS = 10  # of matplotlib's cycle; curves beyond them have another marker
_MARKERS = ".^sD"


def _draw_curves(axis: Any, panel: Curves) -> None:
    groups = list(dict.fromkeys(curve.group or curve.label for curve in panel.curves))
    for curve in panel.curves:
        i = groups.index(curve.group or curve.label)
        style, marker = "--" if curve.dashed else "-", _MARKERS[i // _COLOURS % len(_MARKERS)]
        style_options = {"color": f"C{i % _COLOURS}", "marker": marker, "linewidth": 1.4, "markersize": 5}
        (drawn,) = axis.plot(curve.x, curve.y, style, label=curve.label, **style_options)
        if curve.half_width:
            bounds = list(zip(curve.y, curve.half_width, strict=True))
            low, high = [y - h for y, h in bounds], [y + h for y, h in bounds]
            axis.fill_between(curve.x, low, high, color=drawn.get_color(), alpha=0.15, linewidth=0)
    if panel.log_x:
        axis.set_xscale("log")
    axis.set_xlabel(panel.x_label)
    axis.set_ylabel(panel.y_label)
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)


def _draw_cloud(sheet: Any, axis: Any, panel: Cloud) -> None:
    points = axis.scatter(panel.x, panel.y, c=panel.colour, s=16, cmap="viridis")
    sheet.colorbar(points, ax=axis, label=panel.colour_label)
    if panel.line and panel.x:
        ends = [min(panel.x), max(panel.x)]
        axis.plot(ends, [panel.line[1] + panel.line[0] * x for x in ends], color="red", linewidth=1.4)
    axis.set_xlabel(panel.x_label)
    axis.set_ylabel(panel.y_label)


def _draw_thumbnails(axis: Any, panel: Thumbnails) -> None:
    from PIL import Image

    axis.imshow(Image.open(BytesIO(panel.png)), interpolation="none")
    axis.set_axis_off()


def _pyplot() -> Any:
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "treering"  # ids that do not change from run to run
    from matplotlib import pyplot

    return pyplot
