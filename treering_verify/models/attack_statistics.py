"""What an image says about the attacks it went through: the statistics that fitted experts are chosen by."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def statistics(image: torch.Tensor, start: torch.Tensor, residual: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
    """Return the numbers by which experts are chosen, (B, S): log energies by octave, mean and deviation of grey.

    Parameters
    ----------
    image, output : (B, 3, H, W)
        x and D(E(x)).
    start, residual : (B, C, h, w)
        E(x) and E(D(E(x))) - E(x).
    """
    import torch

    grey = image.mean(dim=1, keepdim=True)
    misfit = (output - image).mean(dim=1, keepdim=True)
    energies = [
        *_octaves(grey, 4),
        *_octaves(misfit, 4),
        *_octaves(start, 2),
        *_octaves(residual, 2),
        _blocks(grey),
        *((levels.flatten(1).float().mean(dim=1) + 1e-3) for levels in (image > 0.99, image < -0.99)),
    ]
    logs = torch.stack([torch.log(energy + 1e-7) for energy in energies], dim=1)
    flat = grey.flatten(1)
    return torch.cat([logs, flat.mean(dim=1, keepdim=True), flat.std(dim=1, keepdim=True)], dim=1)


def _octaves(signal: torch.Tensor, count: int) -> list[torch.Tensor]:
    """Return the mean square of `count` octaves, the finest first, and of the rest: (B,) each."""
    from torch.nn import functional

    found = []
    for _ in range(count):
        if min(signal.shape[-2:]) < 2:
            break
        coarse = functional.avg_pool2d(signal, 2, ceil_mode=True)
        fine = functional.interpolate(coarse, size=signal.shape[-2:], mode="nearest")
        found.append((signal - fine).square().flatten(1).mean(dim=1))
        signal = coarse
    found += [signal.square().flatten(1).mean(dim=1)] * (count + 1 - len(found))
    return found


def _blocks(grey: torch.Tensor) -> torch.Tensor:
    """Return how much larger differences are across the borders of 8 x 8 blocks, as JPEG has them, than elsewhere: (B,)."""
    import torch

    found = torch.zeros(len(grey), device=grey.device)
    for axis in (-1, -2):
        steps = grey.diff(dim=axis).abs().transpose(axis, -1)
        borders = steps[..., 7::8].flatten(1).mean(dim=1)
        found = found + borders / (steps.flatten(1).mean(dim=1) + 1e-6)
    return found / 2
