"""Adapter for class-conditional latent diffusion: AutoencoderKL or -Tiny + UNet2DModel + DDIMScheduler of diffusers."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from treering_verify.errors import ModelError, UsageError
from treering_verify.models.protocol import Condition, Timestep

if TYPE_CHECKING:
    import torch


class ClassConditionalModel:
    """A `LatentModel` made of diffusers parts; the last class index of the network is the null class.

    Parameters
    ----------
    name : str
    vae, unet, scheduler
        `AutoencoderKL` or `AutoencoderTiny`, `UNet2DModel` and `DDIMScheduler`. The first two must be frozen and in
        evaluation mode.
    refiner : optional
        A `Refiner` of this autoencoder, frozen and in evaluation mode.
    estimator : optional
        An `Estimator` of this diffusion model, likewise.
    classes : sequence of str
        Names of the class indices 0 .. n - 1; index n is the null class.

    Raises
    ------
    ModelError
        If the parts cannot be inverted or do not fit each other.
    """

    def __init__(
        self,
        name: str,
        vae: Any,
        unet: Any,
        scheduler: Any,
        classes: Sequence[str],
        refiner: Any = None,
        estimator: Any = None,
    ) -> None:
        config = scheduler.config
        if config.prediction_type not in ("epsilon", "v_prediction"):
            raise ModelError(f"{name}: prediction type {config.prediction_type!r} is not supported: use epsilon or v")
        if config.prediction_type == "epsilon" and config.rescale_betas_zero_snr:
            raise ModelError(f"{name}: epsilon prediction at zero SNR cannot be inverted: use v-prediction")
        if config.clip_sample or config.thresholding:
            raise ModelError(
                f"{name}: set clip_sample and thresholding to false in the scheduler: clipping has no inverse"
            )
        if unet.config.num_class_embeds != len(classes) + 1:
            raise ModelError(
                f"{name}: {len(classes)} class names need {len(classes) + 1} class embeddings (the last: none)"
            )
        self.name, self.classes = name, tuple(classes)
        self._vae, self._unet, self._scheduler = vae, unet, scheduler
        self.refine, self.estimate = refiner, estimator
        factor = _pixels_per_cell(name, vae.config)
        side = unet.config.sample_size
        height, width = (side, side) if isinstance(side, int) else side
        self.latent_shape = (int(unet.config.in_channels), height, width)
        self.image_size = (height * factor, width * factor)
        self._scale = float(vae.config.scaling_factor)
        self._shift = float(vae.config.shift_factor or 0.0)

    def encode(self, image: torch.Tensor) -> torch.Tensor:
        """Image (B, 3, H, W) in [-1, 1] -> latent (B, C, h, w): mode of the posterior, if any, shifted and scaled."""
        import torch

        parts = [_mode(self._vae.encode(part)) for part in _cache_sized(image, self.image_size)]
        return (torch.cat(parts) - self._shift) * self._scale

    def decode(self, latent: torch.Tensor) -> torch.Tensor:
        """Latent (B, C, h, w) -> image (B, 3, H, W), not clamped."""
        import torch

        raw = latent / self._scale + self._shift
        return torch.cat([self._vae.decode(part).sample for part in _cache_sized(raw, self.image_size)])

    def timesteps(self, steps: int) -> tuple[Timestep, ...]:
        """Return the scheduler's own grid, noisiest first; the last point is where the scheduler ends (alpha-bar_0)."""
        import copy

        most = self._scheduler.config.num_train_timesteps - 1  # one less: an offset would lead past the schedule's end
        if not 1 <= steps <= most:
            raise UsageError(f"steps is {steps}: choose 1 to {most}")
        scheduler = copy.deepcopy(self._scheduler)
        scheduler.set_timesteps(steps)
        indices = [int(t) for t in scheduler.timesteps]
        points = [Timestep(t, float(scheduler.alphas_cumprod[t])) for t in indices]
        return (*points, Timestep(0, float(scheduler.final_alpha_cumprod)))

    def denoise(
        self, z: torch.Tensor, at: Timestep, conditions: Sequence[Condition], guidance: float = 1.0
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Estimate (latent, noise) from z_t; guidance g extrapolates: v = v_null + g (v_condition - v_null)."""
        import torch

        labels = torch.tensor([self._label(c) for c in conditions], device=z.device)
        with _autocast(z.device.type):
            output = self._unet(z, at.index, class_labels=labels).sample.float()
            if guidance != 1.0:
                null = self._unet(z, at.index, class_labels=torch.full_like(labels, len(self.classes))).sample.float()
                output = null + guidance * (output - null)
        signal, sigma = at.alpha**0.5, (1 - at.alpha) ** 0.5
        if self._scheduler.config.prediction_type == "epsilon":
            return (z - sigma * output) / signal, output
        return signal * z - sigma * output, sigma * z + signal * output

    def _label(self, condition: Condition) -> int:
        if condition is None:
            return len(self.classes)
        if condition not in self.classes:
            raise UsageError(f"model {self.name!r} has no class {condition!r}: choose one of {', '.join(self.classes)}")
        return self.classes.index(condition)


def _mode(encoded: Any) -> torch.Tensor:
    """Return the latent that an encoder means: `AutoencoderTiny` says it outright, others the posterior around it."""
    return encoded.latents if "latents" in encoded else encoded.latent_dist.mode()


def _pixels_per_cell(name: str, config: Any) -> int:
    """Pixels per latent cell and side; the halves of an `AutoencoderTiny` are configured apart and may disagree."""
    down = 2 ** (len(config.get("encoder_block_out_channels", config.block_out_channels)) - 1)
    up = config.get("upsampling_scaling_factor", 2) ** (len(config.block_out_channels) - 1)
    if down != up:
        raise ModelError(
            f"{name}: the encoder shrinks a side {down} times and the decoder grows it {up} times: "
            "give both halves of the autoencoder as many stages"
        )
    return int(down)


_PIXELS_PER_PASS = 4 * 128 * 128


def _cache_sized(batch: torch.Tensor, image_size: tuple[int, int]) -> tuple[torch.Tensor, ...]:
    """Split an autoencoder's batch on a processor, whose activations at full resolution outgrow cache and allocator.

    Measured on two cores, 128 x 128, seconds an image: decoder 0.029 four at a time, 0.053 sixteen at a time.
    """
    if batch.device.type != "cpu":
        return (batch,)
    return batch.split(max(1, _PIXELS_PER_PASS // (image_size[0] * image_size[1])))


def _autocast(device: str) -> AbstractContextManager[Any]:
    """Run the network in bfloat16 where the processor multiplies it in hardware; emulated, it is 3 times slower."""
    import torch

    if device == "cpu" and torch.cpu._is_amx_tile_supported():
        return torch.autocast("cpu", torch.bfloat16)
    return nullcontext()
