"""The number of images that one key accuses by chance, computed as audits do and counted over simulated keys."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from treering_verify.audit.sketches import Sketcher
from treering_verify.benchmark.catalogue import BENCHMARKS
from treering_verify.benchmark.harness.scope import SEEDS, Scope
from treering_verify.detection.screening import SCREENS, default_screen
from treering_verify.generation.generator import generate
from treering_verify.media.conversion import fit, to_tensor
from treering_verify.models import LatentModel
from treering_verify.report.findings import Cell, Findings, Table
from treering_verify.watermark.embedding import extract, features
from treering_verify.watermark.keys.index import KeyIndex
from treering_verify.watermark.keys.key import Family, Key

if TYPE_CHECKING:
    from PIL import Image

_BATCH = 16
_WALLPAPERS, _SIDE = 6, 1024
_KEYS = {1e-2: 4000, 1e-3: 40_000, 1e-4: 40_000, 1e-6: 0}  # simulated, by alpha; at 1e-6 there is nothing to count
_AT_ONCE = 4000
_AUDIT_ALPHA = 1e-6
_QUALITIES = (90, 60)


def measure(model: LatentModel, scope: Scope) -> Findings:
    """Count the crops that simulated keys accuse, compare with what audits compute, and group marked images."""
    count, seed = scope.images(40, 400), SEEDS["chance"]
    marked = max(2, count // 20)
    with scope.progress("Images", count + marked * (1 + len(_QUALITIES))) as advance:
        crops = [_crop(i, seed, model.image_size) for i in range(count)]
        noise = _noise(model, crops, advance)
        groups = _marked_groups(model, marked, seed, advance)
    rows, lines = [], []
    for pattern in ("random", "rings"):
        family = Family.choose(model.latent_shape, pattern=pattern)
        estimates = features(extract(noise, family), family)
        for alpha, keys in _KEYS.items():
            row, line = _compared(pattern, estimates, alpha, keys, seed)
            rows.append(row)
            lines.append(line)
    return Findings(
        "chance",
        BENCHMARKS["chance"].question,
        tuple(rows),
        (
            Table(
                "Crops that one key accuses",
                (
                    "pattern",
                    "alpha",
                    "keys",
                    "mean",
                    "computed",
                    "deviation",
                    "computed",
                    "binomial",
                    "any",
                    "computed",
                    "together",
                    "computed",
                    "95 %",
                    "keys inside",
                    "most",
                ),
                tuple(lines),
                "Counted over simulated keys, and beside it computed from the features as audits do. Together: mean number "
                "where there is any. 95 %: computed interval; keys inside: share of simulated keys whose number lies in it.",
            ),
            Table(
                "Marked images and their copies",
                ("files", "as findings", "images", "largest group", "largest cosine between images"),
                (groups,),
                f"One key; each image as PNG and as JPEG at qualities {', '.join(map(str, _QUALITIES))}. Cosines without "
                "the part along the key.",
            ),
        ),
        seeds=f"{seed} onwards",
        count=f"{count} crops of 2 photographs and {_WALLPAPERS} wallpapers; {marked} marked images",
    )


def _compared(
    pattern: str, estimates: NDArray[np.float64], alpha: float, keys: int, seed: int
) -> tuple[dict[str, Any], tuple[Cell, ...]]:
    from treering_detectors import chance_count

    found = chance_count(estimates, alpha)
    counts = _counts(estimates, alpha, keys, seed)
    binomial = math.sqrt(len(estimates) * alpha * (1 - alpha))
    inside = ((counts >= found.low) & (counts <= found.high)).mean() if keys else None
    some = counts[counts > 0]
    counted = {
        "mean": counts.mean() if keys else None,
        "deviation": counts.std() if keys else None,
        "any": (counts > 0).mean() if keys else None,
        "together": some.mean() if len(some) else None,
    }
    row: dict[str, Any] = {"pattern": pattern, "alpha": alpha, "keys": keys, "most": int(counts.max(initial=0))}
    line: list[Cell] = [pattern, f"{alpha:g}", keys]
    for name, value in counted.items():
        computed = getattr(found, name)
        row |= {f"{name}_counted": None if value is None else float(value), f"{name}_computed": float(computed)}
        line += [None if value is None else f"{value:.3g}", f"{computed:.3g}"]
        line += [f"{binomial:.3g}"] if name == "deviation" else []
    share = None if inside is None else f"{100 * float(inside):.1f} %"
    return row, (*line, f"{found.low} to {found.high}", share, int(counts.max(initial=0)) if keys else None)


def _counts(estimates: NDArray[np.float64], alpha: float, keys: int, seed: int) -> NDArray[np.int64]:
    """Return how many images each of some fresh keys accuses."""
    from treering_detectors import cosine_needed

    rng = np.random.default_rng([seed, round(-math.log10(alpha))])
    lengths = np.linalg.norm(estimates, axis=1, keepdims=True)
    rows = (estimates / np.where(lengths > 0, lengths, 1.0)).astype(np.float32)
    least, counts = cosine_needed(rows.shape[1], alpha), [np.empty(0, dtype=np.int64)]
    for start in range(0, keys, _AT_ONCE):
        numbers = rng.standard_normal((min(_AT_ONCE, keys - start), rows.shape[1]), dtype=np.float32)
        numbers /= np.linalg.norm(numbers, axis=1, keepdims=True)
        counts.append((numbers @ rows.T >= least).sum(axis=1))
    return np.concatenate(counts)


def _noise(model: LatentModel, images: Sequence[Image.Image], advance: Callable[[], None]) -> Any:
    """Return the noise estimates of the screening pass, (n, C, h, w), on which audits test most unmarked images."""
    import torch

    screen = SCREENS[default_screen(model)]
    parts = []
    for start in range(0, len(images), _BATCH):
        pixels = torch.cat([to_tensor(image) for image in images[start : start + _BATCH]])
        parts.append(screen(model, pixels)[0].cpu())
        for _ in range(len(pixels)):
            advance()
    return torch.cat(parts)


def _crop(i: int, seed: int, size: tuple[int, int]) -> Image.Image:
    """Return a crop of one of a few photographs and wallpapers, at the model's size."""
    from PIL import Image
    from sklearn.datasets import load_sample_images

    rng = np.random.default_rng([seed, 0, i])
    photographs = load_sample_images().images
    place = int(rng.integers(len(photographs) + _WALLPAPERS))
    source = photographs[place] if place < len(photographs) else _wallpaper(seed + place)
    side = int(min(source.shape[:2]) * rng.uniform(0.2, 0.7))
    top, left = (int(rng.integers(length - side + 1)) for length in source.shape[:2])
    return fit(Image.fromarray(source[top : top + side, left : left + side]), size)[0]


