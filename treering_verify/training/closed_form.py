"""Fit a model's inversion in closed form: linear filters from its own generations, in minutes and without a training loop.

    noise --model--> image --attack--> x;   E(x), residuals, z_1, z_2, points of the noise inversion;   ridge regression

For each kind of attack (`attack_table.EXPERTS`) the model's own images are attacked and inverted stage by stage, and each
stage's filter is the regression of what is still missing on what is known there. A logistic regression learns to tell the
kinds from the image alone. No key is read, so p-values of what the filters estimate stay exact.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from treering_verify.errors import UsageError
from treering_verify.files import printable
from treering_verify.inversion.noise import trajectory
from treering_verify.models import LatentModel, images_only, is_alone
from treering_verify.models.attack_statistics import statistics
from treering_verify.models.filter_bank import Activity, Chooser, FilterBank
from treering_verify.models.inverter import LEAST_BOUND, Inverter, decoder_inputs, noise_inputs, tie_of
from treering_verify.models.precision import ieee
from treering_verify.training.attack_table import ALONE, EXPERTS, UNLIKE, check_table
from treering_verify.training.decoder_stages import Stages, chosen, facts_of, regressed
from treering_verify.training.examples import Examples, FitOptions, Progress, attacked, generated, photographed, too_few
from treering_verify.training.gate import fit_gate, middle, try_steps
from treering_verify.training.memory import Memory, remembering
from treering_verify.training.regression import Fit, bank_of, fit_filter
from treering_verify.version import __version__

if TYPE_CHECKING:
    import torch

    from treering_verify.media.images import ImageSource


def fit(
    model: LatentModel,
    *,
    options: FitOptions | None = None,
    attacks: Mapping[str, Sequence[str]] | None = None,
    prompts: Sequence[str | None] | None = None,
    photographs: Sequence[ImageSource] | None = None,
    keep: Inverter | None = None,
    progress: Progress | None = None,
) -> Inverter:
    """Fit a model's inversion to images that it generates, or an autoencoder's to photographs that it has coded.

    Parameters
    ----------
    model : LatentModel
        A model of images. It is not changed: `models.inverter.attach`, or `load_model(inverter=...)`, lets it carry
        the filters.
    options : FitOptions, optional
    attacks : mapping of str to sequence of str, optional
        Experts by name, with the attacks of each, as `treering attack` takes them, or "clean". `usual_attacks` when left
        out.
    prompts : sequence of str or None, optional
        Images take turns. Classes, or `PROMPTS` where the model has none, when left out.
    photographs : sequence of images, optional
        As `open_image` takes them. An autoencoder alone needs them, and other models generate their images.
    keep : Inverter, optional
        An earlier fit to the same images, in the same sizes: its experts that `attacks` does not name are kept, and so is
        its rule that chooses among them, since that depends on the images and their attacks alone.
    progress : callable, optional
        Called with (what is done, how much of it, out of how much).

    Returns
    -------
    Inverter
        Not saved yet: `Inverter.save`.

    Raises
    ------
    UsageError
        If an option is out of range, an attack does not exist, the model makes videos, photographs are missing or fewer than
        four, or `keep` was fitted to other images or attacks.
    """
    images_only(model, "fitting filters")
    options = options or FitOptions()
    table = {name: tuple(some) for name, some in (usual_attacks(model) if attacks is None else attacks).items()}
    check_table(table)
    if keep is not None:
        check_same(keep, model, options, table)
    started, spent = time.perf_counter(), time.process_time()
    examples = examples_of(model, options, prompts, photographs, progress)
    found = fit_filters(model, examples, options, table, progress)
    if keep is not None:
        found = _merged(keep, found)
    times = {"seconds": time.perf_counter() - started, "processor_seconds": time.process_time() - spent}
    return replace(found, facts={**found.facts, **{name: round(value, 1) for name, value in times.items()}})


def usual_attacks(model: LatentModel) -> dict[str, tuple[str, ...]]:
    """Return the experts that a model is fitted to unless others are named."""
    return ALONE if is_alone(model) else EXPERTS


def check_same(keep: Inverter, model: LatentModel, options: FitOptions, table: Mapping[str, tuple[str, ...]]) -> None:
    """Raise an error unless an earlier fit is of this model, in these sizes, and knows these attacks.

    Raises
    ------
    ModelError
        If it is of another model.
    UsageError
        If it differs otherwise, or has a gate, which depends on all its experts.
    """
    keep.check(model)
    if keep.gate is not None:
        raise UsageError("the fit to keep has a gate, which depends on all its experts: fit all of them again")
    facts = {**keep.facts, "stages": len(keep.stages), "steps": keep.steps, "points": keep.points}
    for name in ("images", "seed", "kernel", "stages", "steps", "points"):
        if facts[name] != getattr(options, name):
            raise UsageError(f"the fit to keep has {name} {facts[name]}, not {getattr(options, name)}: choose the same")
    for name, some in table.items():
        known = keep.facts["attacks"].get(name)
        if known != list(some):
            raise UsageError(
                f"the fit to keep knows no expert {printable(name)} of these attacks: fit all of them again"
            )


def _merged(keep: Inverter, found: Inverter) -> Inverter:
    """Put newly fitted experts into the places of those of the same name."""
    places = [keep.experts.index(name) for name in found.experts]

    def merge(old: FilterBank | None, new: FilterBank | None) -> FilterBank | None:
        if old is None or new is None:
            return old
        weights, bias = old.weights.clone(), old.bias.clone()
        weights[places] = new.weights * (old.scale / new.scale)[:, None, None]
        bias[places] = new.bias
        return FilterBank(old.scale, weights, bias)

    bounds = keep.bounds.clone()
    bounds[places] = found.bounds
    stages = [merge(old, new) for old, new in zip(keep.stages, found.stages, strict=True)]
    return replace(
        keep,
        stages=tuple(bank for bank in stages if bank is not None),
        screen=merge(keep.screen, found.screen),
        noise=merge(keep.noise, found.noise),
        bounds=bounds,
        facts={
            **{name: value for name, value in keep.facts.items() if name != "report"},
            **{name: found.facts[name] for name in ("version", "source")},
            "experts": {**keep.facts["experts"], **found.facts["experts"]},
            "fitted again": list(found.experts),
        },
        digest="",
    )


def examples_of(
    model: LatentModel,
    options: FitOptions,
    prompts: Sequence[str | None] | None,
    photographs: Sequence[ImageSource] | None,
    progress: Progress | None = None,
) -> Examples:
    """Return the images to fit to; UsageError if photographs are missing, or are given to a model that generates."""
    if not is_alone(model):
        if photographs:
            raise UsageError(f"{model.name} generates the images that it is fitted to: leave out the photographs")
        return generated(model, options, prompts, progress)
    if not photographs:
        raise UsageError(f"{model.name} is an autoencoder alone and generates nothing: name a folder of photographs")
    warning = too_few(photographs)
    made = photographed(model, photographs, options.images, options.seed, progress, toned=True)
    return replace(made, warning=warning)


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
    activity = None if examples.noise is not None else Activity.of(examples.latents)
    with torch.inference_mode(), ieee():
        for number, (name, some) in enumerate(table.items()):
            experts.append(_fit_expert(model, examples, options, some, activity))
            if progress:
                progress(f"experts fitted (last: {name})", number + 1, len(table))
        noisy = activity is None
        gate = None if activity is None else _gate_of(model, examples, options, experts, activity)
    banks: list[FilterBank] = [bank_of([one.stages.filters[k] for one in experts]) for k in range(options.stages)]
    return Inverter(
        experts=tuple(table),
        chooser=fit_chooser([one.known.statistics for one in experts]),
        stages=tuple(banks),
        screen=bank_of([one.screen for one in experts if one.screen]) if noisy else None,
        noise=bank_of([one.noise for one in experts if one.noise]) if noisy else None,
        bounds=torch.tensor([one.bound for one in experts]),
        steps=options.steps,
        points=options.points,
        tie=tie_of(model, alone=is_alone(model)),
        facts={
            "model": model.name,
            "version": __version__,
            "images": len(examples.images),
            "source": examples.source,
            **({"warning": examples.warning} if examples.warning else {}),
            "seed": options.seed,
            "kernel": options.kernel,
            "attacks": {name: list(some) for name, some in table.items()},
            "experts": {name: one.facts() for name, one in zip(table, experts, strict=True)},
        },
        gate=gate,
        activity=activity,
    )


_MOST_BOUND = 32.0  # where E inverts D nearly, the start's residual is next to nothing, and ratios say nothing


class _Known(NamedTuple):
    """The statistics of the images after one kind of attack, and what a gate is fitted to, from the middle of the images."""

    statistics: torch.Tensor
    inputs: torch.Tensor  # of the first stage
    missing: torch.Tensor


@dataclass(frozen=True, eq=False)
class _Expert:
    """Filters of one kind of attack, and what is known of its images."""

    stages: Stages
    log10: dict[str, float]  # evidence by kind of stages
    screen: Fit | None
    noise: Fit | None
    known: _Known

    @property
    def bound(self) -> float:
        """How often the start's residual a residual may be: half as much again as in the fit, and never under the usual."""
        return min(max(LEAST_BOUND, 1.5 * self.stages.growth), _MOST_BOUND)

    def facts(self) -> dict[str, Any]:
        """Return the kind of stages, the penalties, and what each filter explains on its validation images."""
        evidence = {kind: round(value, 1) for kind, value in self.log10.items()}
        named = {name: fit.facts() for name, fit in (("screen", self.screen), ("noise", self.noise)) if fit}
        return {"stages": self.stages.kind, "log10 p": evidence, **facts_of(self.stages.filters), **named}


