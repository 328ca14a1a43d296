"""The definition of a family of pipelines: how it encodes prompts, runs its network, and lays out latents."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from treering_verify.errors import ModelError, UsageError
from treering_verify.models.autoencoder import AUTOENCODERS, latent_channels, pixels_per_cell
from treering_verify.models.diffusers.components import allowed_components
from treering_verify.models.diffusers.video import VideoLayout
from treering_verify.models.protocol import Condition, Timestep

if TYPE_CHECKING:
    import torch

    Given = dict[str, torch.Tensor]


def class_of_diffusers(name: str) -> Any:
    """Return the class of diffusers of a name."""
    import diffusers

    return getattr(diffusers, name)


def extrapolated(given: torch.Tensor, without: torch.Tensor, guidance: float) -> torch.Tensor:
    """Return the output with guidance, from those with and without a condition (Ho and Salimans, arXiv 2207.12598)."""
    return without + guidance * (given - without)


@dataclass(frozen=True)
class OtherAutoencoder:
    """How a family uses an autoencoder that `treering_verify.models.autoencoder` does not know.

    Attributes
    ----------
    classes : tuple of str
        Classes of diffusers that it may be of.
    config : callable
        Configuration -> the same in the words of `AutoencoderKL`: block_out_channels, latent_channels, scaling_factor.
    wrapped : callable
        Autoencoder -> an object with `encode`, `decode` and `config`, as an `AutoencoderKL` has them.
    """

    classes: tuple[str, ...]
    config: Callable[[Mapping[str, Any]], Mapping[str, Any]]
    wrapped: Callable[[Any], Any]


@dataclass(frozen=True)
class PipelineFamily:
    """A family of pipelines.

    Attributes
    ----------
    name, covers : str
        Its name, and the models that belong to it.
    pipelines : tuple of str
        Classes of diffusers that belong to it.
    network : str
        Component that predicts at each step.
    networks : tuple of str
        Classes of diffusers that this component may be of; a folder that names another is refused.
    components : tuple of str
        Components that its folders may have beside network, autoencoder and scheduler, such as "text_encoder_2".
    kinds : mapping
        Component -> the classes of transformers that it may be of, where they are not those that most families have.
    straight : bool
        Whether its ODE is a rectified flow. Otherwise it is diffusion, and the scheduler says whether epsilon or v.
    spaced : bool
        As in `flow_grid`.
    shift : callable, optional
        (scheduler's configuration, tokens of one image, steps) -> dynamic shift. Default: as in `flow_grid`.
    packed : bool
        Whether the network takes 2 x 2 cells as one token, (B, h w / 4, 4 C).
    laid_out : callable, optional
        Noise (B, C, h, w) -> the layout of the pipeline's `latents=`. Default: tokens if it is packed, else unchanged.
    distilled : bool
        Whether guidance is an input of the network, and not extrapolated from two passes.
    guided : callable
        (output, output without condition, guidance) -> output with guidance.
    cells : int
        Default side of the latent, if the network's configuration has no `sample_size`.
    limits : str
        What does not work, or was not tried.
    needs : tuple of str
        Packages that loading needs in addition to transformers.
    autoencoder : OtherAutoencoder, optional
        How its autoencoder is used, if it is none of `treering_verify.models.autoencoder.AUTOENCODERS`.
    video : VideoLayout, optional
        Layout of its videos, if it makes videos: z is then (B, C F, h, w); see `treering_verify.models.diffusers.video`.
    caution : str
        Why marks are detected less surely, and what to do, for a warning when such a model is loaded; empty if they are not.
    cautioned : callable
        Pipeline -> whether the caution applies to it.
    sampler : callable, optional
        (class name of the scheduler, its configuration) -> whether they tell this family from others of its pipelines.
    class_of : callable
        Name among `pipelines` -> the class, with which its folders are loaded.
    own_parts : callable, optional
        (folder, dtype, variant) -> components of classes that diffusers does not have, loaded.
    follows : callable
        Pipeline -> scheduler whose grid its call follows.
    classes : callable, optional
        Pipeline -> names of its classes, if conditions are not prompts.
    latents : bool
        Whether the pipeline's call takes `latents=`.
    square : bool
        Whether its images are square.
    condition : callable
        (pipeline, prompt or None, image size) -> tensors of one row. None is the condition from which the pipeline
        extrapolates guidance.
    predict : callable
        (pipeline, z, grid point, tensors of B rows, guidance) -> the network's output, shaped like z.
    """

    name: str
    covers: str
    pipelines: tuple[str, ...]
    network: str
    condition: Callable[[Any, Condition, tuple[int, int]], Given]
    predict: Callable[[Any, torch.Tensor, Timestep, Given, float], torch.Tensor]
    networks: tuple[str, ...] = ("UNet2DConditionModel",)
    components: tuple[str, ...] = ("text_encoder", "tokenizer", "feature_extractor", "image_encoder", "safety_checker")
    kinds: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    straight: bool = False
    spaced: bool = False
    shift: Callable[[Mapping[str, Any], int, int], float] | None = None
    packed: bool = False
    laid_out: Callable[[torch.Tensor], torch.Tensor] | None = None
    distilled: bool = False
    guided: Callable[[torch.Tensor, torch.Tensor, float], torch.Tensor] = extrapolated
    cells: int = 64
    limits: str = ""
    needs: tuple[str, ...] = ()
    autoencoder: OtherAutoencoder | None = None
    video: VideoLayout | None = None
    caution: str = ""
    cautioned: Callable[[Any], bool] = lambda pipe: True
    sampler: Callable[[str, Mapping[str, Any]], bool] | None = None
    class_of: Callable[[str], Any] = class_of_diffusers
    own_parts: Callable[[Path, Any, str | None], dict[str, Any]] | None = None
    follows: Callable[[Any], Any] = attrgetter("scheduler")
    classes: Callable[[Any], tuple[str, ...]] | None = None
    latents: bool = True
    square: bool = False

    @property
    def autoencoders(self) -> tuple[str, ...]:
        """Supported classes of its autoencoder."""
        if self.video:
            return self.video.autoencoders
        return self.autoencoder.classes if self.autoencoder else AUTOENCODERS

    @property
    def allowed(self) -> dict[str, tuple[str, ...]]:
        """Components that its folders may have, and for each the classes it may be of, as "library.Class"."""
        return allowed_components(self.network, self.networks, self.autoencoders, self.components, self.kinds)

    def patch(self, network: Mapping[str, Any]) -> int:
        """Return the cells on a side of one token of the network."""
        size = network.get("patch_size") or network.get("all_patch_size") or 1  # of a video's: (frames, rows, columns)
        return 2 if self.packed else int(size if isinstance(size, int) else size[-1])

    def shapes(
        self,
        name: str,
        network: Mapping[str, Any],
        vae: Any,
        image_size: tuple[int, int] | None = None,
        frames: int | None = None,
        masked: bool = False,
    ) -> tuple[tuple[int, int, int], tuple[int, int]]:
        """Return the noise shape (C, h, w), or (C F, h, w) for videos, and the image size (H, W), from configurations.

        With `masked`, the network may take a mask and the latent of a masked image beside the noise (inpainting).

        Raises
        ------
        ModelError
            If network and autoencoder do not fit each other.
        UsageError
            If images or videos of the requested size are impossible.
        """
        channels, factor = (
            self.latent_channels(vae),
            self.video.cells(vae) if self.video else pixels_per_cell(name, self.plain(vae)),
        )
        wanted = channels * (4 if self.packed else 1)
        if network.get("in_channels") not in ((wanted, 2 * channels + 1) if masked else (wanted,)):
            raise ModelError(
                f"{name}: the network takes {network.get('in_channels')} channels and the autoencoder makes latents of "
                f"{wanted}: models for depth or other images beside the noise are not supported"
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
            raise UsageError(f"{name} makes images, not videos: leave out the frames")
        if self.square and height != width:
            raise UsageError(f"{name} makes no images of {height}x{width}: choose a square")
        return (channels, height // factor, width // factor), (height, width)

    def latent_channels(self, vae: Mapping[str, Any]) -> int:
        """Return the channels of a latent, or of each latent frame."""
        return int(vae[self.video.channels]) if self.video else latent_channels(self.plain(vae))

    def plain(self, vae: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the configuration of its image autoencoder in the words of `AutoencoderKL`."""
        return self.autoencoder.config(vae) if self.autoencoder else vae
