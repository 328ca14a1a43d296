"""Linear filters of latent pixels, one for each kind of attack, and the rule that says how much of each is taken.

A network may add to what the filters of the noise estimate.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import torch

    from treering_verify.models.networks.correction import Correction

_FARTHEST = 6.0  # deviations: what no image of the fit came near to pulls no harder than this
_MOST_ACTIVE = 2.5  # deviations of the activity, either way


class Activity(NamedTuple):
    """How much goes on around each cell of a latent, by which filters differ from place to place.

    The activity of a cell is the logarithm of the mean square, over channels and 3 x 3 cells, of what the latent has beside
    its mean over 3 x 3 cells. A codec loses more where there is more of it.

    Attributes
    ----------
    mean, deviation : float
        Over the cells of the latents of a fit.
    """

    mean: float
    deviation: float

    @classmethod
    def of(cls, latents: torch.Tensor) -> Activity:
        """Return the mean and the deviation over latents (n, C, h, w)."""
        found = _activity(latents)
        return cls(float(found.mean()), max(float(found.std()), 1e-3))

    def weighted(self, inputs: torch.Tensor, channels: int) -> torch.Tensor:
        """Return inputs, and the same times the activity of their first channels: (B, K, h, w) -> (B, 2 K, h, w).

        A filter of both is a filter that changes linearly with the activity.
        """
        import torch

        standard = (_activity(inputs[:, :channels]) - self.mean) / self.deviation
        return torch.cat([inputs, standard.clamp(-_MOST_ACTIVE, _MOST_ACTIVE) * inputs], dim=1)


def _activity(latent: torch.Tensor) -> torch.Tensor:
    import torch
    from torch.nn import functional

    def smooth(part: torch.Tensor) -> torch.Tensor:
        return functional.avg_pool2d(functional.pad(part, (1,) * 4, mode="replicate"), 3, 1)

    return torch.log(smooth((latent - smooth(latent)).square().mean(dim=1, keepdim=True)) + 1e-8)


@dataclass(frozen=True, eq=False)
class FilterBank:
    """One linear filter for each of J experts, with bias.

    Attributes
    ----------
    scale : (C_in,) float32
        Size of each input channel; inputs are divided by it.
    weights : (J, C_out, C_in, k, k) float32
    bias : (J, C_out) float32
    """

    scale: torch.Tensor
    weights: torch.Tensor
    bias: torch.Tensor

    def __call__(self, inputs: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
        """Return sum_j shares_j (W_j * inputs + b_j): (B, C_in, h, w), (B, J) -> (B, C_out, h, w), for any h and w.

        Beyond its edges the input is continued by the nearest value.
        """
        from torch.nn import functional

        scale, weights, bias, shares = (
            part.to(inputs.device) for part in (self.scale, self.weights, self.bias, shares)
        )
        experts, channels, _, kernel, _ = weights.shape
        padded = functional.pad(inputs / scale[:, None, None], (kernel // 2,) * 4, mode="replicate")
        parts = functional.conv2d(padded, weights.flatten(0, 1), bias.flatten())
        return (parts.unflatten(1, (experts, channels)) * shares[:, :, None, None, None]).sum(dim=1)


@dataclass(frozen=True, eq=False)
class CorrectedBank(FilterBank):
    """Filters, and a network that adds what they miss.

    Attributes
    ----------
    network : Correction
        It reads the filters' inputs in units of `scale`, and their estimate.
    """

    network: Correction

    def __call__(self, inputs: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
        """Return the filters' estimate and the network's addition: as `FilterBank`."""
        import torch

        estimate = super().__call__(inputs, shares)
        with torch.no_grad():
            addition = self.network.to(inputs.device)(inputs / self.scale.to(inputs.device)[:, None, None], estimate)
        return estimate + torch.as_tensor(addition)


@dataclass(frozen=True, eq=False)
class Chooser:
    """Multinomial logistic regression from `statistics` of an image to the experts' shares.

    Attributes
    ----------
    mean, deviation : (S,) float32
        Mean and deviation of each statistic over the images of the fit.
    weights : (J, S) float32
    bias : (J,) float32
    """

    mean: torch.Tensor
    deviation: torch.Tensor
    weights: torch.Tensor
    bias: torch.Tensor

    def __call__(self, statistics: torch.Tensor) -> torch.Tensor:
        """Return the experts' shares, which sum to 1: (B, S) -> (B, J)."""
        mean, deviation, weights, bias = (
            part.to(statistics.device) for part in (self.mean, self.deviation, self.weights, self.bias)
        )
        standard = ((statistics - mean) / deviation).clamp(-_FARTHEST, _FARTHEST)
        return (standard @ weights.T + bias).softmax(dim=1)
