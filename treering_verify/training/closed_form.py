"""Fit a model's inversion in closed form: linear filters from its own generations, in minutes and without a training loop.

    noise --model--> image --attack--> x;   E(x), residuals, z_1, z_2, points of the noise inversion;   ridge regression

For each kind of attack (`attack_table.EXPERTS`) the model's own images are attacked and inverted stage by stage, and each
stage's filter is the regression of what is still missing on what is known there. A logistic regression learns to tell the
kinds from the image alone. No key is read, so p-values of what the filters estimate stay exact.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from treering_verify.attacks import parse
from treering_verify.errors import UsageError
from treering_verify.generation.generator import generate
from treering_verify.inversion.noise import DEFAULT_STEPS, trajectory
from treering_verify.media.images import to_tensor
from treering_verify.models import LatentModel, images_only
from treering_verify.models.attack_statistics import statistics
from treering_verify.models.inverter import (
    Chooser,
    FilterBank,
    Inverter,
    decoder_inputs,
    noise_inputs,
    tie_of,
)
from treering_verify.models.precision import ieee
from treering_verify.training.attack_table import CLEAN, EXPERTS, check_table
from treering_verify.training.regression import Fit, bank_of, fit_filter
from treering_verify.version import __version__

if TYPE_CHECKING:
    import torch
    from PIL import Image

SEEDS = 17 << 32  # of the fit's images; a report takes others
GUIDANCE = (1.0, 2.0, 3.0)  # images take turns
PROMPTS = (
    "a photograph of a mountain lake at sunrise",
    "a portrait of an old man, oil painting",
    "a city street at night in the rain",
    "a bowl of fruit on a wooden table",
    "a cat asleep on a sofa",
    "an astronaut on a white horse, digital art",
    "a map of an island, ink on paper",
    "a forest in autumn, aerial view",
    "a red sports car in front of a factory",
    "children playing football on a beach",
    "a plate of pasta, close-up",
    "an abstract pattern of blue and gold",
    "a cottage in the snow",
    "a crowded market in Marrakesh",
    "a still life with a skull and candles",
    "a logo of a fox, flat design",
    None,
)
"""Prompts of models that take prompts, where no others are given; None is no prompt."""

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, eq=False)
class Examples:
    """Images that a model generated, with the latents and the noise that they came from.

    Attributes
    ----------
    images : list of PIL.Image.Image
        As a file holds them, 8 bits a channel.
    latents : (n, C, h, w)
    noise : (n, C, h, w) or None
        None where an autoencoder is fitted alone.
    """

    images: list[Image.Image]
    latents: torch.Tensor
    noise: torch.Tensor | None


@dataclass(frozen=True)
class FitOptions:
    """Sizes of a fit.

    Attributes
    ----------
    images : int
        Images generated; each expert is fitted to all of them.
    generation_steps : int
    kernel : int
        Side of the filters in latent pixels, odd.
    stages : int
        Filtered steps of the decoder inversion.
    steps : int
        Steps of the noise inversion.
    points : tuple of int
        Its points that the noise filter reads, ascending; the last says how many steps are computed.
    batch_size : int
        Images that go through the model together.
    seed : int
        First of the images' seeds.
    """

    images: int = 96
    generation_steps: int = 20
    kernel: int = 5
    stages: int = 3
    steps: int = DEFAULT_STEPS
    points: tuple[int, ...] = (1, 3, 10)
    batch_size: int = 8
    seed: int = SEEDS

    def __post_init__(self) -> None:
        if self.images < 8:
            raise UsageError(f"images is {self.images}: fit to 8 or more")
        if self.kernel < 1 or self.kernel % 2 == 0:
            raise UsageError(f"kernel is {self.kernel}: choose an odd number from 1 upwards")
        if self.stages < 1 or self.batch_size < 1 or self.generation_steps < 1:
            raise UsageError("stages, batch_size and generation_steps must be 1 or more")
        if not self.points or list(self.points) != sorted({k for k in self.points if 1 <= k <= self.steps}):
            raise UsageError(f"points are {self.points}: choose ascending steps from 1 to {self.steps}")


def fit(
    model: LatentModel,
    *,
    options: FitOptions | None = None,
    attacks: Mapping[str, Sequence[str]] = EXPERTS,
    prompts: Sequence[str | None] | None = None,
    progress: Progress | None = None,
) -> Inverter:
    """Fit a model's inversion to images that it generates.

    Parameters
    ----------
    model : LatentModel
        Of images. It is not changed: `models.inverter.attach`, or `load_model(inverter=...)`, lets it carry the filters.
    options : FitOptions, optional
    attacks : mapping of str to sequence of str
        Experts by name, with the attacks of each, as `treering attack` takes them, or "clean".
    prompts : sequence of str or None, optional
        Images take turns. Classes, or `PROMPTS` where the model has none, when left out.
    progress : callable, optional
        Called with (what is done, how much of it, out of how much).

    Returns
    -------
    Inverter
        Not saved yet: `Inverter.save`.

    Raises
    ------
    UsageError
        If an option is out of range, an attack does not exist, or the model makes videos.
    """
    images_only(model, "fitting filters")
    options = options or FitOptions()
    table = {name: tuple(some) for name, some in attacks.items()}
    check_table(table)
    started = time.perf_counter()
    examples = generated(model, options, prompts, progress)
    found = fit_filters(model, examples, options, table, progress)
    return replace(found, facts={**found.facts, "seconds": round(time.perf_counter() - started, 1)})


def generated(
    model: LatentModel,
    options: FitOptions,
    prompts: Sequence[str | None] | None = None,
    progress: Progress | None = None,
) -> Examples:
    """Generate the images of a fit: one seed each, prompts and guidance in turn."""
    import torch

    chosen = list(prompts or model.classes or PROMPTS)
    made: list[Any] = [None] * options.images
    done = 0
    for turn, guidance in enumerate(GUIDANCE):
        rows = range(turn, options.images, len(GUIDANCE))
        several = generate(
            model,
            None,
            seeds=[options.seed + row for row in rows],
            prompts=[chosen[row % len(chosen)] for row in rows],
            steps=options.generation_steps,
            guidance=guidance,
            batch_size=options.batch_size,
        )
        for row, one in zip(rows, several, strict=True):
            made[row], done = one, done + 1
            if progress:
                progress("images generated", done, options.images)
    return Examples(
        [one.image for one in made], torch.stack([one.latent for one in made]), torch.stack([one.noise for one in made])
    )


def fit_filters(
    model: LatentModel,
    examples: Examples,
    options: FitOptions,
    table: Mapping[str, tuple[str, ...]],
    progress: Progress | None = None,
) -> Inverter:
    """Fit every expert's filters to examples, and the rule that chooses among them."""
    import torch

    experts: list[_Expert] = []
    with torch.inference_mode(), ieee():
        for number, (name, some) in enumerate(table.items()):
            experts.append(_fit_expert(model, examples, options, some))
            if progress:
                progress(f"experts fitted (last: {name})", number + 1, len(table))
    noisy = examples.noise is not None
    banks: list[FilterBank] = [bank_of([one.stages[k] for one in experts]) for k in range(options.stages)]
    return Inverter(
        experts=tuple(table),
        chooser=fit_chooser([one.statistics for one in experts]),
        stages=tuple(banks),
        screen=bank_of([one.screen for one in experts if one.screen]) if noisy else None,
        noise=bank_of([one.noise for one in experts if one.noise]) if noisy else None,
        steps=options.steps,
        points=options.points,
        tie=tie_of(model),
        facts={
            "model": model.name,
            "version": __version__,
            "images": len(examples.images),
            "seed": options.seed,
            "kernel": options.kernel,
            "generation_steps": options.generation_steps,
            "attacks": {name: list(some) for name, some in table.items()},
            "experts": {name: one.facts() for name, one in zip(table, experts, strict=True)},
        },
    )


