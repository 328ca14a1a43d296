"""Videos as every algorithm sees them, and the autoencoders of video models.

The frames of a video lie one after another along the channel axis: images (B, 3 F, H, W), latents and noise
(B, C f, h, w), with f = F where an image decoder makes each frame, and fewer where the autoencoder squeezes time. So a video
is to the ODE, to the decoder inversions, to keys and to their tests what an image with more channels is. Only here, and
where a network is asked, time is an axis of its own: (B, C, f, h, w).

Both autoencoders take a video in chunks of a few frames, so that memory does not grow with its length, but for the images
and latents themselves. Through autograd the activations of all chunks are kept: that is the gradient baseline's price.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from treering_verify.errors import UsageError
from treering_verify.models import autoencoder

if TYPE_CHECKING:
    import torch


def fold(video: torch.Tensor) -> torch.Tensor:
    """(B, C, F, h, w) -> (B, F C, h, w), frame by frame."""
    return video.transpose(1, 2).flatten(1, 2)


def unfold(z: torch.Tensor, channels: int) -> torch.Tensor:
    """Undo `fold`: (B, F C, h, w) -> (B, C, F, h, w)."""
    return z.unflatten(1, (-1, channels)).transpose(1, 2)


def by_frame(coder: Callable[[torch.Tensor], torch.Tensor], channels: int) -> Callable[[torch.Tensor], torch.Tensor]:
    """Make what maps images of so many channels, (n, c, H, W), map videos, (B, F c, H, W), frame by frame."""

    def mapped(video: torch.Tensor) -> torch.Tensor:
        frames = video.unflatten(1, (-1, channels))
        return coder(frames.flatten(0, 1)).unflatten(0, frames.shape[:2]).flatten(1, 2)

    return mapped


def encode_frames(vae: Any, video: torch.Tensor) -> torch.Tensor:
    """Video (B, 3 F, H, W) -> latent (B, C F, h, w), by an image autoencoder."""
    return by_frame(lambda frames: autoencoder.encode(vae, frames), 3)(video)


def decode_frames(vae: Any, latent: torch.Tensor) -> torch.Tensor:
    """Latent (B, C F, h, w) -> video (B, 3 F, H, W), by an image autoencoder; not clamped."""
    return by_frame(lambda frames: autoencoder.decode(vae, frames), int(vae.config.latent_channels))(latent)


def encode_causally(vae: Any, video: torch.Tensor) -> torch.Tensor:
    """Video (B, 3 F, H, W) -> latent (B, C f, h, w), by `AutoencoderKLWan`, F = 1 + 4 (f - 1).

    The encoder takes the first frame, then four at a time, and keeps of what went before only what its causal convolutions
    look back at: the same numbers as at one go, in the memory of four frames.
    """
    with autoencoder.full_precision(video):
        posterior = vae.encode(unfold(video, 3).contiguous()).latent_dist
        mean, spread = _statistics(vae, video)
        return autoencoder.finite(fold((posterior.mode() - mean) / spread))


def decode_causally(vae: Any, latent: torch.Tensor) -> torch.Tensor:
    """Latent (B, C f, h, w) -> video (B, 3 F, H, W), by `AutoencoderKLWan`, a latent frame at a time.

    `AutoencoderKLWan.decode` clamps what it gives, which would hide from a decoder inversion that z leads out of the range;
    so the decoder is asked here. It keeps what its causal convolutions look back at in the list that it is given.
    """
    import torch

    mean, spread = _statistics(vae, latent)
    kept: list[Any] = [None] * sum(isinstance(part, torch.nn.Conv3d) for part in vae.decoder.modules())
    with autoencoder.full_precision(latent):
        raw = vae.post_quant_conv(unfold(latent, int(vae.config.z_dim)) * spread + mean)
        frames = enumerate(raw.split(1, 2))
        parts = [vae.decoder(frame, feat_cache=kept, feat_idx=[0], first_chunk=i == 0) for i, frame in frames]
    return fold(torch.cat(parts, dim=2))


def _statistics(vae: Any, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation of each channel of the raw latents, (1, C, 1, 1, 1)."""
    mean, spread = (like.new_tensor(vae.config[name]) for name in ("latents_mean", "latents_std"))
    return mean.view(1, -1, 1, 1, 1), spread.view(1, -1, 1, 1, 1)


@dataclass(frozen=True)
class Video:
    """What is special to a family of video models.

    Attributes
    ----------
    frames, fps : int
        Of a video, where nobody asks for another number; frames a second.
    autoencoders : tuple of str
        Classes of diffusers.
    encode, decode : callables
        (autoencoder, video (B, 3 F, H, W)) -> latent (B, C f, h, w), and back.
    channels : str
        What the autoencoder's configuration calls C.
    cells : callable
        Autoencoder's configuration -> pixels on a side of a cell.
    stride : int
        Frames that become one latent frame, after the first.
    size : (H, W), optional
        Of videos where the network's configuration names none.
    """

    frames: int
    fps: int
    autoencoders: tuple[str, ...]
    encode: Callable[[Any, torch.Tensor], torch.Tensor]
    decode: Callable[[Any, torch.Tensor], torch.Tensor]
    channels: str = "latent_channels"
    cells: Callable[[Any], int] = lambda vae: autoencoder.pixels_per_cell("", vae)
    stride: int = 1
    size: tuple[int, int] | None = None

    def latent_frames(self, name: str, frames: int, most: int | None) -> int:
        """Count of latent frames of a video; UsageError if the model makes none of that length."""
        if frames < 1 or (frames - 1) % self.stride or (most is not None and frames > most):
            several = f"1 more than a multiple of {self.stride}" if self.stride > 1 else "1 or more"
            raise UsageError(
                f"{name} makes no videos of {frames} frames: choose {several}{f', at most {most}' if most else ''}"
            )
        return (frames - 1) // self.stride + 1


FRAMEWISE = Video(16, 8, ("AutoencoderKL", "AutoencoderTiny"), encode_frames, decode_frames)
CAUSAL = Video(
    81,
    16,
    ("AutoencoderKLWan",),
    encode_causally,
    decode_causally,
    channels="z_dim",
    cells=lambda vae: int(vae["scale_factor_spatial"]),
    stride=4,
    size=(480, 832),
)