def _wallpaper(seed: int) -> NDArray[np.uint8]:
    """Return a wallpaper: a gradient between two strong colours, with soft spots of others on it."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:_SIDE, 0:_SIDE] / _SIDE
    angle = rng.uniform(0, 2 * np.pi)
    along = ((x - 0.5) * np.cos(angle) + (y - 0.5) * np.sin(angle) + 0.7) / 1.4
    first, second = (rng.permutation([255.0, rng.uniform(0, 255), 0.0]) for _ in range(2))
    image = first + along[..., None] * (second - first)
    for _ in range(4):
        centre, width = rng.uniform(0, 1, 2), rng.uniform(0.05, 0.25)
        spot = np.exp(-((x - centre[0]) ** 2 + (y - centre[1]) ** 2) / (2 * width**2))[..., None]
        image += 0.8 * spot * (rng.permutation([255.0, rng.uniform(0, 255), 0.0]) - image)
    return np.asarray(image.clip(0, 255).astype(np.uint8))


def _marked_groups(model: LatentModel, count: int, seed: int, advance: Callable[[], None]) -> tuple[Cell, ...]:
    """Mark images with one key, and return how many findings they and their copies are."""
    from treering_detectors import feature_groups, shared_cosine

    from treering_verify import attacks

    key = Key.generate(model.latent_shape, seed=seed)
    made = [one.image for one in generate(model, key, seeds=range(seed, seed + count))]
    files = made + [attacks.parse(f"jpeg:quality={q}").apply(image, 0) for q in _QUALITIES for image in made]
    noise = _noise(model, files, advance)
    rows = Sketcher.of([KeyIndex.from_keys([key])]).sketch(noise, [key.fingerprint] * len(files)).astype(np.float64)
    groups = feature_groups(rows, shared_cosine(_AUDIT_ALPHA, rows.shape[1]))
    between = rows[:count] @ rows[:count].T - 2 * np.eye(count)
    return len(files), len(set(groups.tolist())), count, int(np.bincount(groups).max()), f"{between.max():.2f}"
