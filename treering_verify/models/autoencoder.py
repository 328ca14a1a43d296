"""Encode and decode with the autoencoders of diffusers: image (B, 3, H, W) <-> latent (B, C, h, w), as the model scales it.

The kinds of autoencoder differ in the name of the latent and in how they configure its shape and normalisation; nothing
above this module depends on that. Configurations are read as mappings, so those of files will do.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from treering_verify.errors import ModelError, UsageError
from treering_verify.models.tiling import by_tiles

if TYPE_CHECKING:
    import torch

AUTOENCODERS = ("AutoencoderKL", "AutoencoderTiny", "AsymmetricAutoencoderKL", "AutoencoderDC", "VQModel")
_LOWERED: ContextVar[bool] = ContextVar("_LOWERED", default=False)


def encode(vae: Any, image: torch.Tensor, tile: int = 0) -> torch.Tensor:
    """Encode images in [-1, 1]: (B, 3, H, W) -> (B, C, h, w), the mode of the posterior, shifted and scaled.

    The precision is float32 whatever the caller's autocast, unless `lowered`. With `tile`, images are encoded in tiles of
    that many pixels on a side.

    Raises
    ------
    ModelError
        If the latent is not finite. In `lowered` precision it is returned nevertheless, and the caller checks it.
    """
    import torch

    def run(part: torch.Tensor) -> torch.Tensor:
        return _mode(vae.encode(part))

    with full_precision(image):
        if tile:
            factor = pixels_per_cell("", vae.config)
            parts = [by_tiles(run, one, tile // factor, shrink=factor) for one in image.split(1)]
        else:
            parts = [run(part) for part in _cache_sized(image)]
        latent = torch.cat(parts)
        scale, shift = _normalisation(vae.config, latent)
        return finite((latent - shift) * scale)


def finite(latent: torch.Tensor) -> torch.Tensor:
    """Return an encoder's latent; ModelError if it is not finite, except in `lowered` precision (see `encode`)."""
    if not _LOWERED.get() and not bool(latent.isfinite().all()):
        raise ModelError(
            "the autoencoder returned numbers that are not finite: its weights are damaged or overflow; "
            "fetch them again, or load them in float32"
        )
    return latent


