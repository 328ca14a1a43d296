"""What a family of diffusers pipelines is: how its network is asked, its prompts encoded, and its latents laid out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from treering_verify.errors import ModelError, UsageError
from treering_verify.models.autoencoder import AUTOENCODERS, latent_channels, pixels_per_cell
from treering_verify.models.diffusers.video import Video
from treering_verify.models.protocol import Condition, Timestep

if TYPE_CHECKING:
    import torch

    Given = dict[str, torch.Tensor]


@dataclass(frozen=True)
class PipelineFamily:
    """One family.

    Attributes
    ----------
    name, covers : str
        What it is called, and which models it is known for.
    pipelines : tuple of str
        Classes of diffusers that belong to it.
    network : str
        The component that is asked at each step.
    straight : bool
        Whether its ODE is a rectified flow's; else it is diffusion, and the scheduler says whether epsilon or v.
    spaced : bool
        As for `flow_grid`.
    packed : bool
        Whether the network, and the pipeline's `latents=`, want 2 x 2 cells as one token, (B, h w / 4, 4 C).
    distilled : bool
        Whether guidance is told to the network, and not extrapolated from two passes.
    cells : int
        Default side of the latent where the network's configuration names none (`sample_size`).
    limits : str
        What does not work, or has not been tried.
    needs : tuple of str
        Packages that loading needs beside transformers.
    video : Video, optional
        How it makes videos, if it does: z is then (B, C F, h, w), as `treering_verify.models.diffusers.video` lays them out.
    caution : str
        Why verdicts reach less far than elsewhere, and what to do; said whenever such a model is loaded. Empty: they do not.
    sampler : callable, optional
        (scheduler's class name, its configuration) -> whether it tells this family from others of the same pipelines.
    follows : callable
        Pipeline -> the scheduler whose grid its call follows.
    classes : callable, optional
        Pipeline -> names of its classes, where conditions are not prompts.
    latents : bool
        Whether the pipeline's call takes `latents=`.
    square : bool
        Whether its images are.
    condition : callable
        (pipeline, prompt or None, image size) -> tensors of one row, whatever the prompt; None is what the pipeline itself
        extrapolates guidance from.
    predict : callable
        (pipeline, z, grid point, tensors of B rows, guidance) -> the network's output, shaped like z.
    """

    name: str
    covers: str
    pipelines: tuple[str, ...]
    network: str
    condition: Callable[[Any, Condition, tuple[int, int]], Given]
    predict: Callable[[Any, torch.Tensor, Timestep, Given, float], torch.Tensor]
    straight: bool = False
    spaced: bool = False
    packed: bool = False
    distilled: bool = False
    cells: int = 64
    limits: str = ""
    needs: tuple[str, ...] = ()
    video: Video | None = None
    caution: str = ""
    sampler: Callable[[str, Mapping[str, Any]], bool] | None = None
    follows: Callable[[Any], Any] = attrgetter("scheduler")
    classes: Callable[[Any], tuple[str, ...]] | None = None
    latents: bool = True
    square: bool = False

    @property
    def autoencoders(self) -> tuple[str, ...]:
        """Classes of diffusers that its autoencoder may be of."""
        return self.video.autoencoders if self.video else AUTOENCODERS

    def patch(self, network: Mapping[str, Any]) -> int:
        """Cells on a side of what the network sees as one token."""
        size = network.get("patch_size") or 1
        return (
            2 if self.packed else int(size if isinstance(size, int) else size[-1])
        )  # of a video's: (frames, rows, columns)

    def shapes(
        self,
        name: str,
        network: Mapping[str, Any],
        vae: Any,
        image_size: tuple[int, int] | None = None,
        frames: int | None = None,
    ) -> tuple[tuple[int, int, int], tuple[int, int]]:
        """Noise shape (C, h, w), (C F, h, w) of videos, and image size (H, W), from configurations alone.

        Raises
        ------
        ModelError
            If network and autoencoder do not fit each other.
        UsageError
            If images cannot have the size that is asked for.
        """
        channels, factor = (
            self.latent_channels(vae),
            self.video.cells(vae) if self.video else pixels_per_cell(name, vae),
        )
        wanted = channels * (4 if self.packed else 1)
        if network.get("in_channels") != wanted:
            raise ModelError(
                f"{name}: the network takes {network.get('in_channels')} channels and the autoencoder makes latents of "
                f"{wanted}: models for inpainting, depth or other images beside the noise are not supported"
            )
        side = network.get("sample_size") or self.cells
        default = (side, side) if isinstance(side, int) else tuple(side)
        own_size = self.video.size if self.video else None
        height, width = image_size or own_size or tuple(factor * cells for cells in default)
        unit = factor * self.patch(network)
        if height < unit or width < unit or height % unit or width % unit:
            raise UsageError(f"{name} makes no images of {height}x{width}: choose multiples of {unit}")
        if self.video:
            most = network.get("motion_max_seq_length")
            channels *= self.video.latent_frames(name, self.video.frames if frames is None else frames, most)
        elif frames is not None:
            raise UsageError(f"{name} makes images, not videos: leave the frames")
        if self.square and height != width:
            raise UsageError(f"{name} makes no images of {height}x{width}: choose a square")
        return (channels, height // factor, width // factor), (height, width)

    def latent_channels(self, vae: Mapping[str, Any]) -> int:
        """Channels of a latent, or of each latent frame."""
        return int(vae[self.video.channels]) if self.video else latent_channels(vae)
