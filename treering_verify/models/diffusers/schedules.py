"""Turn schedulers of diffusers into grids of `Timestep`, and network outputs into estimates of (latent, noise)."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from treering_verify.errors import ModelError, UsageError
from treering_verify.models.protocol import Timestep

if TYPE_CHECKING:
    import torch

EPSILON, VELOCITY, FLOW = "epsilon", "v_prediction", "flow"


def diffusion_scheduler(name: str, scheduler: Any) -> Any:
    """Return a `DDIMScheduler` with the noise schedule and spacing of a diffusion model's scheduler.

    Samplers differ in how they step along the same ODE and scale the noise; grid and network are the same. Clipping and
    thresholding, which have no inverse, are left out. An `LCMScheduler` is copied instead: its grid has the only times that
    a consistency model was trained at, and it ends at the latent.

    Raises
    ------
    ModelError
        If the ODE cannot be inverted.
    """
    from diffusers import DDIMScheduler, LCMScheduler

    config = scheduler.config
    prediction = config.get("prediction_type", EPSILON)
    if prediction not in (EPSILON, VELOCITY):
        raise ModelError(f"{name}: prediction type {prediction!r} is not supported: use epsilon or v_prediction")
    if prediction == EPSILON and config.get("rescale_betas_zero_snr"):
        raise ModelError(f"{name}: epsilon prediction at zero SNR cannot be inverted: use v_prediction")
    if config.get("beta_start") is None and config.get("trained_betas") is None:
        raise ModelError(f"{name}: a {type(scheduler).__name__} has no noise schedule to invert: use a DDIMScheduler")
    if isinstance(scheduler, LCMScheduler):
        return LCMScheduler.from_config(config, clip_sample=False, thresholding=False, set_alpha_to_one=True)
    # An Euler scheduler ends at sigma = 0, which is what DDIM calls set_alpha_to_one, its default.
    return DDIMScheduler.from_config(config, clip_sample=False, thresholding=False)


def flow_scheduler(name: str, scheduler: Any) -> Any:
    """Copy the scheduler of a flow-matching model; ModelError if its steps have no inverse.

    A sampler of higher order for diffusion that is configured for a flow (UniPC, DPM-Solver) is copied for its grid.
    """
    from diffusers import FlowMatchEulerDiscreteScheduler

    if scheduler.config.get("use_flow_sigmas") and scheduler.config.get("prediction_type") == "flow_prediction":
        return copy.deepcopy(scheduler)
    if not isinstance(scheduler, FlowMatchEulerDiscreteScheduler):
        raise ModelError(
            f"{name}: a {type(scheduler).__name__} cannot be inverted here: use a FlowMatchEulerDiscreteScheduler"
        )
    if scheduler.config.invert_sigmas or scheduler.config.stochastic_sampling:
        raise ModelError(f"{name}: set invert_sigmas and stochastic_sampling to false in the scheduler")
    return copy.deepcopy(scheduler)


def diffusion_grid(scheduler: Any, steps: int) -> tuple[Timestep, ...]:
    """Return the grid of a `diffusion_scheduler`, noisiest first; the last point is where the scheduler ends."""
    scheduler = _with_room(scheduler, steps)
    scheduler.set_timesteps(steps)
    indices = [int(t) for t in scheduler.timesteps]
    points = [Timestep(t, float(scheduler.alphas_cumprod[t])) for t in indices]
    return (*points, Timestep(0, float(scheduler.final_alpha_cumprod)))


def flow_grid(
    scheduler: Any,
    steps: int,
    tokens: int | None = None,
    spaced: bool = False,
    shift: Callable[[Mapping[str, Any], int, int], float] | None = None,
) -> tuple[Timestep, ...]:
    """Return the grid of a `flow_scheduler`, noisiest first; it ends at the latent.

    Parameters
    ----------
    scheduler
        A result of `flow_scheduler`.
    steps : int
        Steps of the grid.
    tokens : int, optional
        Tokens of one image, for a scheduler with dynamic shift (Esser et al., arXiv 2403.03206, 5.3.2): with more tokens,
        more of the steps are near the noise. The shift is linear in their number.
    spaced : bool
        Whether sigma falls evenly from 1 to 1 / steps before the shift (FLUX), or as the scheduler spaces it (SD3).
    shift : callable, optional
        (scheduler's configuration, tokens, steps) -> dynamic shift, where it is not linear in the tokens (FLUX.2).
    """
    import numpy as np

    scheduler, config = _with_room(scheduler, steps), scheduler.config
    chosen: dict[str, Any] = {}
    if config.get("use_dynamic_shifting"):
        assert tokens is not None
        chosen["mu"] = (shift or _linear_shift)(config, tokens, steps)
    if spaced:
        chosen["sigmas"] = np.linspace(1.0, 1 / steps, steps)
    scheduler.set_timesteps(steps, **chosen)
    times = [*(float(t) for t in scheduler.timesteps), 0.0]
    return tuple(Timestep(t, 1 - float(sigma), straight=True) for t, sigma in zip(times, scheduler.sigmas, strict=True))


def _linear_shift(config: Mapping[str, Any], tokens: int, steps: int) -> float:
    low, high = config["base_image_seq_len"], config["max_image_seq_len"]
    share = (tokens - low) / (high - low)
    return float(config["base_shift"] + share * (config["max_shift"] - config["base_shift"]))


def estimates(z: torch.Tensor, at: Timestep, output: torch.Tensor, kind: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the estimates of (latent z_0, noise) of a network's output at z, each shaped like z.

    Parameters
    ----------
    z, output : (B, C, h, w)
        Input and output of the network.
    at : Timestep
        Grid point of z.
    kind : {"epsilon", "v_prediction", "flow"}
        What the network predicts: the noise; signal noise - sigma z_0 (Salimans and Ho, arXiv 2202.00512, app. D);
        noise - z_0.
    """
    if kind == EPSILON:
        return (z - at.sigma * output) / at.signal, output
    if kind == VELOCITY:
        return at.signal * z - at.sigma * output, at.sigma * z + at.signal * output
    return z - at.sigma * output, z + at.signal * output


def _with_room(scheduler: Any, steps: int) -> Any:
    most = scheduler.config.num_train_timesteps - 1  # one less, because an offset would pass the end of the schedule
    most = min(
        most, scheduler.config.get("original_inference_steps", most)
    )  # of a consistency model, all that it knows
    if not 1 <= steps <= most:
        raise UsageError(f"steps is {steps}: choose 1 to {most}")
    return copy.deepcopy(scheduler)
