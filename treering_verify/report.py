"""The only formatter: verdicts as text, JSON or JSONL, and the picture of a recovered spectrum."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from treering_verify.files import printable, write_atomic
from treering_verify.results import DETECTED, Verdict

if TYPE_CHECKING:
    import torch

    from treering_verify.key import Key

FORMATS = ("text", "json", "jsonl")


def format_verdicts(verdicts: Iterable[Verdict], style: str) -> Iterator[str]:
    """Yield the lines of a listing as verdicts come in; "json" is one array and so waits for the last.

    Parameters
    ----------
    verdicts : iterable of Verdict
    style : {"text", "json", "jsonl"}
    """
    if style == "json":
        yield json.dumps([to_json(v.record()) for v in verdicts], indent=2)
    elif style == "jsonl":
        for verdict in verdicts:
            yield json.dumps(to_json(verdict.record()))
    else:
        for verdict in verdicts:
            yield format_text(verdict)


def format_text(verdict: Verdict) -> str:
    """One verdict as one line (and a second with the reason, if there is one), safe for a terminal."""
    name = printable(verdict.path) or "(image)"
    if verdict.best is None:
        return f"{'error':13} {name}\n{'':13} {verdict.code}: {verdict.reason}"
    key = f" key {verdict.key}" if verdict.verdict == DETECTED else ""
    line = (
        f"{verdict.verdict:13} {name}  p {format_pvalue(verdict.best.log10_adjusted)}{key}  ({verdict.seconds:.1f} s)"
    )
    return f"{line}\n{'':13} {verdict.code}: {verdict.reason}" if verdict.reason else line


def format_pvalue(log10_pvalue: float) -> str:
    """Write p as 0.37 or 2.1e-58, also where it is too small for a float."""
    if log10_pvalue > -3:
        return f"{10**log10_pvalue:.2g}"
    exponent = math.floor(log10_pvalue)
    return f"{10 ** (log10_pvalue - exponent):.1f}e{exponent:+03d}"


def to_json(value: Any) -> Any:
    """Replace NaN and infinities, which JSON does not have, by None."""
    if isinstance(value, dict):
        return {k: to_json(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_json(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def table(header: list[str], rows: list[list[str]]) -> str:
    """Plain-text table with aligned columns."""
    widths = [max(len(line[i]) for line in [header, *rows]) for i in range(len(header))]
    lines = [
        "  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip() for line in [header, *rows]
    ]
    return "\n".join([lines[0], "  ".join("-" * w for w in widths), *lines[1:]])


def save_spectrum_picture(
    path: Path, key: Key, true_noise: torch.Tensor, recovered: torch.Tensor, control: torch.Tensor
) -> None:
    """Picture of a spectrum as written and as recovered, and of the agreement with the key, bin by bin.

    Parameters
    ----------
    path : Path
        PNG file to write.
    key : Key
    true_noise, recovered, control : (C, h, w)
        Noise with the key, noise_hat of that image, noise_hat of an unmarked image.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    from treering_verify.spectrum import transform

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
        """Mean over channels of Re(F conj K), each channel scaled to unit power: 0 on average for strangers."""
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
        shown = axis.imshow(values, cmap="RdBu_r", vmin=-1.5, vmax=1.5, extent=extent)
        for radius in (key.inner_radius - 0.5, key.outer_radius + 0.5):
            axis.add_patch(pyplot.Circle((0, 0), radius, fill=False, color="black", linewidth=0.9))
        axis.set_title(title, fontsize=10)
        axis.set_xticks([])
        axis.set_yticks([])
    figure.colorbar(shown, ax=axes, shrink=0.75)
    figure.suptitle("Centre of the noise's spectrum: the key lives between the circles, red is agreement", fontsize=11)
    buffer = BytesIO()
    figure.savefig(buffer, dpi=100, format="png", metadata={"Software": None})
    pyplot.close(figure)
    write_atomic(path, buffer.getvalue())
