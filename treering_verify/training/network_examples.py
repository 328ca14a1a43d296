"""What a network on top of the noise filters learns from: their inputs and estimates on attacked images, kept on disk.

Each file holds the images of a few seeds, each attacked a few times. A file is written whole or not at all, so a run that
was killed goes on with the next one.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from typing import TYPE_CHECKING

import torch

from treering_verify.errors import UsageError
from treering_verify.generation import seeds
from treering_verify.inversion.recovery import InversionOptions, recover_noise
from treering_verify.models.filter_bank import FilterBank
from treering_verify.models.inverter import Inverter, carrying
from treering_verify.training.attack_table import OTHERS
from treering_verify.training.example_store import ExampleStore
from treering_verify.training.examples import FitOptions, attacked, generated

if TYPE_CHECKING:
    from treering_verify.models import LatentModel
    from treering_verify.training.example_store import Tensors
    from treering_verify.training.examples import Examples

SEEDS, VALIDATION_SEEDS = seeds.SEEDS["networks"], seeds.SEEDS["networks-validation"]
CHUNK, COPIES = 8, 3  # images of a file, and how often each is attacked
EXAMPLES = "examples"  # begins the names of the files to learn from


@dataclass(frozen=True, eq=False)
class _Recording(FilterBank):
    """Filters that keep what they read and what they return."""

    seen: list[tuple[torch.Tensor, torch.Tensor]] = field(default_factory=list)

    def __call__(self, inputs: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
        estimate = super().__call__(inputs, shares)
        self.seen.append((inputs, estimate))
        return estimate


def examples_of(model: LatentModel, inverter: Inverter, made: Examples, attacks: Sequence[str], seed: int) -> Tensors:
    """Attack images in turn, and invert them as suspect images are.

    Returns
    -------
    inputs : (n, C_in, h, w)
        What the filters read, in units of their scale; float16, on the processor, as the others.
    estimate, noise : (n, C, h, w)
        The filters' estimate, and the noise that the images came from.
    """
    bank = inverter.noise
    if bank is None or made.noise is None:
        raise UsageError(
            "an autoencoder alone estimates no noise: a network on top needs a model that generates images"
        )
    recording = _Recording(bank.scale, bank.weights, bank.bias)
    carrier = carrying(model, replace(inverter, noise=recording))
    inversion = InversionOptions(method="filtered", noise_method="filtered", steps=inverter.steps)
    with torch.inference_mode():
        recover_noise(carrier, attacked(made.images, attacks, seed), inversion)
        inputs, estimate = (torch.cat(parts).cpu() for parts in zip(*recording.seen, strict=True))
        inputs = inputs / bank.scale.cpu()[:, None, None]
        return {"inputs": inputs.half(), "estimate": estimate.half(), "noise": made.noise.cpu().half()}


def make_examples(
    model: LatentModel,
    inverter: Inverter,
    store: ExampleStore,
    options: FitOptions,
    attacks: Sequence[str],
    prompts: Sequence[str | None] | None,
) -> Iterator[int]:
    """Make one file after another, for as long as the caller asks for more; yield how many there are."""
    while True:
        number = len(store.files(EXAMPLES))
        draw = random.Random(options.seed + number)
        drawn = [[draw.choice(attacks) for _ in range(CHUNK)] for _ in range(COPIES)]

        def compute(first: int = SEEDS + number * CHUNK, drawn: list[list[str]] = drawn) -> Tensors:
            made = generated(model, replace(options, images=CHUNK, seed=first, batch_size=CHUNK), prompts)
            found = [examples_of(model, inverter, made, some, first + copy * CHUNK) for copy, some in enumerate(drawn)]
            return {name: torch.cat([one[name] for one in found]) for name in found[0]}

        store.get(f"{EXAMPLES}-{number:05d}", compute)
        yield number + 1


def validation_examples(
    model: LatentModel,
    inverter: Inverter,
    store: ExampleStore,
    options: FitOptions,
    attacks: Mapping[str, Sequence[str]],
    prompts: Sequence[str | None] | None,
) -> dict[str, Tensors]:
    """Return examples of images that are not learned from, by attack: one of each expert's, and some of no expert's kind."""
    judged = [some[len(some) // 2] for some in attacks.values()] + list(OTHERS[::3])

    @cache
    def made() -> Examples:
        return generated(model, replace(options, images=CHUNK, seed=VALIDATION_SEEDS, batch_size=CHUNK), prompts)

    def compute(text: str) -> Tensors:
        return examples_of(model, inverter, made(), [text], VALIDATION_SEEDS)

    return {text: store.get(f"validation-{i:05d}", partial(compute, text)) for i, text in enumerate(judged)}
