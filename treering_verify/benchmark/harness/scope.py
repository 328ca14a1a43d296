"""What every benchmark is told, and the images that they share."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from treering_verify import attacks
from treering_verify.benchmark.harness.workers import Share
from treering_verify.generation.generator import generate
from treering_verify.models import LatentModel
from treering_verify.watermark.keys.key import Key

if TYPE_CHECKING:
    import torch
    from PIL import Image

CLEAN = "clean"
# Seeds below 2**32 are left to users; each benchmark draws from a range of its own, so no two share an image.
SEEDS = {
    name: (i + 1) << 32
    for i, name in enumerate(
        (
            "detection",
            "throughput",
            "quality",
            "classification",
            "samples",  # samples/make.py
            "ablation",
            "cocoercivity",
            "inversion",
            "calibration",  # images on which settings were chosen
            "noise",
            "train-refiner",  # models/landscape
            "pareto",
            "train-estimator",  # models/landscape
            "precision",
            "heldout",
            "identification",
            "search",
            "audit",
            "patterns",
            "null",
            "classifier",
            "places",
            "robustness",
            "forgery",
            "front",
            "passes",
            "editing",
            "baseline",
        )
    )
}


@dataclass(frozen=True)
class Scope:
    """How much to measure.

    Attributes
    ----------
    progress : callable
        (what, how many) -> context manager that gives a callable to advance by one.
    quick : bool
        Few images, under two minutes on two cores.
    count : int, optional
        Images, instead of the benchmark's own number.
    folder : Path, optional
        Where long measurements are kept, to go on after an interruption; None keeps nothing.
    share : Share, optional
        Which of several processes this is that share long measurements.
    """

    progress: Callable[[str, int], Any]
    quick: bool = False
    count: int | None = None
    folder: Path | None = None
    share: Share | None = None

    def help_with(self, what: str, steps: Callable[[], Iterable[Callable[[], object]]]) -> None:
        """Do the steps of a measurement that others do not, where it is shared; they are called for there alone."""
        if self.share is not None and self.folder is not None:
            chosen = list(steps())
            with self.progress(f"{what}, shared", len(chosen)) as advance:
                self.share.work(chosen, advance)

    def images(self, quick: int, full: int) -> int:
        """Return the number of images to use, given the benchmark's own for both forms."""
        return self.count or (quick if self.quick else full)


@dataclass(frozen=True, eq=False)
class Truth:
    """Generated images with the latents and noise that they came from, (n, C, h, w)."""

    images: tuple[Image.Image, ...]
    latent: torch.Tensor
    noise: torch.Tensor

    def pixels(self, attack: str = CLEAN) -> torch.Tensor:
        """Images after an attack, given as text, as the verifier reads them: (n, 3, H, W)."""
        import torch

        from treering_verify.media.images import to_tensor

        return torch.cat([to_tensor(picture) for picture in distorted(self.images, attack)])


def truth(model: LatentModel, key: Key | None, seeds: Sequence[int], **options: Any) -> Truth:
    """Generate images from seeds and keep what they came from."""
    import torch

    made = list(generate(model, key, seeds=seeds, **options))
    return Truth(
        tuple(r.image for r in made), torch.stack([r.latent for r in made]), torch.stack([r.noise for r in made])
    )


def distorted(pictures: Sequence[Image.Image], attack: str) -> list[Image.Image]:
    """Images after an attack, given as text; "clean" leaves them as they are."""
    if attack == CLEAN:
        return list(pictures)
    chosen = attacks.parse(attack)
    return [chosen.apply(picture, seed) for seed, picture in enumerate(pictures)]


def hardware(*, accelerated: bool, processes: int = 1) -> str:
    """Processor kind, threads of each process, and vector unit; the accelerator, if one is computed on."""
    import torch

    threads = (
        f"{torch.get_num_threads()} threads" if processes == 1 else f"{processes} x {torch.get_num_threads()} threads"
    )
    text = f"{platform.machine()}, {threads}, {torch.backends.cpu.get_cpu_capability()}"
    return f"{text}, {torch.cuda.get_device_name()}" if accelerated and torch.cuda.is_available() else text


def versions() -> str:
    """Versions of what the figures depend on."""
    import diffusers
    import numpy
    import torch

    from treering_verify.version import __version__

    parts = {
        "treering-verify": __version__,
        "torch": torch.__version__,
        "diffusers": diffusers.__version__,
        "numpy": numpy.__version__,
        "python": platform.python_version(),
    }
    return ", ".join(f"{name} {version}" for name, version in parts.items())
