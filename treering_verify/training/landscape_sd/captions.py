"""Captions of scenes: English phrases for their attributes, some left out, in changing order."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from itertools import chain

import torch

from treering_verify.training.landscape_sd.attributes import ATTRIBUTES, DESERTS, draw_attributes, scene_generator

_NEVER = ("",)
# By attribute, the phrases for each of its values; an empty one leaves it out.
PHRASES: Mapping[str, Sequence[Sequence[str]]] = {
    "style": (
        ("a photo of", "a photograph of", "a landscape with", ""),
        ("a pastel drawing of", "in pastel colours,", "a soft pastel of"),
        ("a vivid painting of", "in vivid colours,", "a colourful painting of"),
        ("a black and white photo of", "in black and white,", "a monochrome photo of"),
        ("an old sepia photo of", "in sepia,", "a sepia photograph of"),
    ),
    "land": (
        ("mountains", "high mountains", "a mountain range", "alpine peaks"),
        ("rolling hills", "hills", "gentle hills"),
        ("sand dunes", "a desert with dunes", "a sandy desert"),
        ("red mesas", "a canyon with mesas", "table mountains in a desert"),
        ("a wide plain", "flat land", "a meadow"),
    ),
    "season": (
        ("in summer", "in green summer", ""),
        ("in autumn", "in the fall", "in autumn colours"),
        ("in winter", "in the snow", "covered with snow"),
    ),
    "trees": (
        ("without trees", "no trees", "", ""),
        ("with a few pines", "with some trees", "and a few trees"),
        ("with a pine forest", "with a forest", "and many pines", "in the woods"),
    ),
    "water": (
        ("without water", "", "", ""),
        ("by a lake", "with a lake", "mirrored in a lake", "at the water"),
    ),
    "time": (
        ("at dawn", "at sunrise", "in the early morning"),
        ("by day", "at noon", "in daylight"),
        ("at sunset", "at dusk", "in the evening"),
        ("at night", "by moonlight", "under the stars"),
    ),
    "sky": (
        ("under a clear sky", "clear sky", "without clouds"),
        ("with clouds", "under a cloudy sky", "clouds in the sky"),
        ("under an overcast sky", "under grey clouds", "dull weather"),
        ("in mist", "in the fog", "misty air"),
    ),
}
_LIGHTS = (
    ("the {} on the left", "{} at the left"),
    ("the {} in the middle", "{} in the centre"),
    ("the {} on the right", "{} at the right"),
)
_FIRST = ("style", "land", "trees", "water")  # the others follow in any order
_KEPT, _SHORT = 0.85, 0.12  # an attribute is told with this share; a caption tells at most two with that one


def caption(row: Sequence[int], generator: torch.Generator) -> tuple[str, list[str]]:
    """Return a caption of a scene, and the names of the attributes that it tells.

    Parameters
    ----------
    row : sequence of int
        Attributes of the scene in the order of `ATTRIBUTES`.
    generator : torch.Generator
        Chooses the phrases, their order, and what is left out.
    """
    values = dict(zip(ATTRIBUTES, row, strict=True))
    desert = ATTRIBUTES["land"][values["land"]] in DESERTS
    said: dict[str, str] = {}
    for name in (*PHRASES, "side"):
        phrase = _choose(_phrases(name, values), generator)
        untold = name in ("season", "trees") and desert
        if phrase and not untold and (name == "land" or _share(generator) < _KEPT):
            said[name] = phrase
    if _share(generator) < _SHORT:
        others = [name for name in said if name != "land"]
        kept = {others[i] for i in torch.randperm(len(others), generator=generator)[:1].tolist()}
        said = {name: phrase for name, phrase in said.items() if name in kept or name == "land"}
    first = [said[name] for name in _FIRST if name in said]
    rest = [name for name in said if name not in _FIRST]
    order = torch.randperm(len(rest), generator=generator).tolist()
    text = " ".join(first)
    for i in order:
        apart = rest[i] in ("side", "sky") or _share(generator) < 0.25
        text += (", " if apart else " ") + said[rest[i]]
    return text, list(said)


def captions(attributes: torch.Tensor, generator: torch.Generator) -> list[str]:
    """Return a caption of each scene; `attributes` is (B, len(ATTRIBUTES))."""
    return [caption(row, generator)[0] for row in attributes.tolist()]


def words() -> list[str]:
    """Return all words that captions use, in alphabetical order."""
    phrases = chain.from_iterable(chain.from_iterable(PHRASES.values()))
    lights = (light.format(name) for light in chain.from_iterable(_LIGHTS) for name in ("sun", "moon"))
    return sorted(set(" ".join(chain(phrases, lights)).replace(",", "").split()))


def _phrases(name: str, values: Mapping[str, int]) -> Sequence[str]:
    if name != "side":
        return PHRASES[name][values[name]]
    if ATTRIBUTES["sky"][values["sky"]] == "overcast":
        return _NEVER
    light = "moon" if ATTRIBUTES["time"][values["time"]] == "night" else "sun"
    return [phrase.format(light) for phrase in _LIGHTS[values["side"]]]


def _choose(phrases: Sequence[str], generator: torch.Generator) -> str:
    return phrases[int(torch.randint(0, len(phrases), (1,), generator=generator))]


def _share(generator: torch.Generator) -> float:
    return float(torch.rand(1, generator=generator))


def main(argv: list[str] | None = None) -> None:
    """Print captions, one a line."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog="The scenes are of the stream calibration: none of the training."
    )
    parser.add_argument("count", type=int)
    g = scene_generator("calibration", 0)
    print(*captions(draw_attributes(parser.parse_args(argv).count, g), g), sep="\n")


if __name__ == "__main__":
    main()
