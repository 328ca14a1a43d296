"""Images that filters are fitted to, and what made them: a model's own generations, or an autoencoder's of photographs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from treering_verify.attacks import parse
from treering_verify.errors import UsageError
from treering_verify.generation.generator import generate
from treering_verify.generation.seeds import SEEDS
from treering_verify.inversion.noise import DEFAULT_STEPS
from treering_verify.media.conversion import fit, to_pil, to_tensor
from treering_verify.media.images import open_image
from treering_verify.models import LatentModel
from treering_verify.training.attack_table import CLEAN

if TYPE_CHECKING:
    import torch
    from PIL import Image

    from treering_verify.media.images import ImageSource
    from treering_verify.results import Generated

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

_QUARTERS = 4  # of photographs, as `regression.VALIDATION`
_MOVED = 0.15
_LEAST_CROP = 0.25
_TONES = (
    0.5,
    0.5,
    0.25,
)  # deviations of the logarithms of gamma and contrast, and of what is added, black to white being 1

LEAST_PHOTOGRAPHS, ENOUGH_PHOTOGRAPHS = (
    4,
    12,
)  # that an autoencoder alone is fitted to: docs/fitting.md#an-autoencoder-alone

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
    source : str
        What the images are, for the card.
    warning : str
        Why a fit to them may do harm; empty if nothing speaks for that.
    """

    images: list[Image.Image]
    latents: torch.Tensor
    noise: torch.Tensor | None
    source: str = ""
    warning: str = ""

    @classmethod
    def of(cls, made: Iterable[Generated], source: str = "") -> Examples:
        """Put generated images together."""
        import torch

        some = list(made)
        latents, noise = (torch.stack([getattr(one, name) for one in some]) for name in ("latent", "noise"))
        return cls([one.image for one in some], latents, noise, source)


