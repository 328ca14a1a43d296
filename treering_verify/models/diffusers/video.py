"""The layout of videos, and the autoencoders of video models.

The frames of a video are concatenated along the channel axis: images (B, 3 F, H, W), latents and noise (B, C f, h, w). Here
f = F if an image decoder makes each frame, and f < F if the autoencoder compresses time. So for the ODE, the decoder
inversions, keys and tests a video is an image with more channels. Only here, and where a network is run, time has its own
axis: (B, C, f, h, w).

Both autoencoders process a video in chunks of a few frames, so that their memory does not grow with its length. With
autograd the activations of all chunks are stored, which the gradient-based decoder inversion pays for.
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
    """Concatenate frames along the channels: (B, C, F, h, w) -> (B, F C, h, w)."""
    return video.transpose(1, 2).flatten(1, 2)


def unfold(z: torch.Tensor, channels: int) -> torch.Tensor:
    """Return the inverse of `fold`: (B, F C, h, w) -> (B, C, F, h, w)."""
    return z.unflatten(1, (-1, channels)).transpose(1, 2)


def by_frame(coder: Callable[[torch.Tensor], torch.Tensor], channels: int) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return a function that maps videos, (B, F c, H, W), frame by frame, from one that maps images, (n, c, H, W)."""

    def mapped(video: torch.Tensor) -> torch.Tensor:
        frames = video.unflatten(1, (-1, channels))
        return coder(frames.flatten(0, 1)).unflatten(0, frames.shape[:2]).flatten(1, 2)

    return mapped


def encode_frames(vae: Any, video: torch.Tensor) -> torch.Tensor:
    """Encode videos by an image autoencoder: (B, 3 F, H, W) -> (B, C F, h, w)."""
    return by_frame(lambda frames: autoencoder.encode(vae, frames), 3)(video)


def decode_frames(vae: Any, latent: torch.Tensor) -> torch.Tensor:
    """Decode videos by an image autoencoder: (B, C F, h, w) -> (B, 3 F, H, W), not clamped."""
    return by_frame(lambda frames: autoencoder.decode(vae, frames), int(vae.config.latent_channels))(latent)


def encode_causally(vae: Any, video: torch.Tensor) -> torch.Tensor:
    """Encode videos by `AutoencoderKLWan`: (B, 3 F, H, W) -> (B, C f, h, w), F = 1 + 4 (f - 1).

    The encoder takes the first frame, then four at a time, and stores only the earlier values that its causal convolutions
    need. The result is the same as for all frames at once, in the memory of four frames.
    """
    with autoencoder.full_precision(video):
        posterior = vae.encode(unfold(video, 3).contiguous()).latent_dist
        mean, spread = _statistics(vae, video)
        return autoencoder.finite(fold((posterior.mode() - mean) / spread))


def decode_causally(vae: Any, latent: torch.Tensor) -> torch.Tensor:
    """Decode videos by `AutoencoderKLWan`: (B, C f, h, w) -> (B, 3 F, H, W), one latent frame at a time, not clamped.

    `AutoencoderKLWan.decode` clamps its output, which would hide values out of range from a decoder inversion. So its
    decoder is called directly. The decoder stores the earlier values that its causal convolutions need in a given list.
    """
    import torch

    mean, spread = _statistics(vae, latent)
    cache: list[Any] = [None] * sum(isinstance(part, torch.nn.Conv3d) for part in vae.decoder.modules())
    with autoencoder.full_precision(latent):
        raw = vae.post_quant_conv(unfold(latent, int(vae.config.z_dim)) * spread + mean)
        frames = enumerate(raw.split(1, 2))
        parts = [vae.decoder(frame, feat_cache=cache, feat_idx=[0], first_chunk=i == 0) for i, frame in frames]
    return fold(torch.cat(parts, dim=2))


def _statistics(vae: Any, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return mean and standard deviation of each channel of the raw latents, (1, C, 1, 1, 1)."""
    mean, spread = (like.new_tensor(vae.config[name]) for name in ("latents_mean", "latents_std"))
    return mean.view(1, -1, 1, 1, 1), spread.view(1, -1, 1, 1, 1)


@dataclass(frozen=True)
class VideoLayout:
    """Properties of the videos and the autoencoder of a family of video models.

    Attributes
    ----------
    frames, fps : int
        Default number of frames, and frames per second.
    autoencoders : tuple of str
        Supported classes of its autoencoder.
    encode, decode : callables
        (autoencoder, video (B, 3 F, H, W)) -> latent (B, C f, h, w), and its inverse.
    channels : str
        Name of C in the autoencoder's configuration.
    cells : callable
        Autoencoder's configuration -> pixels on a side of a cell.
    stride : int
        Frames that become one latent frame, after the first.
    size : (H, W), optional
        Default size of videos, if the network's configuration has none.
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
        """Return the number of latent frames of a video; UsageError if the model makes no videos of that length."""
        if frames < 1 or (frames - 1) % self.stride or (most is not None and frames > most):
            several = f"1 more than a multiple of {self.stride}" if self.stride > 1 else "1 or more"
            raise UsageError(
                f"{name} makes no videos of {frames} frames: choose {several}{f', at most {most}' if most else ''}"
            )
        return (frames - 1) // self.stride + 1


FRAMEWISE = VideoLayout(16, 8, ("AutoencoderKL", "AutoencoderTiny"), encode_frames, decode_frames)
CAUSAL = VideoLayout(
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
