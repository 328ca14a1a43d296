"""Attacks with their parameters, alone or in chains, and their text, such as ``jpeg:quality=25``."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING

from treering_verify.attacks.compression import CODECS, check_codec, encode
from treering_verify.attacks.tables import ATTACKS, MODEL_ATTACKS, check_name, defaults, ranges, usage
from treering_verify.errors import UsageError
from treering_verify.media.conversion import to_pil, to_tensor

if TYPE_CHECKING:
    from PIL import Image

    from treering_verify.models.protocol import LatentModel


class Distortion:
    """An attack or a chain of attacks, which can be applied to images."""

    if TYPE_CHECKING:

        @property
        def stages(self) -> tuple[Attack, ...]:
            """The attacks that are applied, in order."""

    @property
    def needs_model(self) -> bool:
        """Whether a stage is one of `MODEL_ATTACKS`."""
        return any(stage.name in MODEL_ATTACKS for stage in self.stages)

    def check(self, model: LatentModel | None = None) -> None:
        """Raise UsageError if this attack cannot run here: no model where one is needed, or a codec is missing."""
        for stage in self.stages:
            check_codec(stage.name)
            if stage.name in MODEL_ATTACKS and model is None:
                raise UsageError(f"attack {stage.name} needs a model: load one and pass it as model=")

    def apply(self, image: Image.Image, seed: int = 0, model: LatentModel | None = None) -> Image.Image:
        """Distort an RGB image.

        Parameters
        ----------
        image
            RGB image; it is not changed.
        seed
            Non-negative; give each image its own. The same image, attack and seed give the same pixels.
        model
            Needed by the attacks of `MODEL_ATTACKS`; the others ignore it.

        Returns
        -------
        PIL.Image.Image
            RGB, of the same size.

        Raises
        ------
        UsageError
            If the image is not RGB, the seed is negative, or as `check` raises it.
        ImageError
            not_encodable, if a codec refuses an image of this size.
        """
        (attacked,) = self.apply_many([image], [seed], model)
        return attacked

    def apply_many(
        self,
        images: Sequence[Image.Image],
        seeds: Sequence[int],
        model: LatentModel | None = None,
        batch_size: int = 16,
    ) -> list[Image.Image]:
        """Distort images, each with its own seed, those of one size together where a model is needed.

        Parameters
        ----------
        images, seeds
            As many of each.
        model
            As for `apply`.
        batch_size
            Images that go through the model together; each comes out as if it were alone, up to rounding.

        Returns
        -------
        list of PIL.Image.Image
            In the order of the images, each of its own size.

        Raises
        ------
        UsageError, ImageError
            As `apply` does.
        """
        if len(images) != len(seeds):
            raise UsageError(f"{len(images)} images and {len(seeds)} seeds: give one seed per image")
        for image in images:
            if image.mode != "RGB":
                raise UsageError(f"attacks need an RGB image, got mode {image.mode}; pass it through open_image first")
        for seed in seeds:
            if seed < 0:
                raise UsageError(f"a seed is a non-negative whole number, got {seed}: choose 0 or more")
        self.check(model)
        attacked = list(images)
        for position, stage in enumerate(self.stages):
            drawn = [_stage_seed(seed, position) for seed in seeds]
            if stage.name in MODEL_ATTACKS:
                attacked = list(_through_model(stage, attacked, drawn, model, batch_size))
            else:
                distort = ATTACKS[stage.name]
                attacked = [distort(i, seed=s, **stage.parameters) for i, s in zip(attacked, drawn, strict=True)]
        return attacked

    def codec_bytes(self, image: Image.Image, seed: int = 0, model: LatentModel | None = None) -> tuple[bytes, str]:
        """Return the codec's own file, which decodes to the pixels that `apply` returns, and its suffix.

        Where the last stage is no codec there is no such file: b"" and "". Parameters and errors as for `apply`.
        """
        *before, last = self.stages
        if last.name not in CODECS:
            return b"", ""
        self.check(model)
        image = Chain(tuple(before)).apply(image, seed, model) if before else image
        return encode(image, last.name, int(last.parameters["quality"])), CODECS[last.name][1]


@dataclass(frozen=True)
class Attack(Distortion):
    """One attack with all its parameters; hashable, picklable, and the same as its text.

    Parameters
    ----------
    name
        A key of `ATTACKS` or `MODEL_ATTACKS`.
    parameters
        Values within `tables.ranges`; parameters left out take the function's defaults and are filled in.

    Raises
    ------
    UsageError
        If there is no such attack or parameter, or a value is of the wrong type or outside its range.
    """

    name: str
    parameters: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check the name and the parameters, and fill in the defaults."""
        check_name(self.name)
        allowed_values, preset = ranges(self.name), defaults(self.name)
        for parameter in self.parameters:
            if parameter not in allowed_values:
                raise UsageError(f"attack {self.name} has no parameter {parameter!r}; it takes {usage(self.name)}")
        filled = {p: self.parameters.get(p, default) for p, default in preset.items()}
        for parameter, value in filled.items():
            kind = type(preset[parameter])
            allowed = (int,) if kind is int else (int, float)
            low, high = allowed_values[parameter]
            if isinstance(value, bool) or not isinstance(value, allowed) or not low <= value <= high:
                raise UsageError(f"{self.name}: {parameter}={value} is not allowed; it takes {usage(self.name)}")
            filled[parameter] = kind(value)
        object.__setattr__(self, "parameters", filled)

    def __hash__(self) -> int:
        """Hash the text, which is equal exactly where attacks are."""
        return hash(str(self))

    def __str__(self) -> str:
        """Return the text that `parse` reads, with every parameter: ``jpeg:quality=75``, ``flip``."""
        parameters = ",".join(f"{parameter}={value!r}" for parameter, value in self.parameters.items())
        return f"{self.name}:{parameters}" if parameters else self.name

    @property
    def stages(self) -> tuple[Attack, ...]:
        """The attack itself."""
        return (self,)