@dataclass(frozen=True)
class FitOptions:
    """How many images a fit generates, and the sizes of what is fitted to them.

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

    images: int = 48
    generation_steps: int = 20
    kernel: int = 5
    stages: int = 3
    steps: int = DEFAULT_STEPS
    points: tuple[int, ...] = (1, 3, 10)
    batch_size: int = 8
    seed: int = SEEDS["fit"]

    def __post_init__(self) -> None:
        if self.images < 8:
            raise UsageError(f"images is {self.images}: fit to 8 or more")
        if self.kernel < 1 or self.kernel % 2 == 0:
            raise UsageError(f"kernel is {self.kernel}: choose an odd number from 1 upwards")
        if self.stages < 1 or self.batch_size < 1 or self.generation_steps < 1:
            raise UsageError("stages, batch_size and generation_steps must be 1 or more")
        if not self.points or list(self.points) != sorted({k for k in self.points if 1 <= k <= self.steps}):
            raise UsageError(f"points are {self.points}: choose ascending steps from 1 to {self.steps}")


def generated(
    model: LatentModel,
    options: FitOptions,
    prompts: Sequence[str | None] | None = None,
    progress: Progress | None = None,
) -> Examples:
    """Generate the images of a fit: one seed each, prompts and guidance in turn."""
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
    return Examples.of(made, f"images that the model generated in {options.generation_steps} steps")


def photographed(
    model: LatentModel,
    photographs: Sequence[ImageSource],
    count: int,
    seed: int,
    progress: Progress | None = None,
    *,
    toned: bool = False,
) -> Examples:
    """Decode the latents of crops of photographs: images of an autoencoder, whose latents are known.

    Photographs take turns within quarters: where there are four or more, images i, i + 4, i + 8, .. are of other photographs
    than the rest, so what is chosen on every fourth image is chosen on photographs of its own. A crop has the aspect of
    the model's images, .25 to 1 of the largest size that fits, drawn on a logarithmic scale, and a random place. Half of
    the latents, drawn at random, are moved by noise of 0.15 of their deviation: a diffusion model's latents are not quite
    those that the encoder gives to a photograph. If `toned`, half of the crops get other tones first, so that few
    photographs stand for more.
    """
    import numpy as np
    import torch

    quarters = [photographs[k::_QUARTERS] or photographs for k in range(_QUARTERS)]
    images, latents = [], []
    for number in range(count):
        draw = np.random.default_rng((seed, number))
        turn, quarter = divmod(number, _QUARTERS)
        some = quarters[quarter]
        crop = _crop(open_image(some[turn % len(some)]), model.image_size, draw)
        if toned and draw.random() < 0.5:
            crop = _toned(crop, draw)
        with torch.inference_mode():
            latent = model.encode(to_tensor(crop))
            moved = torch.from_numpy(draw.standard_normal(latent.shape, dtype=np.float32))
            latents.append(latent + _MOVED * (draw.random() < 0.5) * latent.std() * moved)
            images.append(to_pil(model.decode(latents[-1])))
        if progress:
            progress("photographs decoded", number + 1, count)
    source = f"crops of {len(photographs)} photographs that the autoencoder coded"
    return Examples(images, torch.cat(latents), None, source)


def too_few(photographs: Sequence[ImageSource]) -> str:
    """Return a warning if an autoencoder is fitted to fewer than 12 different photographs, else an empty text.

    Raises
    ------
    UsageError
        If there are fewer than four: what is chosen on one quarter of them needs others in the rest.
    """
    import hashlib

    different = set[bytes]()
    for photograph in photographs:
        image = open_image(photograph)
        different.add(hashlib.sha256(repr(image.size).encode() + image.tobytes()).digest())
        if len(different) == ENOUGH_PHOTOGRAPHS:
            return ""
    said = f"{len(different)} different photographs to fit to"
    if len(different) < LEAST_PHOTOGRAPHS:
        raise UsageError(
            f"{said} are not enough: name {LEAST_PHOTOGRAPHS} at least, better {ENOUGH_PHOTOGRAPHS} or more, beside those "
            "that are kept for a report"
        )
    return (
        f"{said} are few: the filters may take latents of other images further off. Fit to {ENOUGH_PHOTOGRAPHS} or more, "
        "beside those that are kept for a report, and do not use filters that the report does not favour"
    )


def kept_apart(photographs: Sequence[Any], seed: int) -> tuple[list[Any], list[Any]]:
    """Draw a quarter of photographs, one at least, for a report: return the others, to fit to, and them.

    Raises
    ------
    UsageError
        If there are fewer than two.
    """
    import numpy as np

    if len(photographs) < 2:
        raise UsageError("one photograph is not enough: the fit and its report need different ones")
    order = np.random.default_rng(seed).permutation(len(photographs)).tolist()
    held = max(1, len(order) // 4)
    return [photographs[i] for i in sorted(order[held:])], [photographs[i] for i in sorted(order[:held])]


def _crop(image: Image.Image, size: tuple[int, int], draw: Any) -> Image.Image:
    height, width = size
    most = min(image.width / width, image.height / height)
    share = most * _LEAST_CROP ** float(draw.uniform(0, 1))
    sides = max(1, round(width * share)), max(1, round(height * share))
    left, top = (int(draw.integers(whole - side + 1)) for whole, side in zip(image.size, sides, strict=True))
    return fit(image.crop((left, top, left + sides[0], top + sides[1])), size)[0]


def _toned(image: Image.Image, draw: Any) -> Image.Image:
    """Return an image with other gamma, contrast, brightness and saturation; what is too bright or too dark is clipped."""
    import numpy as np
    from PIL import Image

    gamma, gain, offset = draw.standard_normal(3) * _TONES
    levels = (np.asarray(image, dtype=np.float32) / 255) ** np.exp(gamma)
    levels = np.clip((levels - 0.5) * np.exp(gain) + 0.5 + offset, 0, 1)
    grey = levels.mean(axis=-1, keepdims=True)
    levels = np.clip(grey + draw.uniform(0, 1.5) * (levels - grey), 0, 1)
    return Image.fromarray((255 * levels).round().astype(np.uint8))


def attacked(
    images: Sequence[Image.Image], attacks: Sequence[str], seed: int, first: int = 0, *, shifted: bool = False
) -> torch.Tensor:
    """Return images (n, 3, H, W) after attacks that take turns, by the image's number from `first` on.

    If `shifted`, turns move on by one every four images, so that all quarters of the images go through all attacks.
    """
    import torch

    parts = []
    for number, image in enumerate(images, first):
        text = attacks[(number + shifted * (number // _QUARTERS)) % len(attacks)]
        parts.append(to_tensor(image if text == CLEAN else parse(text).apply(image, seed=seed + number)))
    return torch.cat(parts)
