"""Forgery and removal of a key by an attacker with N of its marked images, and how many images a key may safely mark."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from treering_detectors import Rate

from treering_verify.attacks.averaging import add_trace, estimate_trace, subtract_trace
from treering_verify.attacks.imprinting import erase, estimate_noise, imprint, reprompt
from treering_verify.benchmark.catalogue import BENCHMARKS
from treering_verify.benchmark.harness.cache import cached
from treering_verify.benchmark.harness.keyed_images import evidence_of_images, generate_each
from treering_verify.benchmark.harness.scope import SEEDS, Scope
from treering_verify.benchmark.harness.unmarked_images import UnmarkedImage, draw_unmarked
from treering_verify.benchmark.robustness.forgery_tables import figure, kinds_table, safe_table, success_table
from treering_verify.generation.generator import generate
from treering_verify.media.conversion import to_pil, to_tensor
from treering_verify.models import LatentModel
from treering_verify.models.weights import fingerprint
from treering_verify.report.findings import Findings
from treering_verify.version import __version__
from treering_verify.watermark.keys.key import Key

if TYPE_CHECKING:
    import torch
    from PIL import Image

    Arrays = dict[str, NDArray[Any]]

ALPHA = 1e-6
_QUICK = ("imprint", "add trace", "subtract trace", "subtract trace, a key per image")
_COUNTS = (0, 1, 2, 5, 10, 20, 50, 100)
_PATTERNS = ("random", "rings")
_KEYS = 10
_BATCH = 16
_FIRST = SEEDS["forgery"]
_TARGETS, _PLAIN, _FOREIGN, _MIXED = (
    1 << 20,
    2 << 20,
    3 << 20,
    4 << 20,
)  # where each kind lies in the range of seeds


def measure(model: LatentModel, scope: Scope) -> Findings:
    """Attack keys with increasing numbers of their marked images, and test the results under the key."""
    trials = scope.images(4, 100)
    patterns = _PATTERNS[:1] if scope.quick else _PATTERNS
    counts = _COUNTS[:3] if scope.quick else _COUNTS
    keys = min(1 if scope.quick else _KEYS, trials)
    attacks = {name: forges for name, forges in FORGES.items() if not scope.quick or name in _QUICK}
    shares = [len(part) for part in np.array_split(np.arange(trials), keys)]
    weights, attacker = fingerprint(model), Attacker(model, max(counts))
    gathered: dict[tuple[str, str, int], list[Arrays]] = {}

    def planned() -> Iterator[tuple[tuple[str, str, int], Callable[[], Arrays]]]:
        for pattern in patterns:
            for k, share in enumerate(shares):
                attacked = AttackedKey(attacker, pattern, k, share)
                for attack in attacks:
                    for count in counts:
                        yield (pattern, attack, count), partial(_measured, scope, weights, attacked, attack, count)

    scope.help_with("Attacks", lambda: (work for _, work in planned()))
    steps = deque(planned())
    with scope.progress("Attacks", len(steps)) as advance:
        while steps:
            line, work = steps.popleft()
            gathered.setdefault(line, []).append(work())
            advance()
    found = {line: {n: np.concatenate([p[n] for p in parts]) for n in parts[0]} for line, parts in gathered.items()}
    succeeded = {line: Rate(int(_succeeded(line[1], arrays).sum()), trials) for line, arrays in found.items()}
    medians = {
        line: (float(np.median(arrays["log10_pvalue"])), float(np.median(arrays["psnr"])))
        for line, arrays in found.items()
    }
    return Findings(
        "forgery",
        BENCHMARKS["forgery"].question,
        tuple(_rows(found)),
        (
            safe_table(succeeded, patterns, attacks),
            success_table(succeeded, medians, attacks),
            kinds_table(_by_kind(found)),
        ),
        (figure(succeeded, patterns, tuple(attacks)),),
        seeds=f"{_FIRST} onwards; key i from seed {_FIRST} + i",
        count=f"{trials} images per line, under {keys} keys",
    )


@dataclass(frozen=True, eq=False)
class Attacker:
    """An attacker who has the model, marked images of a key, and any number of unmarked images; the same for every key.

    Attributes
    ----------
    model : LatentModel
    most : int
        Largest number of marked images of a key that they have.
    """

    model: LatentModel
    most: int
    _mixed: dict[str, list[Image.Image]] = field(default_factory=dict, repr=False)

    @cached_property
    def plain(self) -> list[Image.Image]:
        """Unmarked images: half for means, half in place of marked ones where the attacker has none."""
        return _generated(self.model, None, _PLAIN, 2 * self.most)

    @cached_property
    def plain_noise(self) -> torch.Tensor:
        """Noise estimates of the unmarked images."""
        return _recovered(self.model, self.plain)

    def mixed(self, pattern: str) -> list[Image.Image]:
        """Return marked images that each have their own key."""
        if pattern not in self._mixed:
            seeds = range(_FIRST + _MIXED, _FIRST + _MIXED + self.most)
            keys = [Key.generate(self.model.latent_shape, pattern=pattern, seed=seed) for seed in seeds]
            self._mixed[pattern] = generate_each(self.model, keys, seeds, lambda: None)
        return self._mixed[pattern]


@dataclass(frozen=True, eq=False)
class AttackedKey:
    """A key that is attacked: its marked images that an attacker may have, and the images that are attacked.

    Attributes
    ----------
    attacker : Attacker
    pattern : str
    number : int
        Number of the key among those of the pattern.
    trials : int
        Number of images that are attacked.
    """

    attacker: Attacker
    pattern: str
    number: int
    trials: int

    @property
    def model(self) -> LatentModel:
        """The model that generated the images."""
        return self.attacker.model

    @property
    def most(self) -> int:
        """Number of marked images that leaked."""
        return self.attacker.most

    @cached_property
    def key(self) -> Key:
        """The key that is attacked."""
        return Key.generate(self.model.latent_shape, pattern=self.pattern, seed=_FIRST + self.number)

    @cached_property
    def marked(self) -> list[Image.Image]:
        """The marked images that leaked."""
        return self._made(0, self.most)

    @cached_property
    def targets(self) -> list[Image.Image]:
        """Other marked images, from which the mark is to be removed."""
        return self._made(_TARGETS, self.trials)

    @cached_property
    def unmarked(self) -> list[UnmarkedImage]:
        """Photographs and other unmarked images, into which the key is to be forged."""
        seed = _FIRST + _FOREIGN + (self.number << 12)
        return list(draw_unmarked(self.model, self.trials, seed, attacked=False))

    @property
    def foreign(self) -> list[Image.Image]:
        """The unmarked images without their kinds."""
        return [one.image for one in self.unmarked]

    @cached_property
    def marked_noise(self) -> torch.Tensor:
        """Noise estimates of the leaked images."""
        return _recovered(self.model, self.marked)

    @cached_property
    def target_noise(self) -> torch.Tensor:
        """Noise estimates of the targets."""
        return _recovered(self.model, self.targets)

    @cached_property
    def foreign_noise(self) -> torch.Tensor:
        """Noise estimates of the foreign images."""
        return _recovered(self.model, self.foreign)

    def sample(self, trial: int, count: int) -> list[int]:
        """Return the numbers of the leaked images that an attacker with `count` of them has; they differ between trials."""
        return [(trial * count + i) % self.most for i in range(count)]

    def carrier(self, trial: int, count: int) -> torch.Tensor:
        """Return the carrier of the key, as `imprinting.average_carrier` does; with no marked images, from an unmarked one.

        From one image it is the noise itself; from several the mean of unmarked noise is subtracted.
        """
        plain = self.attacker.plain_noise
        if count == 0:
            return plain[self.most + trial % self.most]
        mean = self.marked_noise[self.sample(trial, count)].mean(dim=0)
        return mean - plain[: self.most].mean(dim=0) if count > 1 else mean

    def carriers(self, count: int) -> torch.Tensor:
        """Return the carrier of each trial, (trials, C, h, w)."""
        import torch

        return torch.stack([self.carrier(trial, count) for trial in range(self.trials)])

    def trace(self, trial: int, count: int, *, mixed: bool = False) -> NDArray[np.float64]:
        """Return the trace of the key in pixels, from unmarked images if there are no others; `mixed`: one key per image."""
        plain = self.attacker.plain
        marked = self.attacker.mixed(self.pattern) if mixed and count else self.marked
        leaked = [marked[i] for i in self.sample(trial, count)] or plain[self.most :]
        return estimate_trace(leaked, plain[: self.most])

    def _made(self, place: int, count: int) -> list[Image.Image]:
        return _generated(self.model, self.key, place + (self.number << 12), count)


def _imprint(attacked: AttackedKey, count: int, *, redraw: bool) -> tuple[list[Image.Image], list[Image.Image]]:
    pixels = _pixels(attacked.foreign)
    made = imprint(pixels, attacked.model, attacked.carriers(count), redraw=redraw, noise=attacked.foreign_noise)
    return attacked.foreign, [to_pil(one) for one in made]


def _reprompt(attacked: AttackedKey, count: int) -> tuple[list[Image.Image], list[Image.Image]]:
    classes = attacked.model.classes or (None,)
    prompts = [classes[trial % len(classes)] for trial in range(attacked.trials)]
    seeds = [_FIRST + _FOREIGN + trial for trial in range(attacked.trials)]
    return attacked.foreign, [to_pil(one) for one in reprompt(attacked.model, attacked.carriers(count), prompts, seeds)]


def _add_trace(attacked: AttackedKey, count: int, *, strength: float) -> tuple[list[Image.Image], list[Image.Image]]:
    pairs = enumerate(attacked.foreign)
    return attacked.foreign, [add_trace(image, attacked.trace(i, count), strength) for i, image in pairs]


def _subtract_trace(attacked: AttackedKey, count: int, *, mixed: bool) -> tuple[list[Image.Image], list[Image.Image]]:
    pairs = enumerate(attacked.targets)
    return attacked.targets, [subtract_trace(image, attacked.trace(i, count, mixed=mixed)) for i, image in pairs]


def _erase(attacked: AttackedKey, count: int) -> tuple[list[Image.Image], list[Image.Image]]:
    seeds = [_FIRST + _TARGETS + trial for trial in range(attacked.trials)]
    pixels = _pixels(attacked.targets)
    made = erase(pixels, attacked.model, attacked.carriers(count), seeds, noise=attacked.target_noise)
    return attacked.targets, [to_pil(one) for one in made]


ATTACKS: dict[str, Callable[[AttackedKey, int], tuple[list[Image.Image], list[Image.Image]]]] = {
    "imprint": partial(_imprint, redraw=False),
    "imprint, redrawn": partial(_imprint, redraw=True),
    "reprompt": _reprompt,
    "add trace": partial(_add_trace, strength=1.0),
    "add trace, doubled": partial(_add_trace, strength=2.0),
    "subtract trace": partial(_subtract_trace, mixed=False),
    "subtract trace, a key per image": partial(_subtract_trace, mixed=True),
    "erase": _erase,
}
"""(attacked key, number of marked images) -> the images before and after, one for each trial."""

FORGES = {name: not name.startswith(("subtract trace", "erase")) for name in ATTACKS}
"""Whether an attack succeeds if the key is detected (forgery), or if it is not (removal)."""

_PUT = ("imprint", "imprint, redrawn", "add trace", "add trace, doubled")
"""Forgeries that begin with a foreign image."""


def _measured(scope: Scope, weights: str, attacked: AttackedKey, attack: str, count: int) -> Arrays:
    def work() -> Arrays:
        before, after = ATTACKS[attack](attacked, count)
        found = list(evidence_of_images(attacked.model, after, [attacked.key] * len(after)))
        return {
            "log10_pvalue": np.array([log10 for log10, _ in found]),
            "statistic": np.array([statistic for _, statistic in found]),
            "psnr": np.array([_psnr(a, b) for a, b in zip(before, after, strict=True)]),
            "image": np.array([one.kind for one in attacked.unmarked] if attack in _PUT else [""] * attacked.trials),
        }

    facts = (weights, __version__, _FIRST, _PLAIN, attacked.pattern, attacked.number, attacked.trials, attacked.most)
    return cached(scope.folder, f"forgery-{attacked.pattern}", (*facts, attack, count), work)


def _succeeded(attack: str, arrays: Arrays) -> NDArray[np.bool_]:
    return np.asarray((arrays["log10_pvalue"] <= np.log10(ALPHA)) == FORGES[attack])


def _by_kind(found: dict[tuple[str, str, int], Arrays]) -> dict[tuple[str, str, int, str], Rate]:
    """Return the success of forgeries on each kind of foreign image."""
    return {
        (*line, str(kind)): Rate(int(_succeeded(line[1], arrays)[chosen].sum()), int(chosen.sum()))
        for line, arrays in found.items()
        if line[1] in _PUT
        for kind in np.unique(arrays["image"])
        for chosen in [arrays["image"] == kind]
    }


def _recovered(model: LatentModel, images: Sequence[Image.Image]) -> torch.Tensor:
    import torch

    return torch.cat([estimate_noise(model, part) for part in _pixels(images).split(_BATCH)])


def _generated(model: LatentModel, key: Key | None, place: int, count: int) -> list[Image.Image]:
    first = _FIRST + place
    return [made.image for made in generate(model, key, seeds=range(first, first + count))]


def _pixels(images: Sequence[Image.Image]) -> torch.Tensor:
    import torch

    return torch.cat([to_tensor(image) for image in images])


def _psnr(before: Image.Image, after: Image.Image) -> float:
    """Return the peak signal-to-noise ratio in dB; 100 for equal images."""
    error = float(np.mean((np.asarray(before, dtype=np.float64) - np.asarray(after, dtype=np.float64)) ** 2))
    return 10 * float(np.log10(255**2 / error)) if error else 100.0


def _rows(found: dict[tuple[str, str, int], Arrays]) -> list[dict[str, Any]]:
    return [
        {
            "pattern": pattern,
            "attack": attack,
            "forges": FORGES[attack],
            "marked_images": count,
            "trial": i,
            **{name: values[i].item() for name, values in arrays.items()},
        }
        for (pattern, attack, count), arrays in found.items()
        for i in range(len(arrays["log10_pvalue"]))
    ]