@dataclass(frozen=True)
class Chain(Distortion):
    """Attacks one after the other, as text ``resize:share=0.5+jpeg:quality=50``; hashable and picklable.

    The first stage takes the image's seed as an attack alone would; later ones take seeds derived from it, so that two
    stages of noise do not add the same noise twice.

    Parameters
    ----------
    stages
        At least one.

    Raises
    ------
    UsageError
        If there are none.
    """

    stages: tuple[Attack, ...]

    def __post_init__(self) -> None:
        if not self.stages:
            raise UsageError("a chain needs at least one attack: name one")

    def __str__(self) -> str:
        """Return the text that `parse` reads."""
        return "+".join(map(str, self.stages))


def parse(text: str) -> Attack | Chain:
    """Read ``name``, ``name:parameter=value,parameter=value``, or several of them with ``+`` between; the inverse of `str`.

    Raises
    ------
    UsageError
        If the text has another form, or as `Attack` raises it; the message lists what exists and its range.
    """
    # A plus before a digit belongs to a number, as in 1e+1.
    stages = tuple(_parse_one(part) for part in re.split(r"\+(?!\d)", text))
    return stages[0] if len(stages) == 1 else Chain(stages)


def _parse_one(text: str) -> Attack:
    name, _, rest = text.partition(":")
    name = name.strip()
    check_name(name)
    parameters: dict[str, float] = {}
    for item in filter(None, rest.split(",")):
        parameter, equals, value = (part.strip() for part in item.partition("="))
        number = _number(value)
        if not equals or number is None or parameter in parameters:
            raise UsageError(f"cannot read {item!r} in attack {text!r}; {name} takes {usage(name)}")
        parameters[parameter] = number
    return Attack(name, parameters)


def _number(text: str) -> float | None:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return None


def _stage_seed(seed: int, position: int) -> int:
    """Return the seed of a chain's stage: the image's own for the first."""
    if position == 0:
        return seed
    import numpy as np

    return int(np.random.SeedSequence([seed, position]).generate_state(1, np.uint64)[0] >> np.uint64(1))


def _through_model(
    attack: Attack, images: list[Image.Image], seeds: list[int], model: LatentModel | None, batch_size: int
) -> Iterator[Image.Image]:
    import torch

    pairs = zip(images, seeds, strict=True)
    for _, group in groupby(pairs, key=lambda pair: pair[0].size):
        waiting = list(group)
        for first in range(0, len(waiting), batch_size):
            batch = waiting[first : first + batch_size]
            pixels = torch.cat([to_tensor(image) for image, _ in batch])
            numbers = [seed for _, seed in batch]
            changed = MODEL_ATTACKS[attack.name](pixels, model, seeds=numbers, **attack.parameters)
            yield from (to_pil(image) for image in changed)
