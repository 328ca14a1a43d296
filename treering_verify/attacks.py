"""Distortions of an image: what happens to pictures between their maker and whoever verifies them.

Each attack is a function ``(image, *, parameters, seed=0) -> image`` of an RGB image, and keeps its size and mode.
Compression goes through the real codec's bytes. Randomness enters through the seed alone, and only `noise` uses it.
`Attack` names one attack with its parameters, as text ``jpeg:quality=25``.
"""

from __future__ import annotations

import inspect
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from treering_verify.errors import UsageError

if TYPE_CHECKING:
    from PIL import Image


def jpeg(image: Image.Image, *, quality: int = 75, seed: int = 0) -> Image.Image:
    """Compress with libjpeg at this quality (1 to 100; 4:2:0 chroma, Pillow's default) and decode."""
    return _recode(image, "JPEG", quality)


def webp(image: Image.Image, *, quality: int = 75, seed: int = 0) -> Image.Image:
    """Compress with lossy WebP at this quality (1 to 100) and decode."""
    return _recode(image, "WEBP", quality)


def noise(image: Image.Image, *, sigma: float = 0.05, seed: int = 0) -> Image.Image:
    """Add white Gaussian noise of this standard deviation (black = 0, white = 1), then clip and round."""
    import numpy as np
    from PIL import Image

    pixels = np.asarray(image) / 255.0
    noisy = pixels + sigma * np.random.default_rng(seed).standard_normal(pixels.shape)
    return Image.fromarray(np.rint(noisy.clip(0.0, 1.0) * 255.0).astype(np.uint8))


def blur(image: Image.Image, *, radius: float = 2.0, seed: int = 0) -> Image.Image:
    """Blur with a Gaussian of this standard deviation in pixels (Pillow's approximation by three box filters)."""
    from PIL import ImageFilter

    return image.filter(ImageFilter.GaussianBlur(radius))


def crop_scale(image: Image.Image, *, share: float = 0.75, seed: int = 0) -> Image.Image:
    """Keep the central `share` of each side and scale it up to the original size (Lanczos)."""
    from PIL import Image

    width, height = _shrunk(image, share)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    kept = image.crop((left, top, left + width, top + height))
    return kept.resize(image.size, Image.Resampling.LANCZOS)


def rotate(image: Image.Image, *, degrees: float = 5.0, seed: int = 0) -> Image.Image:
    """Rotate counter-clockwise about the centre (bicubic); corners leave the frame, and black fills what they open."""
    from PIL import Image

    return image.rotate(degrees, Image.Resampling.BICUBIC, expand=False, fillcolor=(0, 0, 0))


def resize(image: Image.Image, *, share: float = 0.5, seed: int = 0) -> Image.Image:
    """Scale both sides down to `share` and back up (antialiased Lanczos both ways)."""
    from PIL import Image

    small = image.resize(_shrunk(image, share), Image.Resampling.LANCZOS)
    return small.resize(image.size, Image.Resampling.LANCZOS)


def brightness(image: Image.Image, *, factor: float = 1.5, seed: int = 0) -> Image.Image:
    """Multiply every value by `factor`; what exceeds white is clipped."""
    from PIL import ImageEnhance

    return ImageEnhance.Brightness(image).enhance(factor)


def flip(image: Image.Image, *, seed: int = 0) -> Image.Image:
    """Mirror left to right."""
    from PIL import Image

    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)


ATTACKS: dict[str, Callable[..., Image.Image]] = {
    "jpeg": jpeg,
    "webp": webp,
    "noise": noise,
    "blur": blur,
    "crop_scale": crop_scale,
    "rotate": rotate,
    "resize": resize,
    "brightness": brightness,
    "flip": flip,
}
"""Every attack by name."""

RANGES: dict[str, dict[str, tuple[float, float]]] = {
    "jpeg": {"quality": (1, 100)},
    "webp": {"quality": (1, 100)},
    "noise": {"sigma": (0.0, 1.0)},
    "blur": {"radius": (0.0, 100.0)},
    "crop_scale": {"share": (0.05, 1.0)},
    "rotate": {"degrees": (-180.0, 180.0)},
    "resize": {"share": (0.05, 1.0)},
    "brightness": {"factor": (0.0, 10.0)},
    "flip": {},
}
"""Least and greatest value of each attack's parameters, both included."""


