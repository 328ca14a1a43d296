"""What a network on top of the noise filters learns from: their inputs and estimates on attacked images, kept on disk.

Each file holds the images of a few seeds, each attacked a few times. A file is written whole or not at all, so a run that
was killed goes on with the next one.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from treering_verify.errors import UsageError
from treering_verify.files import printable, write_atomic
from treering_verify.generation import seeds
from treering_verify.inversion.recovery import InversionOptions, recover_noise
from treering_verify.models.filter_bank import FilterBank
from treering_verify.models.inverter import Inverter, carrying
from treering_verify.training.attack_table import OTHERS
from treering_verify.training.examples import FitOptions, attacked, generated

if TYPE_CHECKING:
    from treering_verify.models import LatentModel
    from treering_verify.training.examples import Examples

SEEDS, VALIDATION_SEEDS = seeds.SEEDS["networks"], seeds.SEEDS["networks-validation"]
CHUNK, COPIES = 8, 3  # images of a file, and how often each is attacked
_MOST_BYTES = 512 << 20  # of files that are kept in memory


@dataclass(frozen=True)
class NoiseExamples:
    """Attacked images, as the noise filters see them.

    Attributes
    ----------
    inputs : (n, C_in, h, w)
        What the filters read, in units of their scale.
    estimate, noise : (n, C, h, w)
        The filters' estimate, and the noise that the images came from.
    """

    inputs: torch.Tensor
    estimate: torch.Tensor
    noise: torch.Tensor

    @property
    def bytes(self) -> int:
        """Memory that they take."""
        return sum(part.numel() * part.element_size() for part in (self.inputs, self.estimate, self.noise))


@dataclass(frozen=True, eq=False)
class _Recording(FilterBank):
    """Filters that keep what they read and what they return."""

    seen: list[tuple[torch.Tensor, torch.Tensor]] = field(default_factory=list)

    def __call__(self, inputs: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
        estimate = super().__call__(inputs, shares)
        self.seen.append((inputs, estimate))
        return estimate


def examples_of(
    model: LatentModel, inverter: Inverter, made: Examples, attacks: Sequence[str], seed: int
) -> NoiseExamples:
    """Attack images in turn, and invert them as suspect images are; all float16, on the processor."""
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
        return NoiseExamples(inputs.half(), estimate.half(), made.noise.cpu().half())


@dataclass(frozen=True, eq=False)
class ExampleStore:
    """The files of examples in a folder.

    Attributes
    ----------
    folder : Path
    identity : str
        Digest of what the examples depend on: a folder with another one is refused.
    """

    folder: Path
    identity: str
    _kept: dict[Path, NoiseExamples] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)

    @property
    def files(self) -> list[Path]:
        """Files to learn from, in the order in which they were made."""
        return sorted(self.folder.glob("examples-*.safetensors"))

    def write(self, name: str, found: Sequence[NoiseExamples], started: float) -> None:
        """Write examples, and since when they were made (`time.monotonic`)."""
        from safetensors.torch import save

        parts = {part: torch.cat([getattr(one, part) for one in found]) for part in ("inputs", "estimate", "noise")}
        facts = {"identity": self.identity, "seconds": str(time.monotonic() - started)}
        write_atomic(self.folder / name, save({part: one.contiguous() for part, one in parts.items()}, facts))

    def read(self, path: Path) -> NoiseExamples:
        """Read a file; as many as fit into half a gigabyte stay in memory."""
        from safetensors.torch import load_file

        if path not in self._kept:
            found = NoiseExamples(**load_file(path))
            if sum(one.bytes for one in self._kept.values()) + found.bytes > _MOST_BYTES:
                self._kept.pop(next(iter(self._kept)), None)
            self._kept[path] = found
        return self._kept[path]

    def seconds(self) -> float:
        """Return how long all files of the folder took to make; UsageError if one belongs to another fit."""
        return sum(float(facts_of(path, self.identity)["seconds"]) for path in self.folder.glob("*-*.safetensors"))


def facts_of(path: Path, identity: str) -> Mapping[str, str]:
    """Return the facts that a file of a training states; UsageError if it belongs to another one."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as opened:
            facts = dict(opened.metadata() or {})
    except (OSError, SafetensorError) as error:
        raise UsageError(f"{printable(str(path))} is damaged: delete {printable(str(path.parent))}") from error
    if facts.get("identity") != identity:
        where = printable(str(path.parent))
        raise UsageError(
            f"{where} is of a training with another model, fit or settings: delete it, or name another --output"
        )
    return facts


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
        number, started = len(store.files), time.monotonic()
        draw = random.Random(options.seed + number)
        first = SEEDS + number * CHUNK
        made = generated(model, replace(options, images=CHUNK, seed=first, batch_size=CHUNK), prompts)
        drawn = [[draw.choice(attacks) for _ in made.images] for _ in range(COPIES)]
        found = [examples_of(model, inverter, made, some, first + copy * CHUNK) for copy, some in enumerate(drawn)]
        store.write(f"examples-{number:05d}.safetensors", found, started)
        yield number + 1


def validation_examples(
    model: LatentModel,
    inverter: Inverter,
    store: ExampleStore,
    options: FitOptions,
    attacks: Mapping[str, Sequence[str]],
    prompts: Sequence[str | None] | None,
) -> dict[str, NoiseExamples]:
    """Return examples of images that are not learned from, by attack: one of each expert's, and some of no expert's kind."""
    judged = [some[len(some) // 2] for some in attacks.values()] + list(OTHERS[::3])
    made: Examples | None = None
    found = {}
    for number, text in enumerate(judged):
        name, started = f"validation-{number:05d}.safetensors", time.monotonic()
        if not (store.folder / name).exists():
            fresh = replace(options, images=CHUNK, seed=VALIDATION_SEEDS, batch_size=CHUNK)
            made = made or generated(model, fresh, prompts)
            store.write(name, [examples_of(model, inverter, made, [text], VALIDATION_SEEDS)], started)
        found[text] = store.read(store.folder / name)
    return found