def _fit_expert(
    model: LatentModel, examples: Examples, options: FitOptions, attacks: Sequence[str], activity: Activity | None
) -> _Expert:
    """Attack the images in one way, and fit the filters that they need."""
    import torch

    size = options.batch_size

    def residual(points: torch.Tensor, start: torch.Tensor) -> torch.Tensor:
        return torch.cat([model.encode(model.decode(part)) for part in points.split(size)]) - start

    noise = examples.noise
    start, remainder, described = _encoded(model, examples, options, attacks)
    known = _Known(described, *_of_the_gate(start, remainder, examples.latents))
    latents, count, kernel = examples.latents, options.stages, options.kernel
    stages = regressed(start, remainder, latents, count, kernel, residual, activity=activity)
    if noise is None:
        return _Expert(stages, {}, None, None, known)
    kept = remembering(model, Memory())  # the images that the kinds are judged on are inverted once
    stages, log10 = chosen(kept, stages, examples.latents, noise, options.steps, residual)
    # Drawn to the latent itself, whose spectrum already carries part of the noise.
    inputs = decoder_inputs(start, [start], [remainder])
    screen = fit_filter(inputs, noise, options.kernel, base=_repeated(model, 1, 1))
    read = []
    for latent in stages.points[-1].split(size):
        way = trajectory(kept, latent, steps=options.steps, most=options.points[-1])
        read.append(noise_inputs([way[0], *(way[point] for point in options.points)]))
    # Drawn to the last point, where the naive inversion ends: its inputs are differences that add up to it.
    last = fit_filter(torch.cat(read), noise, options.kernel, base=_repeated(model, 1 + len(options.points), 0))
    return _Expert(stages, log10, screen, last, known)


