"""Background error of edits after each decoder inversion, and its time (Hong et al. 2024, the editing figure)."""

from __future__ import annotations

import io
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from treering_detectors import mean

from treering_verify.benchmark.catalogue import BENCHMARKS
from treering_verify.benchmark.harness.cache import cached
from treering_verify.benchmark.harness.inversion_methods import Variant
from treering_verify.benchmark.harness.laboratory import Laboratory, chunks, seeds
from treering_verify.benchmark.harness.scope import Scope
from treering_verify.generation.editing import DEFAULT_GUIDANCE, DEFAULT_STEPS, DEFAULT_STRENGTH, repaint
from treering_verify.models import LatentModel
from treering_verify.models.weights import fingerprint
from treering_verify.report import leading_zeros
from treering_verify.report.findings import Cell, Curve, Curves, Figure, Findings, Table, Thumbnails
from treering_verify.version import __version__

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray
    from PIL import Image

MAGNIFIED = 10
"""Factor by which differences are magnified in figures."""
_TILE, _TEXT, _FONT = 160, 26, 18  # pixels of an image, of the line above it, and of its letters
_TRIED = (
    "encoder",
    "gradient .1 scheduled",
    "forward-step",
    "adam .01 scheduled",
    "anderson",
    "learned",
    "posterior-mode",
)
_BUDGETS = (0, 1, 2, 3, 10, 20, 50)


@dataclass(frozen=True, eq=False)
class Edited:
    """Edits of the laboratory's images from one inversion: background error in dB of each, and the edits (n, H, W, 3)."""

    background: list[float]
    images: NDArray[np.uint8]


def measure(model: LatentModel, scope: Scope) -> Findings:
    """Repaint a disc in the middle of images as the next class, and compare the background with the original."""
    count, rounds = scope.images(4, 48), 1 if scope.quick else 5
    lab = Laboratory.open(model, scope, count)
    variants = lab.variants()
    chosen = [v for v in variants if v.label in (*_TRIED, *scope.methods) or v.is_default]
    rows: list[dict[str, Any]] = []
    lines: list[tuple[Cell, ...]] = []
    points: dict[str, list[tuple[float, float]]] = {}
    shown: dict[str, Edited] = {}
    steps = 5 if scope.quick else DEFAULT_STEPS
    with scope.progress("Methods", len(chosen) + 1) as advance:
        clocks = lab.clock(variants, rounds, 1)
        advance()
        for variant in chosen:
            for n in variant.budgets:
                if n not in _BUDGETS and n != variant.budgets[-1]:
                    continue
                found = edited(lab, lab.path(variant).latents[n], steps)
                seconds = statistics.median(clock.at(n) for clock in clocks[variant])
                rows += [
                    {"method": variant.label, "iterations": n, "image": i, "background_nmse_db": value}
                    for i, value in enumerate(found.background)
                ]
                average = mean(found.background)
                lines.append((variant.label, n, f"{seconds:.3f}", average))
                points.setdefault(variant.label, []).append((seconds, average.value))
                shown[f"{variant.label}, {n}"] = found
            advance()
    curves = tuple(Curve(k, tuple(s for s, _ in v), tuple(e for _, e in v)) for k, v in points.items())
    return Findings(
        "editing",
        BENCHMARKS["editing"].question,
        tuple(rows),
        (
            Table(
                "Background error of edited images",
                ("method", "iterations", "s / image (inversion)", "NMSE outside the mask (dB)"),
                tuple(lines),
                f"{setting(steps)} Mean and 95 % interval. Published methods run without early stopping.",
            ),
        ),
        (
            edit_figure(lab, {name: shown[name] for name in _worth_showing(shown, chosen)}),
            Figure(
                "Background error against time",
                (Curves("clean", "s / image", "NMSE (dB)", curves, log_x=True),),
                "Each mark is a method at a number of iterations, means over images. Best are marks at the lower left: less "
                "error outside the mask in less time of inversion.",
            ),
        ),
        seeds=f"{seeds(count).start} onwards, one key",
        count=str(count),
    )


def setting(steps: int) -> str:
    """Return a sentence that says how images are edited."""
    return (
        f"A disc is repainted as the next class, with {steps} DDIM steps, strength {DEFAULT_STRENGTH:g}, guidance "
        f"{DEFAULT_GUIDANCE:g}; pixels within four latent cells of the mask are left out, since the decoder mixes both "
        "sides there."
    )


