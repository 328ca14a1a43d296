"""How much a benchmark measures, its seeds, and generated images with known latents."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from treering_verify import attacks
from treering_verify.benchmark.harness.cache import cached_rows
from treering_verify.benchmark.harness.workers import Share
from treering_verify.generation import seeds
from treering_verify.generation.generator import generate
from treering_verify.models import LatentModel
from treering_verify.version import __version__
from treering_verify.watermark.keys.index import KeyIndex
from treering_verify.watermark.keys.key import Key

if TYPE_CHECKING:
    import torch
    from PIL import Image

CLEAN = "clean"
SEEDS = seeds.SEEDS
"""First seed of each benchmark's range: no two share an image."""


@dataclass(frozen=True, eq=False)
class OwnImages:
    """Images with known keys: a folder, the keys, and a table of labels if there is one (`evaluation.labelled_images`)."""

    folder: Path
    keys: Sequence[Key | KeyIndex]
    table: Path | None = None


@dataclass(frozen=True)
class Scope:
    """How much a benchmark measures, of what, and where it keeps what it measured.

    Attributes
    ----------
    progress : callable
        (what, how many) -> context manager that gives a callable to advance by one. Ctrl-C ends the block alone, when
        `runner.run` calls: what follows it reports what is there.
    quick : bool
        Few images, under two minutes on two cores.
    count : int, optional
        Images, instead of the benchmark's own number.
    folder : Path, optional
        Folder of cached measurements, so that an interrupted run resumes; None caches nothing.
    share : Share, optional
        Number of this process among those that share the measurements.
    methods : tuple of str
        Decoder inversions that are measured beside the benchmark's own.
    own : OwnImages, optional
        A user's images, that `classification` names the keys of instead of its own.
    rows : list of dicts
        Rows that were measured so far. Where no tables can be made of an interrupted measurement, they are reported.
    only : tuple of str
        Names of the parts to measure; all where it is empty.
    inverter : bool
        Whether the model carries filters that a user named, for the record.
    emulate : bool, optional
        Whether inversions in 16 bits are measured where the processor emulates them; None: unless the run is quick.
    """

    progress: Callable[[str, int], Any]
    quick: bool = False
    count: int | None = None
    folder: Path | None = None
    share: Share | None = None
    methods: tuple[str, ...] = ()
    own: OwnImages | None = None
    rows: list[dict[str, Any]] = field(default_factory=list)
    only: tuple[str, ...] = ()
    inverter: bool = False
    emulate: bool | None = None

    def keep(self, rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
        """Add rows to those that are reported after an interruption, and return all of them."""
        self.rows.extend(rows)
        return self.rows

    def cached(self, name: str, facts: object, measure: Callable[[], Iterable[dict[str, Any]]]) -> list[dict[str, Any]]:
        """Return cached rows, or measure and cache them; `facts` are all that they depend on, the weights among them."""
        return cached_rows(self.folder, name, (__version__, facts), measure)

    def chosen(self, names: Sequence[str], usual: Sequence[str]) -> tuple[str, ...]:
        """Return those of some names that were asked for, or the usual ones where none was."""
        return tuple(name for name in names if name in self.only) or tuple(usual)

    def help_with(self, what: str, steps: Callable[[], Iterable[Callable[[], object]]]) -> None:
        """Do the steps that no other process does, where a measurement is shared among processes; elsewhere do nothing."""
        if self.share is not None and self.folder is not None:
            chosen = list(steps())
            with self.progress(f"{what}, shared", len(chosen)) as advance:
                self.share.work(chosen, advance)

    def images(self, quick: int, full: int) -> int:
        """Return the number of images to use, given the benchmark's own numbers for `--quick` and for a full run."""
        return self.count or (quick if self.quick else full)


@dataclass(frozen=True, eq=False)
class Truth:
    """Generated images with the latents and the initial noise of each, (n, C, h, w)."""

    images: tuple[Image.Image, ...]
    latent: torch.Tensor
    noise: torch.Tensor

    def pixels(self, attack: str = CLEAN, first: int = 0) -> torch.Tensor:
        """Return the images after an attack, given as text, as verification reads them: (n, 3, H, W).

        The first image is number `first` of those that the attack's seeds count.
        """
        import torch

        from treering_verify.media.conversion import to_tensor

        return torch.cat([to_tensor(image) for image in distorted(self.images, attack, first)])

    def part(self, chosen: range) -> Truth:
        """Return some of the images, with their latents and noise."""
        rows = slice(chosen.start, chosen.stop)
        return Truth(self.images[rows], self.latent[rows], self.noise[rows])


def truth(model: LatentModel, key: Key | None, seeds: Sequence[int], **options: Any) -> Truth:
    """Generate images from seeds, with their latents and initial noise."""
    import torch

    made = list(generate(model, key, seeds=seeds, **options))
    return Truth(
        tuple(r.image for r in made), torch.stack([r.latent for r in made]), torch.stack([r.noise for r in made])
    )


def distorted(images: Sequence[Image.Image], attack: str, first: int = 0) -> list[Image.Image]:
    """Return images after an attack, given as text, whose seeds count from `first`; "clean" leaves them as they are."""
    if attack == CLEAN:
        return list(images)
    chosen = attacks.parse(attack)
    return [chosen.apply(image, seed) for seed, image in enumerate(images, first)]


def hardware(*, accelerated: bool, processes: int = 1) -> str:
    """Return a description of the processor, its threads and vector unit, and the accelerator if one was used."""
    import torch

    threads = (
        f"{torch.get_num_threads()} threads" if processes == 1 else f"{processes} x {torch.get_num_threads()} threads"
    )
    text = f"{platform.machine()}, {threads}, {torch.backends.cpu.get_cpu_capability()}"
    return f"{text}, {torch.cuda.get_device_name()}" if accelerated and torch.cuda.is_available() else text


def versions() -> str:
    """Return the versions of the packages that results depend on."""
    import diffusers
    import numpy
    import torch

    parts = {
        "treering-verify": __version__,
        "torch": torch.__version__,
        "diffusers": diffusers.__version__,
        "numpy": numpy.__version__,
        "python": platform.python_version(),
    }
    return ", ".join(f"{name} {version}" for name, version in parts.items())
