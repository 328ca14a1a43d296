"""Stages of the decoder inversion of one expert: three kinds of them, and the choice among them by evidence.

A regression on the latent brings its error down, and for most attacks that brings the evidence up. Tonal attacks are the
exception: what is wrong with the latent is mostly its tone, which a linear map of neighbourhoods undoes at the noise's cost.
There the latent of the attacked image itself is wanted, as forward steps find it, or E(x) as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from treering_verify.inversion.noise import naive
from treering_verify.models import LatentModel
from treering_verify.models.filter_bank import Activity
from treering_verify.models.inverter import decoder_inputs
from treering_verify.training.regression import SHARES, VALIDATION, WORSE, Fit, bank_of, fit_filter, reach
from treering_verify.watermark.embedding import extract, features
from treering_verify.watermark.keys.key import Key

if TYPE_CHECKING:
    import torch

REGRESSION, FORWARD, NONE = "regression", "forward steps", "none"
_JUDGED = 12  # validation images that the kinds are compared on
_WORTH = 0.005  # what a stage explains of what is missing, at least: else it is the last, and takes no step


@dataclass(frozen=True, eq=False)
class Stages:
    """The fitted filters of the decoder inversion's steps, and the latents that these reach on the images of a fit.

    Attributes
    ----------
    kind : str
    filters : list of Fit
    points, residuals : lists of (n, C, h, w)
        Latents z_0 to z_S, and the residuals r(z) at all but the last (at all where there is one stage).
    """

    kind: str
    filters: list[Fit]
    points: list[torch.Tensor]
    residuals: list[torch.Tensor]

    @property
    def growth(self) -> float:
        """Largest ratio of a residual to the start's, over images and points."""
        import torch

        size = torch.stack([residual.flatten(1).norm(dim=1) for residual in self.residuals])
        return float((size / size[0].clamp_min(1e-12)).max())


Residual = Callable[["torch.Tensor", "torch.Tensor"], "torch.Tensor"]


def regressed(
    start: torch.Tensor,
    first: torch.Tensor,
    latents: torch.Tensor,
    count: int,
    kernel: int,
    residual: Residual,
    *,
    activity: Activity | None = None,
) -> Stages:
    """Fit stages to what is missing in the latent, in turn, each at the points that the stages before it reach.

    Parameters
    ----------
    start, first : (n, C, h, w)
        E(x), and the residual there.
    latents : (n, C, h, w)
        The latents that the images were decoded from.
    count, kernel : int
        Stages, and the largest side of their filters.
    residual : callable
        (points, E(x)) -> E(D(points)) - E(x).
    activity : Activity, optional
        Filters differ with it from place to place, and a gate says how much of the steps an image takes. The gate is fitted
        to the first of them, which may then be as long as it likes; other steps never make an image worse.
    """

    def fitted(k: int, inputs: torch.Tensor, point: torch.Tensor) -> Fit:
        led = activity is not None and not k
        return fit_filter(inputs, latents - point, kernel, harmless=not led, own=led, apart=led)

    return _followed(REGRESSION, fitted, start, first, count, residual, activity)


def _followed(
    kind: str,
    stage: Callable[[int, torch.Tensor, torch.Tensor], Fit],
    start: torch.Tensor,
    first: torch.Tensor,
    count: int,
    residual: Residual,
    activity: Activity | None = None,
) -> Stages:
    """Take steps: `stage` returns the filter of step k from its inputs and the point there."""
    filters, points, residuals, ended = list[Fit](), [start], [first], False
    for k in range(count):
        inputs = decoder_inputs(start, points, residuals, activity)
        filters.append(_nothing(filters[-1], inputs) if ended else stage(k, inputs, points[-1]))
        spent = k and filters[-1].explained < _WORTH
        if kind == REGRESSION and not ended and (spent or not filters[-1].share):
            filters[-1], ended = _nothing(filters[-1], inputs), True
        points.append(points[-1] if ended else points[-1] + applied(filters[-1], inputs))
        if k + 1 < count or count == 1:
            residuals.append(residuals[-1] if ended else residual(points[-1], start))
    return Stages(kind, filters, points, residuals)


