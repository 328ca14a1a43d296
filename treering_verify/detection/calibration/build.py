"""Building of calibrations: unmarked images -> attacks -> noise_hat -> scores under fresh keys; the classifier before that.

Each image gives one score per stratum and detector, under a key drawn for that pair alone. So the n scores of a stratum are
exchangeable with the score of one more such image under any key of the family, which is all that a conformal p-value needs.
Scores of one image under many keys are not: they would be more scores, but no more images, and p-values too small.

Nothing is judged here, so nothing goes through `detection.judge`: there is no key to find and no verdict. Inversion and
scores are the functions that a judge with a `CalibratedTest` calls.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from treering_verify.attacks import Distortion, parse
from treering_verify.detection.calibration.calibration_file import CLEAN, Calibration, digest
from treering_verify.detection.calibration.registry import CLASSIFIER, DEFAULT_ATTACKS, DETECTORS
from treering_verify.detection.calibration.scores import score, setting_of, unshrunk
from treering_verify.errors import ImageError, UsageError
from treering_verify.files import printable
from treering_verify.generation.generator import DEFAULT_GUIDANCE, DEFAULT_STEPS, initial_noise
from treering_verify.generation.seeds import SEEDS
from treering_verify.inversion.recovery import InversionOptions, recover_noise
from treering_verify.media.conversion import fit, to_pil, to_tensor
from treering_verify.media.isolation.decoding import decode_image
from treering_verify.models import LatentModel, images_only
from treering_verify.models.sampling import denoise
from treering_verify.watermark.embedding import embed, extract, features, groups
from treering_verify.watermark.keys.key import Family, Key

if TYPE_CHECKING:
    import torch
    from PIL import Image

    from treering_verify.detection.judge import Source

_EACH = 1 << 16  # training images of a calibration's seed, at most, before they are those of the next
MIN_TRAINING = 8
_BATCH = 16


@dataclass(frozen=True)
class Skipped:
    """An image that was left out of a calibration, and the reason."""

    path: str
    code: str
    reason: str


@dataclass(frozen=True, eq=False)
class _Stratum:
    """A way in which images are processed: its name, and its attack, if any."""

    name: str
    attack: Distortion | None = None

    def apply(self, images: list[Image.Image], seeds: Sequence[int], model: LatentModel) -> list[Image.Image]:
        return self.attack.apply_many(images, seeds, model) if self.attack else images


def calibrate(
    sources: Iterable[Source],
    family: Family,
    *,
    model: LatentModel,
    attacks: Sequence[str] = DEFAULT_ATTACKS,
    classifier_images: int = 0,
    inversion: InversionOptions | None = None,
    seed: int = 0,
    advance: Callable[[], None] = lambda: None,
) -> tuple[Calibration, list[Skipped]]:
    """Calibrate detectors: score unmarked images, as they are and after attacks, each under a fresh key.

    Parameters
    ----------
    sources : iterable of paths, bytes or PIL images
        Unmarked images, like those that will be judged. Unreadable and repeated ones are left out.
    family : Family
        Family of the keys that will be tested.
    model : LatentModel
    attacks : sequence of str
        Attacks to calibrate for, such as ``jpeg:quality=25``, beside the images as they are. Each is a stratum, with scores
        of its own, and is applied to images of the model's size. ``()`` calibrates for the images as they are only.
    classifier_images : int
        Count of marked images to generate, each under a key of its own, and of unmarked ones, from which the classifier
        learns; 0: no classifier. The first image is left as it is, the second goes through the first attack, and so on by
        turns.
    inversion : InversionOptions, optional
        `auto` noise inversion stands for `naive` here.
    seed : int
        Seed of keys, attacks and training images; public, non-negative.
    advance : callable
        Called after each image of each stratum, and after each training image.

    Returns
    -------
    Calibration
    list of Skipped
        Images that were left out.

    Raises
    ------
    UsageError
        If no image can be used, a stratum is named twice, an attack cannot run, the family does not fit the model, or the
        model makes videos.
    """
    images_only(model, "calibration")
    inversion = unshrunk(inversion or InversionOptions())
    if family.latent_shape != model.latent_shape:
        raise UsageError(
            f"keys for noise {family.latent_shape} do not fit model {model.name!r} of {model.latent_shape}: "
            "give keys of another family, or another model"
        )
    if classifier_images < 0 or 0 < classifier_images < MIN_TRAINING:
        raise UsageError(f"classifier_images is {classifier_images}: give 0, or {MIN_TRAINING} or more")
    if seed < 0:
        raise UsageError(f"seed is {seed}: give 0 or more")
    strata = [_Stratum(CLEAN), *(_Stratum(str(chosen), chosen) for chosen in map(parse, attacks))]
    if len({s.name for s in strata}) < len(strata):
        raise UsageError("an attack is named twice: leave one out")
    for stratum in strata:
        if stratum.attack:
            stratum.attack.check(model)
    digests: set[str] = set()
    learned = None
    if classifier_images:
        plan = Training(
            family, classifier_images, tuple(s.attack for s in strata), SEEDS["calibration"] + seed % 256 * _EACH
        )
        learned = learn(plan, model, inversion, advance, digests)
    detectors = (*DETECTORS, *([CLASSIFIER] if learned else []))
    found: dict[str, dict[str, list[float]]] = {d: {s.name: [] for s in strata} for d in detectors}
    residuals: list[float] = []

    def passed() -> None:
        for _ in strata:
            advance()

    images = _DistinctImages(sources, model, passed)
    remaining, first = iter(images), 0
    while batch := list(islice(remaining, inversion.batch_size)):
        for place, stratum in enumerate(strata):
            processed = stratum.apply(batch, [seed + first + i for i in range(len(batch))], model)
            digests.update(map(digest, processed))
            noise_hat, solution = recover_noise(model, batch_of(processed), inversion)
            residuals += solution.residual.tolist()
            for row in range(len(batch)):
                numbers = np.random.default_rng([seed, place, first + row]).standard_normal(family.degrees_of_freedom)
                key = Key.of(family, "fresh", numbers)
                for detector in detectors:
                    value = score(detector, noise_hat[row : row + 1], [key], learned)[0, 0]
                    found[detector][stratum.name].append(float(value))
                advance()
        first += len(batch)
    if not residuals:
        raise UsageError("no image to calibrate on: name unmarked images that can be read")
    calibration = Calibration(
        setting_of(model, family, inversion),
        {d: {name: np.array(values) for name, values in by_stratum.items()} for d, by_stratum in found.items()},
        frozenset(digests),
        images.resized,
        (min(residuals), max(residuals)) if np.isfinite(residuals).all() else None,
        seed,
        learned,
        2 * classifier_images,
    )
    return calibration, images.skipped


class _DistinctImages:
    """Reads distinct images, lazily, and fits them to the model's size; counts the resized and lists those left out."""

    def __init__(self, sources: Iterable[Source], model: LatentModel, passed: Callable[[], None]) -> None:
        self._sources, self._size, self._passed = sources, model.image_size, passed
        self.resized = 0
        self.skipped: list[Skipped] = []

    def __iter__(self) -> Iterator[Image.Image]:
        earlier: set[str] = set()
        for source in self._sources:
            path = str(source) if isinstance(source, (str, Path)) else ""
            try:
                image, note = fit(decode_image(source), self._size)
            except ImageError as error:
                self._skip(path, error.code, printable(error.reason))
                continue
            name = digest(image)
            if name in earlier:
                self._skip(path, "repeated", "it has the same pixels as an earlier image, and would count twice")
                continue
            earlier.add(name)
            self.resized += bool(note)
            yield image

    def _skip(self, path: str, code: str, reason: str) -> None:
        self.skipped.append(Skipped(path, code, reason))
        self._passed()


