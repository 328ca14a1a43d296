"""The gate of a decoder inversion: how much of each expert's step an image takes, or that it takes none.

A rule that names the attack an image went through does harm where it is wrong, and on images unlike those of the fit it is
often wrong. The gate is fitted to what counts, the error that is left: with e = z - E(x) and the experts' steps d_j,

    |e - sum_j s_j d_j|^2 / |e|^2 = 1 - 2 s.c + s.G s,    c_j = <d_j, e> / |e|^2,    G_jk = <d_j, d_k> / |e|^2

for each image, by steps of filters that this image had no part in. A step towards nothing is among the choices.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from treering_verify.models.filter_bank import Activity, Chooser
from treering_verify.training.regression import Fit, bank_of

if TYPE_CHECKING:
    import torch

SIDE = 32  # latent cells of a side that take part, from the middle
_DECAY = 1e-2  # of the rule's squared weights
_HARM, _MARGIN = 100.0, 0.1  # what a squared dB above the start counts, from so many dB below it
_LEAST = 1e-4  # of an error, relative to its start


class Tried(NamedTuple):
    """What the experts' steps change in the latents of images after one kind of attack, as sums that the gate needs.

    Attributes
    ----------
    statistics : (n, S)
    cross : (n, J)
    gram : (n, J, J)
    """

    statistics: torch.Tensor
    cross: torch.Tensor
    gram: torch.Tensor


def try_steps(
    filters: Sequence[Fit], inputs: torch.Tensor, missing: torch.Tensor, statistics: torch.Tensor, activity: Activity
) -> Tried:
    """Return what the experts' steps do to images, each by the filters that were fitted to the other three quarters.

    Parameters
    ----------
    filters : sequence of J fits
        Each with `Fit.apart`.
    inputs : (n, C_in, h, w)
        Inputs of the filters, without the activity.
    missing : (n, C, h, w)
        z - E(x).
    statistics : (n, S)
    activity : Activity
        That of the filters.
    """
    import torch

    quarters = len(filters[0].apart)
    cross, gram = [], []
    for i in range(len(inputs)):
        own = [fit._replace(weights=fit.apart[i % quarters][0], bias=fit.apart[i % quarters][1]) for fit in filters]
        read = activity.weighted(inputs[i : i + 1], missing.shape[1])
        steps = torch.cat([bank_of([fit])(read, torch.ones(1, 1)) for fit in own]).flatten(1).double()
        error = missing[i].flatten().double()
        power = error.square().sum().clamp_min(1e-30)
        cross.append(steps @ error / power)
        gram.append(steps @ steps.T / power)
    return Tried(statistics, torch.stack(cross).float(), torch.stack(gram).float())


def middle(latents: torch.Tensor) -> torch.Tensor:
    """Return at most SIDE x SIDE cells from the middle of latents (n, C, h, w)."""
    top, left = (max(0, (side - SIDE) // 2) for side in latents.shape[-2:])
    return latents[..., top : top + SIDE, left : left + SIDE].clone()


def change(tried: Tried, shares: torch.Tensor) -> torch.Tensor:
    """Return by how many dB the error of each image grows, (n,), where it takes these shares (n, J) of the steps."""
    import torch

    left = 1 - 2 * (shares * tried.cross).sum(dim=1) + torch.einsum("nj,njk,nk->n", shares, tried.gram, shares)
    return 10 * torch.log10(left.clamp_min(_LEAST))


def fit_gate(groups: Sequence[Tried]) -> Chooser:
    """Return the rule, from statistics to J + 1 shares, that leaves least error in dB, and seldom more than there was.

    Multinomial logistic, as the chooser, with an outcome more: no step.
    """
    import torch

    with torch.inference_mode(False), torch.enable_grad():
        whole = Tried(*(torch.cat(parts).clone() for parts in zip(*groups, strict=True)))
        mean, deviation = whole.statistics.mean(dim=0), whole.statistics.std(dim=0).clamp_min(1e-6)
        experts = whole.cross.shape[1]
        weights = torch.zeros(experts + 1, len(mean), requires_grad=True)
        bias = torch.zeros(experts + 1, requires_grad=True)
        descent = torch.optim.LBFGS([weights, bias], max_iter=200, line_search_fn="strong_wolfe")

        def loss() -> torch.Tensor:
            descent.zero_grad()
            shares = Chooser(mean, deviation, weights, bias)(whole.statistics)[:, :-1]
            grown = change(whole, shares)
            harm = (grown + _MARGIN).clamp_min(0).square().mean()
            value = grown.mean() + _HARM * harm + _DECAY * weights.square().sum()
            value.backward()
            return value

        descent.step(loss)
        return Chooser(mean, deviation, weights.detach(), bias.detach())