def chosen(
    model: LatentModel,
    own: Stages,
    latents: torch.Tensor,
    noise: torch.Tensor,
    steps: int,
    residual: Residual,
) -> tuple[Stages, dict[str, float]]:
    """Choose the kind of stages after which naive noise inversion leaves most evidence on validation images.

    Evidence is the p-value of the cosine with the noise that the model started from, on the bins that a key of default shape
    would own. No key takes part. Forward steps are as long as the worst validation image allows, as are those of a
    regression.

    Returns
    -------
    stages : Stages
        On all images.
    log10 : dict
        Mean log10 p by kind.
    """
    rows = [i for i in range(len(noise)) if i % VALIDATION == VALIDATION - 1][:_JUDGED] or list(range(len(noise)))
    nothing = [fit._replace(weights=0 * fit.weights, bias=0 * fit.bias, share=0.0) for fit in own.filters]
    start, first, count = own.points[0], own.residuals[0], len(own.filters)

    def harmless(latent: torch.Tensor) -> bool:
        error, before = ((some - latents[rows]).flatten(1).norm(dim=1) for some in (latent, start[rows]))
        return bool((error <= before * 10 ** (WORSE / 20)).all())

    def ahead(share: float, start: torch.Tensor, first: torch.Tensor) -> Stages:
        filters = [_forward(fit, k, share) for k, fit in enumerate(own.filters)]
        return _followed(FORWARD, lambda k, *_: filters[k], start, first, count, residual)

    ends = {REGRESSION: own.points[-1][rows], NONE: start[rows]}
    for share in SHARES:
        # The first step costs no pass. Where it does harm, so do all.
        if share and not harmless(start[rows] - share * first[rows]):
            continue
        ends[FORWARD] = ahead(share, start[rows], first[rows]).points[-1] if share else start[rows]
        if harmless(ends[FORWARD]):
            break
    log10 = {kind: evidence(model, naive(model, latent, steps=steps), noise[rows]) for kind, latent in ends.items()}
    best = min(log10, key=lambda kind: log10[kind])
    if best == FORWARD:
        return ahead(share, start, first), log10
    if best == NONE:
        return Stages(NONE, nothing, [start] * (count + 1), [first] * max(count, 2)), log10
    return own, log10


def evidence(model: LatentModel, noise_hat: torch.Tensor, noise: torch.Tensor) -> float:
    """Return the mean log10 p of the cosine between noise estimates and the noise, where a key of default shape lies."""
    import numpy as np
    from treering_detectors import cosine_tests

    family = Key.generate(model.latent_shape, seed=0).family  # its numbers are not read
    found, true = (features(extract(some, family), family) for some in (noise_hat, noise))
    return float(np.mean([one.log10_pvalue for one in cosine_tests(found, true)]))


def _forward(fit: Fit, k: int, share: float) -> Fit:
    """Return the filter of a step z - share r(z), in the units of the filter of stage k: minus the newest residual."""
    import torch

    channels, side = fit.weights.shape[0], fit.weights.shape[-1] // 2
    weights, newest = torch.zeros_like(fit.weights), (k + 1) * channels
    for c in range(channels):
        weights[c, newest + c, side, side] = -share * fit.scale[newest + c]
    return fit._replace(weights=weights, bias=torch.zeros_like(fit.bias), side=1, explained=0.0, share=share)


def _nothing(like: Fit, inputs: torch.Tensor) -> Fit:
    """Return a filter of these inputs that takes no step."""
    import torch

    channels, kernel = len(like.bias), reach(inputs.shape[1], like.weights.shape[-1])
    scale = inputs.float().square().mean(dim=(0, 2, 3)).sqrt().clamp_min(1e-6)
    weights = torch.zeros(channels, inputs.shape[1], kernel, kernel)
    return Fit(scale, weights, torch.zeros(channels), 1, 0.0, 0.0, share=0.0)


def applied(fit: Fit, inputs: torch.Tensor) -> torch.Tensor:
    """Return what a filter makes of its inputs, a few images at a time."""
    import torch

    bank = bank_of([fit])
    return torch.cat([bank(one, torch.ones(len(one), 1)) for one in inputs.split(8)])


def facts_of(filters: Sequence[Fit]) -> dict[str, Any]:
    """Return what validation chose for each stage, JSON-ready."""
    return {f"stage {k + 1}": fit.facts() for k, fit in enumerate(filters)}
