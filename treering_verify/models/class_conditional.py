"""A class-conditional model of diffusers parts: an autoencoder, a `UNet2DModel` and a scheduler.

With a `DDIMScheduler` the network predicts noise or v, with a `FlowMatchEulerDiscreteScheduler` the velocity noise - latent.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from treering_verify.errors import ModelError, UsageError, unknown
from treering_verify.models.autoencoder import check_autoencoder, decode, encode, latent_channels, pixels_per_cell
from treering_verify.models.diffusers.rectified_flow import is_flow
from treering_verify.models.diffusers.schedules import FLOW, diffusion_grid, estimates, flow_grid, flow_scheduler
from treering_verify.models.precision import ieee
from treering_verify.models.protocol import Condition, Timestep

if TYPE_CHECKING:
    import torch

    from treering_verify.models.restorer import Restorer


class ClassConditionalModel:
    """A `LatentModel` of diffusers parts; the last class index of the network stands for no condition.

    Parameters
    ----------
    name : str
        Its name in records.
    vae, unet, scheduler
        One of `AUTOENCODERS`, `UNet2DModel`, and `DDIMScheduler` or `FlowMatchEulerDiscreteScheduler`. The first two must
        be frozen and in evaluation mode.
    refiner : optional
        A `Refiner` of this autoencoder, frozen and in evaluation mode.
    estimator : optional
        An `Estimator` of this diffusion model, frozen and in evaluation mode.
    screen : optional
        A cheap `Estimator` for the screening pass, frozen and in evaluation mode.
    classes : sequence of str
        Names of the class indices 0 .. n - 1; index n stands for no condition.

    Raises
    ------
    ModelError
        If the model cannot be inverted, or its parts do not fit each other.
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
        screen: Any = None,
    ) -> None:
        self._straight = is_flow(type(scheduler).__name__, scheduler.config)
        (_check_flow if self._straight else _check_diffusion)(name, scheduler)
        if unet.config.num_class_embeds != len(classes) + 1:
            raise ModelError(
                f"{name}: {len(classes)} class names need {len(classes) + 1} class embeddings (the last: none)"
            )
        check_autoencoder(name, vae)
        if latent_channels(vae.config) != unet.config.in_channels:
            raise ModelError(
                f"{name}: the network takes {unet.config.in_channels} channels and the autoencoder makes latents of "
                f"{latent_channels(vae.config)}: use the autoencoder that it was trained with"
            )
        self.name, self.classes, self.device = name, tuple(classes), "cpu"
        self._vae, self._unet, self._scheduler = vae, unet, scheduler
        self.refine, self.estimate, self.screen, self.tile = refiner, estimator, screen, 0
        self.restorer: Restorer | None = None
        self._alphas: list[float] = _shares_of_signal(scheduler, self._straight)
        if refiner is not None:
            refiner.denoise = self.denoised
        factor = pixels_per_cell(name, vae.config)
        side = unet.config.sample_size
        height, width = (side, side) if isinstance(side, int) else side
        self.latent_shape = (int(unet.config.in_channels), height, width)
        self.image_size = (height * factor, width * factor)

    def to(self, device: str) -> ClassConditionalModel:
        """Move the model to a device of torch, and return it."""
        import torch

        for part in vars(self).values():
            if isinstance(part, torch.nn.Module):
                part.to(device)
        self.device = device
        return self

    def encode(self, image: torch.Tensor) -> torch.Tensor:
        """Encode images in [-1, 1], (B, 3, H, W) -> (B, C, h, w): the mode of the posterior, shifted and scaled."""
        return encode(self._vae, image.to(self.device)).to(image.device)

    def decode(self, latent: torch.Tensor) -> torch.Tensor:
        """Decode latents, (B, C, h, w) -> (B, 3, H, W), not clamped."""
        return decode(self._vae, latent.to(self.device)).to(latent.device)

    def timesteps(self, steps: int) -> tuple[Timestep, ...]:
        """Return the scheduler's grid, noisiest first; the last point is where the scheduler ends."""
        return (flow_grid if self._straight else diffusion_grid)(self._scheduler, steps)

    def denoise(
        self, z: torch.Tensor, at: Timestep, conditions: Sequence[Condition], guidance: float = 1.0
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Estimate (latent, noise) from z_t; guidance g gives out(no condition) + g (out(condition) - out(no condition))."""
        import torch

        inside, labels = z.to(self.device), torch.tensor([self._label(c) for c in conditions], device=self.device)
        with ieee():
            output = self._unet(inside, at.index, class_labels=labels).sample.float()
            if guidance != 1.0:
                labels = torch.full_like(labels, len(self.classes))
                unconditional = self._unet(inside, at.index, class_labels=labels).sample.float()
                output = unconditional + guidance * (output - unconditional)
        return estimates(z, at, output.to(z.device), FLOW if self._straight else self._scheduler.config.prediction_type)

    def denoised(self, latent: torch.Tensor, level: int) -> torch.Tensor:
        """Denoise a latent, (B, C, h, w), as if it were noisy at a time index, and return the estimate of z_0.

        No noise is added. It takes one network pass, without a condition.
        """
        at = Timestep(level, self._alphas[level], self._straight)
        return self.denoise(at.signal * latent, at, [None] * len(latent))[0]

    def _label(self, condition: Condition) -> int:
        if condition is None:
            return len(self.classes)
        if condition not in self.classes:
            raise UsageError(f"model {self.name!r}: {unknown('class', condition, self.classes)}")
        return self.classes.index(condition)


def _check_diffusion(name: str, scheduler: Any) -> None:
    config = scheduler.config
    if config.prediction_type not in ("epsilon", "v_prediction"):
        raise ModelError(f"{name}: prediction type {config.prediction_type!r} is not supported: use epsilon or v")
    if config.prediction_type == "epsilon" and config.rescale_betas_zero_snr:
        raise ModelError(f"{name}: epsilon prediction at zero SNR cannot be inverted: use v-prediction")
    if config.clip_sample or config.thresholding:
        raise ModelError(f"{name}: set clip_sample and thresholding to false in the scheduler: clipping has no inverse")


def _check_flow(name: str, scheduler: Any) -> None:
    flow_scheduler(name, scheduler)
    if scheduler.config.use_dynamic_shifting:
        raise ModelError(
            f"{name}: set use_dynamic_shifting to false in the scheduler: a U-Net has no tokens to shift by"
        )


def _shares_of_signal(scheduler: Any, straight: bool) -> list[float]:
    """Return `Timestep.alpha` of every time index."""
    if not straight:
        return [float(alpha) for alpha in scheduler.alphas_cumprod]
    count = scheduler.config.num_train_timesteps
    return [1 - index / count for index in range(count)]
