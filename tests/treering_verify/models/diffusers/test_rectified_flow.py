"""Noise inversion where the ODE runs straight from latent to noise, on data whose flow is known."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import pytest
import torch
from diffusers import DDIMScheduler, EulerDiscreteScheduler, FlowMatchEulerDiscreteScheduler

from treering_verify.errors import ModelError, UsageError
from treering_verify.inversion.noise import exact, heun, naive
from treering_verify.models import Condition, Timestep
from treering_verify.models.diffusers.schedules import (
    diffusion_grid,
    diffusion_scheduler,
    estimates,
    flow_grid,
    flow_scheduler,
)
from treering_verify.models.sampling import denoise, step

DEVIATIONS = torch.tensor([0.3, 1.0, 2.0], dtype=torch.float64)[:, None, None]


class StraightGaussian:
    """The best possible network for data N(0, s_c^2) on a straight ODE: it says E[noise - z_0 | z]."""

    name = "straight"
    classes = ()
    latent_shape = (3, 4, 4)
    image_size = (8, 8)
    refine = None
    estimate = None
    screen = None

    def timesteps(self, steps: int) -> tuple[Timestep, ...]:
        return tuple(Timestep(1000 * (1 - i / steps), i / steps, straight=True) for i in range(steps + 1))

    def denoise(
        self, z: torch.Tensor, at: Timestep, conditions: Sequence[Condition], guidance: float = 1.0
    ) -> tuple[torch.Tensor, torch.Tensor]:
        sigma = at.index / 1000
        variance = (1 - sigma) ** 2 * DEVIATIONS**2 + sigma**2
        velocity = (sigma - (1 - sigma) * DEVIATIONS**2) / variance * z
        return estimates(z, at, velocity, "flow")


def white() -> torch.Tensor:
    return torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def relative(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((found - wanted).norm() / wanted.norm())


def test_a_step_is_eulers_along_the_velocity() -> None:
    model, z = StraightGaussian(), white()
    start, end = Timestep(800.0, 0.2, True), Timestep(600.0, 0.4, True)
    clean, eps = model.denoise(z, start, [None] * 2)
    torch.testing.assert_close(step(model, z, start, end, [None] * 2), z - 0.2 * (eps - clean))
    torch.testing.assert_close(start.signal * clean + start.sigma * eps, z)


def test_the_flow_turns_unit_noise_into_the_data_at_first_order_and_back_at_second_with_heun() -> None:
    model, noise = StraightGaussian(), white()
    few, many = (relative(denoise(model, noise, steps=n, conditions=[None] * 2), DEVIATIONS * noise) for n in (50, 100))
    assert many < 0.02 and 1.7 < few / many < 2.3
    few, many = (relative(heun(model, DEVIATIONS * noise, steps=n), noise) for n in (50, 100))
    assert many < 1e-3 and 3.4 < few / many < 4.6


def test_exact_inversion_undoes_each_straight_step_and_naive_does_not() -> None:
    model, noise = StraightGaussian(), white()
    latent = denoise(model, noise, steps=10, conditions=[None] * 2)
    assert relative(exact(model, latent, steps=10, iterations=40, tolerance=1e-9), noise) < 1e-6
    assert relative(naive(model, latent, steps=10), noise) > 0.05


@pytest.mark.parametrize(("spaced", "dynamic"), [(False, False), (False, True), (True, True)])
def test_a_flow_grid_is_the_schedulers_and_ends_at_the_latent(spaced: bool, dynamic: bool) -> None:
    scheduler = FlowMatchEulerDiscreteScheduler(shift=1.0 if dynamic else 3.0, use_dynamic_shifting=dynamic)
    few, many = flow_grid(scheduler, 8, 256, spaced), flow_grid(scheduler, 8, 4096, spaced)
    assert len(few) == 9 and few[0].signal == 0 and few[-1].signal == 1 and few[-1].sigma == 0
    assert all(a.sigma > b.sigma and a.index == pytest.approx(1000 * a.sigma) for a, b in pairwise(few))
    # A longer sequence spends more of the time near the noise, if the scheduler shifts by it.
    assert (many[4].sigma > few[4].sigma) == dynamic
    assert len(scheduler.timesteps) == 1000  # the caller's scheduler is as it was


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers' Euler under NumPy 2
def test_the_grid_of_any_diffusion_sampler_is_the_ddim_grid_without_clipping() -> None:
    ddim = DDIMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, steps_offset=1)
    euler = EulerDiscreteScheduler.from_config(ddim.config, timestep_spacing="leading")
    made = diffusion_scheduler("m", euler)
    assert not made.config.clip_sample and not made.config.thresholding
    grid = diffusion_grid(made, 10)
    euler.set_timesteps(10)
    for at, t, sigma in zip(grid, euler.timesteps, euler.sigmas, strict=False):
        assert at.index == int(t)
        assert at.sigma / at.signal == pytest.approx(float(sigma), rel=1e-4)  # the same ODE in other coordinates
    assert grid[-1].alpha == 1


def test_pure_noise_under_v_prediction_is_a_point_like_any_other_but_for_heun() -> None:
    scheduler = DDIMScheduler(
        prediction_type="v_prediction", rescale_betas_zero_snr=True, timestep_spacing="trailing", clip_sample=False
    )

    class Zero(StraightGaussian):
        def timesteps(self, steps: int) -> tuple[Timestep, ...]:
            return diffusion_grid(scheduler, steps)

        def denoise(
            self, z: torch.Tensor, at: Timestep, conditions: Sequence[Condition], guidance: float = 1.0
        ) -> tuple[torch.Tensor, torch.Tensor]:
            return estimates(z, at, 0.1 * z, "v_prediction")

    model, noise = Zero(), white()
    assert model.timesteps(5)[0].alpha == 0
    latent = denoise(model, noise, steps=5, conditions=[None] * 2)
    for method in (naive, exact):
        assert method(model, latent, steps=5).isfinite().all()
    with pytest.raises(UsageError, match="pure noise"):
        heun(model, latent, steps=5)


def test_schedulers_without_an_inverse_are_refused() -> None:
    for config, message in (
        ({"prediction_type": "sample"}, "prediction type 'sample'"),
        ({"rescale_betas_zero_snr": True}, "zero SNR"),
    ):
        with pytest.raises(ModelError, match=message):
            diffusion_scheduler("m", DDIMScheduler(**config))
    with pytest.raises(ModelError, match="no noise schedule"):
        diffusion_scheduler("m", FlowMatchEulerDiscreteScheduler())
    with pytest.raises(ModelError, match="FlowMatchEulerDiscreteScheduler"):
        flow_scheduler("m", DDIMScheduler())
    with pytest.raises(ModelError, match="stochastic_sampling"):
        flow_scheduler("m", FlowMatchEulerDiscreteScheduler(stochastic_sampling=True))
