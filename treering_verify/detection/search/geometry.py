"""What may have been done to an image's geometry, or a video's beginning, since it was made, and the spectrum before.

Turning, mirroring, scaling or moving an image does the same to its latent and, nearly, to the noise that is recovered from
it, for the networks on the way hardly care where things stand. So one inversion of the image as it is serves every
hypothesis: under u' = A u + t (positions from the image's centre) the spectrum before is, up to a positive factor,

    F(f) = exp(2 pi i (A^-T f) . t) F'(A^-T f)

with F' sampled between its bins. Where a turn has opened corners, a disc is cut out of the noise first. A video that begins
late has its noise's frames moved instead (`offsets`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from treering_verify.detection.search.video_offsets import Offset, Timeline
from treering_verify.errors import UsageError
from treering_verify.watermark.embedding import extract, key_bins
from treering_verify.watermark.keys.key import Family, Key

if TYPE_CHECKING:
    import torch

KINDS = ("flip", "rotation", "crop", "time")  # the last in videos alone
IDENTITY_WEIGHT = 0.5  # share of alpha for an image that nothing was done to; the kinds share the rest equally
SMALLEST_SHARE = 0.6  # of each side, that a crop is thought to have left
# Distances between neighbours, times the key's outer radius: radians; relative; shares of the frame.
_ANGLE_STEP, _SCALE_STEP, _SHIFT_STEP = 0.31, 0.36, 0.2  # for a key of radius 9: 2 degrees, 4 %, .7 of a cell of 32
_BLOCK = 1024  # hypotheses that are weighed together, of a key in four channels; fewer of a key in more
_PADDING = 4  # the spectrum is sampled between bins by cubic interpolation of one that is so many times finer
_RIM = 0.12  # width over which the disc fades out, in half sides


@dataclass(frozen=True)
class Hypothesis:
    """One guess: mirrored left to right, then turned, then scaled about the centre, then moved; or begun late.

    Attributes
    ----------
    mirrored : bool
    degrees : float
        Counter-clockwise, in [0, 360).
    scale : float
        At least 1: what a crop that was scaled up again has been enlarged by.
    shift : (float, float)
        Rows and columns that the centre moved by, in shares of the frame.
    offset : Offset, optional
        Of a video to which nothing else was done.
    """

    mirrored: bool = False
    degrees: float = 0.0
    scale: float = 1.0
    shift: tuple[float, float] = (0.0, 0.0)
    offset: Offset | None = None

    @property
    def changes(self) -> str:
        """What was done, in words, as a verdict says it; "" for nothing."""
        parts = ["mirrored"] if self.mirrored else []
        if self.degrees:
            parts.append(f"turned by {self.degrees:.0f} degrees")
        if self.scale != 1.0:
            parts.append(f"cropped to {1 / self.scale:.2f} of each side")
        if self.offset:
            parts.append(self.offset.changes)
        return ", ".join(parts)


@dataclass(frozen=True)
class Group:
    """Hypotheses that differ by their shift alone (or not at all), with the share of alpha of each.

    Attributes
    ----------
    frame : Hypothesis
        What they have in common; its own shift is none.
    shifts : (m, 2) float64
    weight : float
    """

    frame: Hypothesis
    shifts: npt.NDArray[np.float64]
    weight: float

    def __getitem__(self, index: int) -> Hypothesis:
        """One of them."""
        rows, columns = self.shifts[index]
        return replace(self.frame, shift=(float(rows), float(columns)))


def check_kinds(kinds: Sequence[str]) -> tuple[str, ...]:
    """Kinds without repetition, in the order of `KINDS`; UsageError names one that does not exist."""
    for kind in kinds:
        if kind not in KINDS:
            raise UsageError(f"no search for {kind!r}: choose from {', '.join(KINDS)}, or all")
    return tuple(kind for kind in KINDS if kind in kinds)


@lru_cache(maxsize=32)
def candidates(outer_radius: int, kinds: tuple[str, ...], timeline: Timeline | None = None) -> tuple[Group, ...]:
    """All hypotheses of some kinds, close enough together for keys up to a radius. Their weights sum to 1/2.

    The other half of alpha belongs to the identity, which is not among them.

    Parameters
    ----------
    outer_radius : int
        Of the key, in bins: a wider key needs closer hypotheses.
    kinds : tuple of {"flip", "rotation", "crop", "time"}
        "rotation" alone takes the unmirrored turns, with "flip" the mirrored ones too.
    timeline : Timeline, optional
        Of the video, if it is one. Without it "time" has no hypotheses and takes no share from the others.
    """
    by_kind: dict[str, list[tuple[Hypothesis, npt.NDArray[np.float64]]]] = {}
    still = np.zeros((1, 2))
    if "flip" in kinds:
        by_kind["flip"] = [(Hypothesis(mirrored=True), still)]
    if "rotation" in kinds:
        count = 4 * math.ceil(2 * math.pi * outer_radius / _ANGLE_STEP / 4)
        turns = [360 * i / count for i in range(count)]
        mirrored = (False, True) if "flip" in kinds else (False,)
        by_kind["rotation"] = [(Hypothesis(m, turn), still) for m in mirrored for turn in turns[1:]]
    if "crop" in kinds:
        ratio = 1 + _SCALE_STEP / outer_radius
        steps = math.ceil(math.log(1 / SMALLEST_SHARE) / math.log(ratio))
        spacing = _SHIFT_STEP / outer_radius
        by_kind["crop"] = [
            (Hypothesis(scale=scale), _shifts((scale - 1) / 2, spacing))
            for scale in (SMALLEST_SHARE ** (-i / steps) for i in range(1, steps + 1))
        ]
    if "time" in kinds and timeline:
        by_kind["time"] = [(Hypothesis(offset=offset), still) for offset in timeline.offsets()]
    groups = []
    for members in by_kind.values():
        share = (1 - IDENTITY_WEIGHT) / len(by_kind) / sum(len(shifts) for _, shifts in members)
        groups += [Group(frame, shifts, share) for frame, shifts in members]
    return tuple(groups)


def _shifts(limit: float, spacing: float) -> npt.NDArray[np.float64]:
    """Return a square grid of shifts up to a limit, (m, 2), in shares of the frame."""
    count = math.ceil(2 * limit / spacing) + 1
    line = np.linspace(-limit, limit, count) if count > 1 else np.zeros(1)
    return np.stack(np.meshgrid(line, line, indexing="ij"), axis=-1).reshape(-1, 2)


def coefficients(
    noise_hat: torch.Tensor, key: Key | Family, groups: Sequence[Group]
) -> Iterator[tuple[list[Group], npt.NDArray[np.complex128]]]:
    """Coefficients that an image's noise had before, a block of groups at a time.

    Parameters
    ----------
    noise_hat : (C, h, w)
        Of one image as it is.
    key : Key or Family
    groups : sequence of Group

    Yields
    ------
    block : list of Group
    values : (m, channels, n)
        Of the block's hypotheses, group by group, m being the sum of their counts.
    """
    most = max(1, 4 * _BLOCK // max(4, len(key.channels)))
    if moved := [group for group in groups if group.frame.offset is None]:
        yield from _moved_coefficients(noise_hat, key, moved, most)
    late = [(group, group.frame.offset) for group in groups if group.frame.offset is not None]
    for i in range(0, len(late), most):
        read = [extract(offset.undo_in_noise(noise_hat)[None], key) for _, offset in late[i : i + most]]
        yield [group for group, _ in late[i : i + most]], np.concatenate(read)


def _moved_coefficients(
    noise_hat: torch.Tensor, key: Key | Family, groups: Sequence[Group], most: int
) -> Iterator[tuple[list[Group], npt.NDArray[np.complex128]]]:
    """Of images that were turned, mirrored, scaled or moved, about `most` hypotheses at a time."""
    _, height, width = key.latent_shape
    chosen = noise_hat[list(key.channels)].detach().to("cpu").double()
    bins, sides = key_bins(key), np.array([height, width])
    frequencies = np.stack([(bins.rows - height // 2) / height, (bins.columns - width // 2) / width])  # cycles a cell
    home = np.exp(-2j * np.pi * (((sides - 1) / 2) @ frequencies))  # from the centre back to the first cell
    points = np.stack([_matrix(group.frame) @ frequencies for group in groups])
    turned = np.array([group.frame.degrees != 0 for group in groups])
    sampled = np.empty((len(groups), len(key.channels), len(bins)), dtype=np.complex128)
    for member in (~turned, turned):
        if member.any():
            window = _disc(height, width) if member is turned else 1.0
            sampled[member] = _sample(_fine_spectrum(chosen * window), points[member])
    sampled *= home
    for block in _blocks([len(group.shifts) for group in groups], most):
        shifted = [sampled[i] * np.exp(2j * np.pi * ((groups[i].shifts * sides) @ points[i]))[:, None] for i in block]
        yield [groups[i] for i in block], np.concatenate(shifted)


def _blocks(sizes: Sequence[int], most: int) -> Iterator[list[int]]:
    """Yield runs of indices whose sizes sum to at most `most`, or single ones that are larger."""
    block: list[int] = []
    for index, size in enumerate(sizes):
        if block and sum(sizes[i] for i in block) + size > most:
            yield block
            block = []
        block.append(index)
    if block:
        yield block


def undo(image: torch.Tensor, hypothesis: Hypothesis) -> torch.Tensor:
    """Bring images (B, 3, H, W) back to where they were, the edge going on where they show nothing (bicubic)."""
    if hypothesis.offset:
        return hypothesis.offset.undo(image)
    return _moved(image, hypothesis, "border").clamp(-1, 1)


def mask(
    latent_shape: tuple[int, int, int], hypothesis: Hypothesis, visible: torch.Tensor | None = None
) -> torch.Tensor:
    """Say what an image that was brought back shows, per cell of its latent, 1 or 0 and between at the rim: (1, 1, h, w).

    Of a video that began late, per plane too: (1, C, h, w). `visible`, (1, 1, H, W): what it showed before (`visible_area`).
    """
    import torch

    before = torch.ones(1, 1, *latent_shape[1:]) if visible is None else visible
    cells = torch.nn.functional.adaptive_avg_pool2d(before, latent_shape[1:])
    if hypothesis.offset:
        return cells * hypothesis.offset.mask(latent_shape[0])
    return _moved(cells, hypothesis, "zeros").clamp(0, 1)


def _moved(picture: torch.Tensor, hypothesis: Hypothesis, padding: str) -> torch.Tensor:
    import torch

    # torch wants x before y, and the frame to reach from -1 to 1.
    forward = np.linalg.inv(_matrix(hypothesis)).T[::-1, ::-1]
    shift = 2 * np.array(hypothesis.shift)[::-1]
    affine = torch.from_numpy(np.column_stack([forward, shift])).to(picture).expand(len(picture), 2, 3)
    where = torch.nn.functional.affine_grid(affine, list(picture.shape), align_corners=False)
    return torch.nn.functional.grid_sample(picture, where, mode="bicubic", padding_mode=padding, align_corners=False)


def _matrix(frame: Hypothesis) -> npt.NDArray[np.float64]:
    """A^-T of (row, column) positions: mirror, turn, and one over the scale."""
    turn = math.radians(frame.degrees)
    rotation = np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
    return np.asarray(rotation @ np.diag([1.0, -1.0 if frame.mirrored else 1.0]) / frame.scale)


def _disc(height: int, width: int) -> torch.Tensor:
    """Return the largest disc of a latent, 1 inside and fading out at its rim."""
    import torch

    rows = (torch.arange(height) - (height - 1) / 2) / (height / 2)
    columns = (torch.arange(width) - (width - 1) / 2) / (width / 2)
    radius = torch.hypot(rows[:, None], columns[None, :])
    return ((1 + _RIM / 6 - radius) / _RIM).clamp(0, 1).double()


def _fine_spectrum(z: torch.Tensor) -> torch.Tensor:
    """Spectrum of z less its mean, (C, h, w), `_PADDING` times finer, phases from cell (h // 2, w // 2): (2 C, H, W)."""
    import torch

    height, width = z.shape[-2:]
    z = z - z.mean(dim=(-2, -1), keepdim=True)
    padded = torch.zeros(len(z), _PADDING * height, _PADDING * width, dtype=z.dtype)
    padded[:, :height, :width] = z
    padded = padded.roll((-(height // 2), -(width // 2)), dims=(-2, -1))
    spectrum = torch.fft.fftshift(torch.fft.fft2(padded), dim=(-2, -1)) / math.sqrt(height * width)
    return torch.cat([spectrum.real, spectrum.imag])


def _sample(spectrum: torch.Tensor, points: npt.NDArray[np.float64]) -> npt.NDArray[np.complex128]:
    """Sample a fine spectrum at frequencies (g, 2, n) in cycles a cell, phases then from the centre: (g, C, n)."""
    import torch

    height, width = spectrum.shape[-2:]
    # In grid_sample's coordinates -1 and 1 are the centres of the first and the last sample, x before y.
    y = 2 * (height // 2 + points[:, 0] * height) / (height - 1) - 1
    x = 2 * (width // 2 + points[:, 1] * width) / (width - 1) - 1
    grid = torch.from_numpy(np.stack([x, y], axis=-1))[None]
    parts = torch.nn.functional.grid_sample(spectrum[None], grid, mode="bicubic", align_corners=True)[0]
    real, imaginary = parts.transpose(0, 1).unflatten(1, (2, -1)).unbind(1)
    # Phases are taken from cell side // 2; the centre of an even side lies half a cell before it.
    half = np.array([(side // _PADDING + 1) % 2 / 2 for side in (height, width)])
    phases = np.exp(-2j * np.pi * np.einsum("s,gsn->gn", half, points))
    return np.asarray((real.numpy() + 1j * imaginary.numpy()) * phases[:, None])