def edited(lab: Laboratory, latent: torch.Tensor, steps: int) -> Edited:
    """Repaint a disc of the laboratory's first images from latents (n, C, h, w) that an inversion found."""
    import hashlib

    weights = fingerprint(lab.model, without=("refine", "estimate", "screen"))
    parts = []
    for part in chunks(len(latent), lab.model):
        some = latent[part.start : part.stop].contiguous()
        digest = hashlib.sha256(some.numpy().tobytes()).hexdigest()
        work = partial(_repaint, lab, some, part, steps)
        parts.append(cached(lab.scope.folder, "editing", (weights, __version__, part, steps, digest), work))
    return Edited(
        [value for part in parts for value in part["background"].tolist()],
        np.concatenate([part["images"] for part in parts]),
    )


def _repaint(lab: Laboratory, latent: torch.Tensor, part: range, steps: int) -> dict[str, NDArray[Any]]:
    import torch

    from treering_verify.media.conversion import to_pil

    model, pixels = lab.model, lab.known.part(part).pixels()
    inside, background = masks(model, pixels.shape[-1])
    names = model.classes
    prompts = [names[(s + 1) % len(names)] if names else None for s in seeds(part.stop)[part.start :]]
    with torch.inference_mode():
        found = model.decode(repaint(model, latent, inside, prompts, steps=steps)).clamp(-1, 1)
    error = ((found - pixels) * background).flatten(1).norm(dim=1)
    decibels = 20 * torch.log10(error / (pixels * background).flatten(1).norm(dim=1))
    return {
        "background": decibels.double().numpy(),
        "images": np.stack([np.asarray(to_pil(image)) for image in found]),
    }


def masks(model: LatentModel, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the latent cells to repaint, (1, 1, h, w), and the pixels of the background, (1, 1, H, W), both bool."""
    import torch

    _, h, w = model.latent_shape
    y, x = torch.meshgrid(torch.arange(h) - (h - 1) / 2, torch.arange(w) - (w - 1) / 2, indexing="ij")
    distance = torch.hypot(y, x)
    outside = (distance > h / 6 + 4).float()[None, None]
    background = torch.nn.functional.interpolate(outside, scale_factor=width // w) > 0
    return (distance < h / 6)[None, None], background


def edit_figure(lab: Laboratory, found: dict[str, Edited], images: int = 2) -> Figure:
    """Return image, mask, edit and difference of the first images, a line for each method."""
    panels = []
    for i in range(min(images, *(len(one.images) for one in found.values()))):
        panels.append(Thumbnails(f"image {i + 1}", _png(sheet(lab, found, i))))
    return Figure(
        "Image, mask, edit and difference",
        tuple(panels),
        f"Each line is one decoder inversion, with the error of its background. The difference is {MAGNIFIED} times |edit - "
        "image| outside the mask, so black is what an edit should leave; grey: left out.",
    )


def sheet(lab: Laboratory, found: dict[str, Edited], i: int) -> Image.Image:
    """Return the contact sheet of one image: original, mask, edit and magnified difference, a line for each method."""
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.load_default(size=_FONT)
    original = np.asarray(lab.known.images[i].convert("RGB"))
    inside, background = masks(lab.model, original.shape[1])
    cells = Image.fromarray((inside[0, 0].numpy() * 255).astype(np.uint8)).convert("RGB")
    whole = Image.new("RGB", (4 * _TILE, _TEXT + len(found) * (_TILE + _TEXT)), "white")
    draw = ImageDraw.Draw(whole)
    for column, name in enumerate(("image", "mask", "edit", f"{MAGNIFIED} x difference")):
        draw.text((column * _TILE + 4, 2), name, fill="black", font=font)
    for line, (name, one) in enumerate(found.items()):
        difference = MAGNIFIED * np.abs(one.images[i].astype(int) - original.astype(int)).clip(0, 255)
        shown = np.where(background[0, 0].numpy()[..., None], difference.clip(0, 255), 128).astype(np.uint8)
        top = _TEXT + line * (_TILE + _TEXT)
        said = f"{leading_zeros(name)}: background {one.background[i]:.1f} dB"
        draw.text((4, top + 2), said, fill="black", font=font)
        tiles = (Image.fromarray(original), cells, Image.fromarray(one.images[i]), Image.fromarray(shown))
        for column, tile in enumerate(tiles):
            method = Image.Resampling.NEAREST if column == 1 else Image.Resampling.BICUBIC
            whole.paste(tile.resize((_TILE, _TILE), method), (column * _TILE, top + _TEXT))
    return whole


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def _worth_showing(shown: dict[str, Edited], variants: Sequence[Variant]) -> list[str]:
    """Return the encoder, the longest gradient and gradient-free runs, and the default."""
    wanted = [v for v in variants if v.is_default or v.label in _TRIED[:2] or v.label == "adam .01 scheduled"]
    longest = {v.label: f"{v.label}, {v.budgets[-1]}" for v in wanted}
    return [name for name in longest.values() if name in shown]