def attacked(images: Sequence[Image.Image], attacks: Sequence[str], seed: int, first: int = 0) -> torch.Tensor:
    """Return images (n, 3, H, W) after attacks that take turns, by the image's number from `first` on."""
    import torch

    parts = []
    for number, image in enumerate(images, first):
        text = attacks[number % len(attacks)]
        parts.append(to_tensor(image if text == CLEAN else parse(text).apply(image, seed=seed + number)))
    return torch.cat(parts)


@dataclass(frozen=True, eq=False)
class _Expert:
    """Filters of one kind of attack, and the statistics of its images."""

    stages: list[Fit]
    screen: Fit | None
    noise: Fit | None
    statistics: torch.Tensor

    def facts(self) -> dict[str, Any]:
        """Return the penalties, and the shares of power that each filter explains on its validation images."""
        named = {f"stage {k + 1}": fit for k, fit in enumerate(self.stages)} | {
            "screen": self.screen,
            "noise": self.noise,
        }
        return {
            name: {"kernel": fit.side, "ridge": fit.ridge, "explained": round(fit.explained, 4)}
            for name, fit in named.items()
            if fit
        }


def _fit_expert(model: LatentModel, examples: Examples, options: FitOptions, attacks: Sequence[str]) -> _Expert:
    """Fit the stages in turn, each at the points that the stages before it reach."""
    import torch

    size, count = options.batch_size, len(examples.images)
    batches = [slice(first, first + size) for first in range(0, count, size)]

    def residual(points: torch.Tensor, start: torch.Tensor) -> torch.Tensor:
        return torch.cat([model.encode(model.decode(points[part])) - start[part] for part in batches])

    encoded, first, described = [], [], []
    for part in batches:
        image = attacked(examples.images[part], attacks, options.seed, part.start)
        start = model.encode(image)
        output = model.decode(start)
        encoded.append(start)
        first.append(model.encode(output) - start)
        described.append(statistics(image, start, first[-1], output))
    start, points, residuals = torch.cat(encoded), [torch.cat(encoded)], [torch.cat(first)]
    screen = None
    if examples.noise is not None:
        # Drawn to the latent itself, whose spectrum already carries part of the noise.
        inputs, base = decoder_inputs(start, points, residuals), _repeated(model, 1, 1)
        screen = fit_filter(inputs, examples.noise, options.kernel, base=base)
    stages = []
    for k in range(options.stages):
        inputs = decoder_inputs(start, points, residuals)
        stages.append(fit_filter(inputs, examples.latents - points[-1], options.kernel))
        points.append(points[-1] + _apply(stages[-1], inputs))
        if k + 1 < options.stages:
            residuals.append(residual(points[-1], start))
    noise = None
    if examples.noise is not None:
        read = []
        for part in batches:
            way = trajectory(model, points[-1][part], steps=options.steps, most=options.points[-1])
            read.append(noise_inputs([way[0], *(way[point] for point in options.points)]))
        # Drawn to the last point, where the naive inversion ends: its inputs are differences that add up to it.
        base = _repeated(model, 1 + len(options.points), 0)
        noise = fit_filter(torch.cat(read), examples.noise, options.kernel, base=base)
    return _Expert(stages, screen, noise, torch.cat(described))