def batch_of(images: Sequence[Image.Image]) -> torch.Tensor:
    """Return RGB images of one size as one batch, (B, 3, H, W)."""
    import torch

    return torch.cat([to_tensor(image) for image in images])


@dataclass(frozen=True)
class Training:
    """The training set of a classifier.

    Attributes
    ----------
    family : Family
    count : int
        Count of marked images, each under a key of its own, and of unmarked ones.
    attacks : tuple of Distortion or None
        Image i goes through number i modulo their count; None leaves it unchanged.
    seed : int
        Seed of the first key and image; the others count up from it.
    """

    family: Family
    count: int
    attacks: tuple[Distortion | None, ...]
    seed: int


def learn(
    training: Training,
    model: LatentModel,
    inversion: InversionOptions,
    advance: Callable[[], None],
    digests: set[str] | None = None,
) -> dict[str, Any]:
    """Train the classifier on images generated for it, and return its state; `digests` receives the images' digests."""
    from treering_detectors.classifier import NONE, key_pipeline

    family, count, first = training.family, training.count, training.seed
    keys = [Key.generate(model.latent_shape, **options_of(family), name=f"k{i}", seed=first + i) for i in range(count)]
    estimates, labels = [], [*(key.name for key in keys), *[NONE] * count]
    for i, made in enumerate(generate_under([*keys, *[None] * count], first, model)):
        attack = training.attacks[i % len(training.attacks)]
        image = attack.apply(made, first + i, model) if attack else made
        if digests is not None:
            digests.add(digest(image))
        noise_hat, _ = recover_noise(model, to_tensor(image), inversion)
        estimates.append(features(extract(noise_hat, family), family)[0])
        advance()
    numbers = np.stack([key.numbers for key in keys])
    classifier = key_pipeline([key.name for key in keys], numbers, groups(family))
    state: dict[str, Any] = classifier.fit(np.stack(estimates), labels)["classify"].state()
    return state


def generate_under(
    keys: Sequence[Key | None], seed: int, model: LatentModel, *, steps: int = DEFAULT_STEPS
) -> Iterator[Image.Image]:
    """Yield one image per key, or per None, from seeds that count up from `seed`, generated in batches."""
    import torch

    for start in range(0, len(keys), _BATCH):
        part = keys[start : start + _BATCH]
        seeds = [seed + start + i for i in range(len(part))]
        noise = initial_noise(model.latent_shape, seeds)
        noise = torch.cat([embed(n[None], key) if key else n[None] for n, key in zip(noise, part, strict=True)])
        labels = [model.classes[s % len(model.classes)] if model.classes else None for s in seeds]
        with torch.inference_mode():
            latents = denoise(model, noise, steps=steps, conditions=labels, guidance=DEFAULT_GUIDANCE)
            images = model.decode(latents)
        yield from map(to_pil, images)


def options_of(family: Family) -> dict[str, Any]:
    """Return the arguments by which `Key.generate` makes a key of the family."""
    names = ("pattern", "channels", "inner_radius", "outer_radius")
    return {name: getattr(family, name) for name in names}