def _encoded(
    model: LatentModel, examples: Examples, options: FitOptions, attacks: Sequence[str]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Attack the images; return E(x), the residual there, and the statistics."""
    import torch

    found = []
    for first in range(0, len(examples.images), options.batch_size):
        images = examples.images[first : first + options.batch_size]
        image = attacked(images, attacks, options.seed, first, shifted=examples.noise is None)
        start = model.encode(image)
        output = model.decode(start)
        remainder = model.encode(output) - start
        found.append((start, remainder, statistics(image, start, remainder, output)))
    start, remainder, described = (torch.cat(parts) for parts in zip(*found, strict=True))
    return start, remainder, described


def _of_the_gate(
    start: torch.Tensor, remainder: torch.Tensor, latents: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the inputs of the first stage and what is missing there, from the middle of the images."""
    return middle(decoder_inputs(start, [start], [remainder])), middle(latents - start)


_TURNS = 5  # of the other attacks that each image goes through: a gate that saw few of them does harm more often


def _gate_of(
    model: LatentModel, examples: Examples, options: FitOptions, experts: Sequence[_Expert], activity: Activity
) -> Chooser:
    """Fit the gate to the experts' attacks, and to others that no expert is for."""
    known = [one.known for one in experts]
    for turn in range(0, len(UNLIKE), len(UNLIKE) // _TURNS):
        start, remainder, described = _encoded(model, examples, options, UNLIKE[turn:] + UNLIKE[:turn])
        known.append(_Known(described, *_of_the_gate(start, remainder, examples.latents)))
    first = [one.stages.filters[0] for one in experts]
    return fit_gate([try_steps(first, one.inputs, one.missing, one.statistics, activity) for one in known])


def _repeated(model: LatentModel, ones: int, zeros: int) -> torch.Tensor:
    """Return the pointwise filter that adds up so many groups of channels and ignores the rest, (C, (ones + zeros) C)."""
    import torch

    channels = model.latent_shape[0]
    return torch.cat([torch.eye(channels)] * ones + [torch.zeros(channels, channels)] * zeros, dim=1)


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