def _repeated(model: LatentModel, ones: int, zeros: int) -> torch.Tensor:
    """Return the pointwise filter that adds up so many groups of channels and ignores the rest, (C, (ones + zeros) C)."""
    import torch

    channels = model.latent_shape[0]
    return torch.cat([torch.eye(channels)] * ones + [torch.zeros(channels, channels)] * zeros, dim=1)


def _apply(fit: Fit, inputs: torch.Tensor) -> torch.Tensor:
    import torch

    bank = bank_of([fit])
    return torch.cat([bank(one, torch.ones(len(one), 1)) for one in inputs.split(8)])


def fit_chooser(groups: Sequence[torch.Tensor]) -> Chooser:
    """Fit the multinomial logistic regression that tells experts apart by their images' statistics, (n, S) each."""
    import numpy as np
    import torch
    from sklearn.linear_model import LogisticRegression

    values = torch.cat(list(groups)).double()
    mean, deviation = values.mean(dim=0), values.std(dim=0).clamp_min(1e-6)
    weights, bias = torch.zeros(len(groups), values.shape[1]), torch.zeros(len(groups))
    if len(groups) > 1:
        labels = np.repeat(np.arange(len(groups)), [len(group) for group in groups])
        rule = LogisticRegression(max_iter=2000).fit(((values - mean) / deviation).numpy(), labels)
        slopes, offsets = torch.from_numpy(rule.coef_).float(), torch.from_numpy(rule.intercept_).float()
        if len(groups) == 2:  # one row says how much more likely the second is
            slopes, offsets = torch.cat([-slopes / 2, slopes / 2]), torch.cat([-offsets / 2, offsets / 2])
        weights, bias = slopes, offsets
    return Chooser(mean.float(), deviation.float(), weights, bias)