def decode(vae: Any, latent: torch.Tensor, tile: int = 0) -> torch.Tensor:
    """Decode latents, (B, C, h, w) -> (B, 3, H, W), not clamped; precision and tiles as for `encode`."""
    import torch

    def run(part: torch.Tensor) -> torch.Tensor:
        return vae.decode(part).sample

    with full_precision(latent):
        scale, shift = _normalisation(vae.config, latent)
        raw, pixels = latent / scale + shift, pixels_per_cell("", vae.config)
        if tile:
            return torch.cat([by_tiles(run, one, tile // pixels, grow=pixels) for one in raw.split(1)])
        return torch.cat([run(part) for part in _cache_sized(raw, pixels)])


def fitting_tile(name: str, config: Any, tile: int) -> int:
    """Return the side of tiles in pixels (0: whole images); UsageError if the autoencoder cannot work on such tiles."""
    factor = pixels_per_cell(name, config)
    if tile and (tile % factor or tile < 4 * factor):
        raise UsageError(
            f"{name} has no tiles of {tile} pixels: choose a multiple of {factor} from {4 * factor} upwards"
        )
    return tile


@contextmanager
def lowered() -> Iterator[None]:
    """Let `encode` and `decode` run in the caller's autocast precision, within a `with` block."""
    before = _LOWERED.set(True)
    try:
        yield
    finally:
        _LOWERED.reset(before)


def pixels_per_cell(name: str, config: Mapping[str, Any]) -> int:
    """Return the pixels on a side of one latent cell, from a configuration.

    Raises
    ------
    ModelError
        If encoder and decoder disagree. `AutoencoderTiny`, -DC and Asymmetric- configure each by itself.
    """
    down = 2 ** (len(_stages(config, "encoder", "down")) - 1)
    up = config.get("upsampling_scaling_factor", 2) ** (len(_stages(config, "decoder", "up")) - 1)
    if down != up:
        raise ModelError(
            f"{name}: the encoder shrinks a side {down} times and the decoder grows it {up} times: "
            "give both halves of the autoencoder as many stages"
        )
    return int(down)


def latent_channels(config: Mapping[str, Any]) -> int:
    """Return the number of latent channels; with a codebook, that of its entries, which may differ from the decoder's."""
    return int(config.get("vq_embed_dim") or config["latent_channels"])


def check_autoencoder(name: str, vae: Any, known: Sequence[str] = AUTOENCODERS) -> None:
    """Raise ModelError if the kind of an autoencoder is not supported, or its latents are indices and not numbers."""
    kind = type(vae).__name__
    if kind not in known:
        raise ModelError(f"{name}: a {kind} is not supported: use one of {', '.join(known)}")
    if vae.config.get("lookup_from_codebook"):
        raise ModelError(f"{name}: its latents are indices of a codebook, which hold no noise: use another model")


def own_float32(vae: Any, device: Any) -> Any:
    """Return a frozen float32 copy of an autoencoder in evaluation mode; the given one is not changed.

    Weights that are float32 and on the device already are shared, not copied. Float32 is needed because the float16
    autoencoder of SDXL overflows on its own images, and inversion needs more digits than 16 bits have.

    Raises
    ------
    ModelError
        If the weights are not in memory (sequential offloading).
    """
    import inspect

    import torch

    state = vae.state_dict()
    if any(tensor.is_meta for tensor in state.values()):
        raise ModelError("the autoencoder's weights are not in memory: switch sequential offloading off for it")
    # Some kinds add fields to their configuration that their constructor does not take, and diffusers warns of them.
    taken = inspect.signature(type(vae).__init__).parameters
    with torch.device("meta"):
        own = type(vae)(**{name: value for name, value in vae.config.items() if name in taken})
    own.load_state_dict({name: tensor.to(device, torch.float32) for name, tensor in state.items()}, assign=True)
    return own.eval().requires_grad_(False)


def _mode(encoded: Any) -> torch.Tensor:
    """Return the latent of an encoder's output: the mode of a posterior (KL kinds), or the latent itself.

    For a `VQModel` it is the latent before the codebook, which is what the diffusion model makes; see docs/models.md.
    """
    if "latent_dist" in encoded:
        return encoded.latent_dist.mode()
    return encoded.latents if "latents" in encoded else encoded.latent


def _normalisation(config: Any, like: torch.Tensor) -> tuple[Any, Any]:
    """Return scale and shift of (raw - shift) scale; some kinds configure them for each channel (`latents_mean`)."""
    scale = float(config.scaling_factor)
    if config.get("latents_mean") is not None and config.get("latents_std") is not None:
        mean, std = (like.new_tensor(config[name]).view(1, -1, 1, 1) for name in ("latents_mean", "latents_std"))
        return scale / std, mean
    return scale, float(config.get("shift_factor") or 0.0)


def full_precision(like: torch.Tensor) -> AbstractContextManager[Any]:
    """Return a context without the caller's autocast, unless precision is `lowered`."""
    import torch

    device = like.device.type
    cast = torch.is_autocast_enabled(device) and not _LOWERED.get()
    return torch.autocast(device, enabled=False) if cast else nullcontext()


def _stages(config: Mapping[str, Any], half: str, direction: str) -> Sequence[int]:
    """Return the widths of the stages of encoder or decoder, under the name that a kind configures them by."""
    names = (f"{half}_block_out_channels", f"{direction}_block_out_channels", "block_out_channels")
    return next(config[name] for name in names if config.get(name))


_PIXELS_PER_PASS = {"cpu": 4 * 128 * 128}
_PIXELS_PER_PASS_ELSEWHERE = 4 * 512 * 512  # one image of SDXL at a time, in float32


def _cache_sized(batch: torch.Tensor, pixels_per_side: int = 1) -> tuple[torch.Tensor, ...]:
    """Split a batch so that activations at full resolution fit a processor's cache or a GPU's memory.

    Measured on two cores, 128 x 128, seconds an image: decoder .029 four at a time, .053 sixteen at a time.
    """
    pixels = batch.shape[-2] * batch.shape[-1] * pixels_per_side**2
    most = _PIXELS_PER_PASS.get(batch.device.type, _PIXELS_PER_PASS_ELSEWHERE)
    return batch.split(max(1, most // pixels))
