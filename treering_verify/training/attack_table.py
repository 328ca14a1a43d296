"""Kinds of attack that filters are fitted to, one expert each, and attacks that a fit is reported on."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from pathlib import Path

from treering_verify.attacks import parse
from treering_verify.errors import UsageError
from treering_verify.files import printable

CLEAN = "clean"
EXPERTS: dict[str, tuple[str, ...]] = {
    "clean": (CLEAN,),
    "light compression": ("jpeg:quality=95", "jpeg:quality=88", "jpeg:quality=80", "webp:quality=85"),
    "JPEG 40 to 75": ("jpeg:quality=75", "jpeg:quality=65", "jpeg:quality=50", "jpeg:quality=40"),
    "JPEG 18 to 35": ("jpeg:quality=35", "jpeg:quality=28", "jpeg:quality=22", "jpeg:quality=18"),
    "JPEG 8 to 15": ("jpeg:quality=15", "jpeg:quality=12", "jpeg:quality=10", "jpeg:quality=8"),
    "WebP and AVIF": ("webp:quality=40", "webp:quality=15", "avif:quality=45", "avif:quality=25"),
    "blur": ("blur:radius=0.7", "blur:radius=1.2", "blur:radius=2.0", "resize:share=0.5"),
    "noise": ("noise:sigma=0.02", "noise:sigma=0.04", "noise:sigma=0.07", "noise:sigma=0.12"),
    "brighter": ("brightness:factor=1.3", "brightness:factor=1.8", "brightness:factor=2.5", "brightness:factor=4"),
    "flatter": ("contrast:factor=0.5", "contrast:factor=0.7", "brightness:factor=0.5", "brightness:factor=0.7"),
}
"""Experts by name, each with the attacks that its images go through in turn."""

OTHERS: tuple[str, ...] = (
    "contrast:factor=1.3",
    "mask:share=0.1",
    "quantise:levels=32",
    "screenshot",
    "overlay:opacity=0.3",
    "crop_scale:share=0.9",
    "contrast:factor=2",
    "mask:share=0.25",
    "quantise:levels=8",
    "brightness:factor=0.3",
    "overlay:opacity=0.7",
    "rotate:degrees=3",
)
"""Attacks that no filter is fitted for: a gate learns from them when to take none."""


def drawn_attack(draw: random.Random) -> str:
    """Draw an attack as the recipe of `landscape` does: none for a third of the images, a codec for another third."""
    roll = draw.random()
    if roll < 0.35:
        return CLEAN
    if roll < 0.65:
        return f"jpeg:quality={10 + int(85 * draw.random() ** 1.5)}"  # half of them below 40
    if roll < 0.72:
        return f"webp:quality={draw.randint(10, 90)}"
    if roll < 0.82:
        return f"noise:sigma={draw.uniform(0.01, 0.1)!r}"
    if roll < 0.90:
        return f"blur:radius={draw.uniform(0.5, 3.0)!r}"
    if roll < 0.96:
        return f"resize:share={draw.uniform(0.4, 0.9)!r}"
    return f"brightness:factor={draw.uniform(0.6, 1.5)!r}"


_TONAL = ("brighter", "flatter")
ALONE = {name: some for name, some in EXPERTS.items() if name not in _TONAL}
"""Experts of an autoencoder alone: a bright photograph looks like a brightened one, and filters for that do most harm."""

UNLIKE: tuple[str, ...] = (*OTHERS, *(text for name in _TONAL for text in EXPERTS[name]))
"""What a gate learns from beside the attacks of `ALONE`."""

REPORTED: tuple[str, ...] = (
    CLEAN,
    "jpeg:quality=85",
    "jpeg:quality=45",
    "jpeg:quality=25",
    "jpeg:quality=13",
    "webp:quality=25",
    "avif:quality=35",
    "blur:radius=1.0",
    "resize:share=0.7",
    "noise:sigma=0.05",
    "brightness:factor=2.0",
    "contrast:factor=0.6",
    "colour_jitter",
    "overlay",
)
"""Attacks of the held-out report: apart from JPEG 25 of strengths that nothing is fitted to, and the last two of no
expert's kind; colour jitter is of no kind at all that a fit sees."""


def read_table(path: str | Path) -> dict[str, tuple[str, ...]]:
    """Read experts from a JSON file: an object of lists of attacks, such as {"JPEG": ["jpeg:quality=50"]}.

    Raises
    ------
    UsageError
        If the file cannot be read, or is no such table.
    """
    shown = printable(str(path))
    try:
        record = json.loads(Path(path).read_text())
    except OSError as error:
        raise UsageError(f"cannot read the attacks {shown}: {error.strerror}") from error
    except ValueError as error:
        raise UsageError(f"the attacks {shown} are not JSON: {error}") from error
    if not isinstance(record, dict) or not all(isinstance(some, list) for some in record.values()):
        raise UsageError(f'{shown} must be a table such as {{"JPEG": ["jpeg:quality=50", "jpeg:quality=25"]}}')
    table = {str(name): tuple(map(str, some)) for name, some in record.items()}
    check_table(table)
    return table


def check_table(table: Mapping[str, tuple[str, ...]]) -> None:
    """Raise UsageError unless there is an expert, each has an attack, and all attacks exist and work on the image alone."""
    if not table or not all(table.values()):
        raise UsageError("the table of attacks is empty: name an expert, and an attack for each")
    for text in {text for some in table.values() for text in some if text != CLEAN}:
        parse(text).check(None)