@dataclass(frozen=True)
class Attack:
    """One attack with all its parameters; hashable, picklable, and the same as its text.

    Parameters
    ----------
    name
        A key of `ATTACKS`.
    parameters
        Values within `RANGES`; parameters left out take the function's defaults and are filled in.

    Raises
    ------
    UsageError
        If there is no such attack or parameter, or a value is of the wrong type or outside its range.
    """

    name: str
    parameters: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check the name and the parameters, and fill in the defaults."""
        if self.name not in ATTACKS:
            raise UsageError(f"there is no attack {self.name!r}; choose from {', '.join(ATTACKS)}")
        ranges, defaults = RANGES[self.name], _defaults(self.name)
        for parameter in self.parameters:
            if parameter not in ranges:
                raise UsageError(f"attack {self.name} has no parameter {parameter!r}; it takes {_usage(self.name)}")
        filled = {p: self.parameters.get(p, default) for p, default in defaults.items()}
        for parameter, value in filled.items():
            kind = type(defaults[parameter])
            allowed = (int,) if kind is int else (int, float)
            low, high = ranges[parameter]
            if isinstance(value, bool) or not isinstance(value, allowed) or not low <= value <= high:
                raise UsageError(f"{self.name}: {parameter}={value} is not allowed; it takes {_usage(self.name)}")
            filled[parameter] = kind(value)
        object.__setattr__(self, "parameters", filled)

    def __hash__(self) -> int:
        """Hash the text, which is equal exactly where attacks are."""
        return hash(str(self))

    def __str__(self) -> str:
        """Return the text that `parse` reads, with every parameter: ``jpeg:quality=75``, ``flip``."""
        parameters = ",".join(f"{parameter}={value!r}" for parameter, value in self.parameters.items())
        return f"{self.name}:{parameters}" if parameters else self.name

    def apply(self, image: Image.Image, seed: int = 0) -> Image.Image:
        """Distort an RGB image.

        Parameters
        ----------
        image
            RGB image; left as it is.
        seed
            Non-negative; give each image its own. The same image, attack and seed give the same pixels.

        Returns
        -------
        PIL.Image.Image
            RGB, of the same size.

        Raises
        ------
        UsageError
            If the image is not RGB or the seed is negative.
        """
        if image.mode != "RGB":
            raise UsageError(f"attacks need an RGB image, got mode {image.mode}; pass it through open_image first")
        if seed < 0:
            raise UsageError(f"a seed is a non-negative whole number, got {seed}")
        return ATTACKS[self.name](image, seed=seed, **self.parameters)


def parse(text: str) -> Attack:
    """Read an attack as ``name`` or ``name:parameter=value,parameter=value``; the inverse of ``str(attack)``.

    Raises
    ------
    UsageError
        If the text has another form, or as `Attack` raises it; the message lists what exists and its range.
    """
    name, _, rest = text.strip().partition(":")
    if name not in ATTACKS:
        raise UsageError(f"there is no attack {name!r}; choose from {', '.join(ATTACKS)}")
    parameters: dict[str, float] = {}
    for item in filter(None, rest.split(",")):
        parameter, equals, value = (part.strip() for part in item.partition("="))
        number = _number(value)
        if not equals or number is None or parameter in parameters:
            raise UsageError(f"cannot read {item!r} in attack {text!r}; {name} takes {_usage(name)}")
        parameters[parameter] = number
    return Attack(name, parameters)


def _number(text: str) -> float | None:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return None


def _defaults(name: str) -> dict[str, Any]:
    """Return the function's parameters and defaults, in order, without the seed."""
    signature = inspect.signature(ATTACKS[name])
    return {p: signature.parameters[p].default for p in signature.parameters if p not in ("image", "seed")}


def _usage(name: str) -> str:
    """Describe an attack's parameters: ``quality (a whole number from 1 to 100, default 75)``."""
    described = []
    for parameter, default in _defaults(name).items():
        low, high = RANGES[name][parameter]
        kind = "whole number" if isinstance(default, int) else "number"
        described.append(f"{parameter} (a {kind} from {low:g} to {high:g}, default {default:g})")
    return ", ".join(described) or "no parameters"


def _recode(image: Image.Image, format_name: str, quality: int) -> Image.Image:
    from PIL import Image

    buffer = io.BytesIO()
    image.save(buffer, format=format_name, quality=quality)
    with Image.open(buffer, formats=[format_name]) as decoded:
        return decoded.convert("RGB")


def _shrunk(image: Image.Image, share: float) -> tuple[int, int]:
    """Return `share` of (width, height) in whole pixels, at least one."""
    return max(1, round(image.width * share)), max(1, round(image.height * share))
