"""Networks that restore what an over-exposed image has lost, and what they read."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from treering_verify.models import inverter

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from treering_verify.models.networks.correction import Correction
    from treering_verify.models.protocol import LatentModel

POINTS = (1, 3, 10)
"""Points of a noise inversion of ten steps that the noise network reads."""
STEPS = 10
PARTS = ("restorer_latent", "restorer_noise")
"""Folders of the networks beside a model."""


@dataclass(frozen=True, eq=False)
class Restorer:
    """Two networks for images that were brightened until parts of them became white.

    No key has a part in their training or their inputs, so p-values stay exact (docs/exact-test.md).

    Attributes
    ----------
    latent : Correction
        Predicts what is missing in E(image / factor) for the clean image's latent, from `latent_inputs`.
    noise : Correction
        Predicts what is missing in the model's noise estimate of the completed image, from `noise_inputs`.
    digest : str
        Digest of the weights, 16 hexadecimal digits, by which records name them.
    """

    latent: Correction
    noise: Correction
    digest: str

    @classmethod
    def of(cls, latent: Correction, noise: Correction) -> Restorer:
        """Return a restorer of two networks, frozen."""
        from treering_verify.models.networks.reading import frozen

        digest = hashlib.sha256()
        for network in (latent, noise):
            for name, part in sorted(network.state_dict().items()):
                digest.update(name.encode() + part.float().cpu().numpy().tobytes())
        return cls(frozen(latent), frozen(noise), digest.hexdigest()[:16])

    @classmethod
    def load(cls, folder: Path) -> Restorer:
        """Read both networks of a model's folder; errors as those of `Network.load`."""
        from treering_verify.models.networks.correction import Correction

        latent, noise = (Correction.load(folder / part).float() for part in PARTS)
        return cls.of(latent, noise)

    def save(self, folder: Path) -> None:
        """Write both networks, float16, into a model's folder."""
        import copy

        for part, network in zip(PARTS, (self.latent, self.noise), strict=True):
            copy.deepcopy(network).half().save(folder / part)


def restorer_of(model: LatentModel) -> Restorer | None:
    """Return the restorer that a model carries, or None."""
    return getattr(model, "restorer", None)


def latent_inputs(filled: torch.Tensor, clipped: torch.Tensor, factors: torch.Tensor, cell: int) -> torch.Tensor:
    """Return what the latent network reads, (B, 6 cell^2 + 2, h, w).

    Parameters
    ----------
    filled : (B, 3, H, W)
        The image divided by its factor, in [-1, 1], with the least possible value where it is clipped.
    clipped : (B, 3, H, W)
        1 where a value is clipped, 0 elsewhere.
    factors : (B,)
    cell : int
        Pixels on a side of a latent cell.
    """
    import torch
    from torch.nn import functional

    known = [functional.pixel_unshuffle(part.float(), cell) for part in (filled, clipped)]
    return torch.cat([*known, _told(factors, known[0])], dim=1)


def noise_inputs(points: Sequence[torch.Tensor], known: torch.Tensor) -> torch.Tensor:
    """Return what the noise network reads, (B, (1 + len(POINTS)) C + 6 cell^2 + 2, h, w).

    Parameters
    ----------
    points : sequence of STEPS + 1 tensors (B, C, h, w)
        Points of the noise inversion of the completed image.
    known : (B, 6 cell^2 + 2, h, w)
        What `latent_inputs` returned.
    """
    import torch

    return torch.cat([inverter.noise_inputs([points[0], *(points[k] for k in POINTS)]), known], dim=1)


def mirrored(read: torch.Tensor, cell: int = 4) -> torch.Tensor:
    """Return what a network reads of the mirrored image, (B, K, h, w): the pixels of a cell change places too.

    Last come two numbers of the image, and before them the pixels of six colours, as `latent_inputs` has them.
    """
    import torch

    others, pixels, told = read.split([read.shape[1] - 6 * cell**2 - 2, 6 * cell**2, 2], dim=1)
    inside = pixels.unflatten(1, (6, cell, cell)).flip(3).flatten(1, 3)
    return torch.cat([others, inside, told], dim=1).flip(-1)


def _told(factors: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    import torch

    maps = torch.stack([factors.log(), 1 / factors], dim=1).to(like)
    return maps[:, :, None, None].expand(-1, -1, *like.shape[-2:])
