"""Autoencoders of diffusers: image (B, 3, H, W) <-> latent (B, C, h, w) as the diffusion model sees it.

Kinds differ in what they call the latent, in how they configure its shape and its normalisation, and in nothing else that
anything above has to know. Their configurations are read as mappings, so that files will do.
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
    """Image in [-1, 1] -> latent: mode of the posterior, if any, shifted and scaled; a caller's autocast does not reach it.

    By tiles of so many pixels, if any.

    Raises
    ------
    ModelError
        If the latent is not finite. In `lowered` precision it is returned all the same: whoever chose that looks for it.
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
    """Return a latent that an encoder gave; ModelError if it is not finite, but in `lowered` precision (see `encode`)."""
    if not _LOWERED.get() and not bool(latent.isfinite().all()):
        raise ModelError("the autoencoder gave numbers that are not finite: its weights are damaged or overflow")
    return latent


def decode(vae: Any, latent: torch.Tensor, tile: int = 0) -> torch.Tensor:
    """Latent -> image, not clamped; likewise."""
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
    """Return the side of tiles, in pixels; UsageError if the autoencoder cannot work on such (0: whole images)."""
    factor = pixels_per_cell(name, config)
    if tile and (tile % factor or tile < 4 * factor):
        raise UsageError(
            f"{name} has no tiles of {tile} pixels: choose a multiple of {factor} from {4 * factor} upwards"
        )
    return tile


@contextmanager
def lowered() -> Iterator[None]:
    """Let autocast reach `encode` and `decode`: their precision is lowered on purpose."""
    before = _LOWERED.set(True)
    try:
        yield
    finally:
        _LOWERED.reset(before)


def pixels_per_cell(name: str, config: Mapping[str, Any]) -> int:
    """Pixels per latent cell and side, from a configuration alone.

    Raises
    ------
    ModelError
        If the halves disagree: `AutoencoderTiny`, -DC and Asymmetric- configure each apart.
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
    """Channels of the latent; those of a codebook's entries where there is one, which need not be the decoder's own."""
    return int(config.get("vq_embed_dim") or config["latent_channels"])


def check_autoencoder(name: str, vae: Any, known: Sequence[str] = AUTOENCODERS) -> None:
    """Raise ModelError if an autoencoder is of no kind that is known, or its latents are not numbers but indices."""
    kind = type(vae).__name__
    if kind not in known:
        raise ModelError(f"{name}: a {kind} is not supported: use one of {', '.join(known)}")
    if vae.config.get("lookup_from_codebook"):
        raise ModelError(
            f"{name}: its latents are indices of a codebook, in which no noise is written: use another model"
        )


def own_float32(vae: Any, device: Any) -> Any:
    """Frozen float32 autoencoder in evaluation mode, of the same weights; the given one stays as it is.

    Weights that are float32 and on the device already are shared, not copied. The float16 autoencoder of SDXL overflows on
    its own images, and inversion needs more digits than 16 bits have.

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
    # Some kinds add to their configuration what they do not take, and diffusers complains of it.
    taken = inspect.signature(type(vae).__init__).parameters
    with torch.device("meta"):
        own = type(vae)(**{name: value for name, value in vae.config.items() if name in taken})
    own.load_state_dict({name: tensor.to(device, torch.float32) for name, tensor in state.items()}, assign=True)
    return own.eval().requires_grad_(False)


def _mode(encoded: Any) -> torch.Tensor:
    """Return the latent that an encoder means: KL kinds say the posterior around it, others the latent outright.

    That of a `VQModel` is the one before the codebook, as the diffusion model makes them; see docs/models.md.
    """
    if "latent_dist" in encoded:
        return encoded.latent_dist.mode()
    return encoded.latents if "latents" in encoded else encoded.latent


def _normalisation(config: Any, like: torch.Tensor) -> tuple[Any, Any]:
    """Scale and shift in (raw - shift) scale; some configure them for each channel (`latents_mean`, `latents_std`)."""
    scale = float(config.scaling_factor)
    if config.get("latents_mean") is not None and config.get("latents_std") is not None:
        mean, std = (like.new_tensor(config[name]).view(1, -1, 1, 1) for name in ("latents_mean", "latents_std"))
        return scale / std, mean
    return scale, float(config.get("shift_factor") or 0.0)


def full_precision(like: torch.Tensor) -> AbstractContextManager[Any]:
    """Switch a caller's autocast off, unless precision was lowered on purpose."""
    import torch

    device = like.device.type
    cast = torch.is_autocast_enabled(device) and not _LOWERED.get()
    return torch.autocast(device, enabled=False) if cast else nullcontext()


def _stages(config: Mapping[str, Any], half: str, direction: str) -> Sequence[int]:
    """Widths of the stages of one half, under whichever name a kind configures them."""
    names = (f"{half}_block_out_channels", f"{direction}_block_out_channels", "block_out_channels")
    return next(config[name] for name in names if config.get(name))


_PIXELS_PER_PASS = {"cpu": 4 * 128 * 128}
_PIXELS_PER_PASS_ELSEWHERE = 4 * 512 * 512  # no more than one image of SDXL at a time in float32


def _cache_sized(batch: torch.Tensor, pixels_per_side: int = 1) -> tuple[torch.Tensor, ...]:
    """Split an autoencoder's batch, whose activations at full resolution outgrow a processor's cache or a card's memory.

    Measured on two cores, 128 x 128, seconds an image: decoder 0.029 four at a time, 0.053 sixteen at a time.
    """
    pixels = batch.shape[-2] * batch.shape[-1] * pixels_per_side**2
    most = _PIXELS_PER_PASS.get(batch.device.type, _PIXELS_PER_PASS_ELSEWHERE)
    return batch.split(max(1, most // pixels))
