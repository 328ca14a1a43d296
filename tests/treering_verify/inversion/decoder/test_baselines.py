"""The published decoder inversions against their formulas, written out on linear maps."""

from __future__ import annotations

import math

import pytest
import torch
from helpers.models.linear_maps import Linear, linear, tuned

from treering_verify.inversion.decoder import DEFAULTS, invert, scheduled_step


def test_the_default_settings_of_the_published_optimisers_use_their_whole_budget() -> None:
    case = Linear()
    for method in ("adam", "gradient"):
        result = invert(case.problem(), method)
        assert result.status == ("budget",) * 3
        assert len(result.trace) == DEFAULTS[method].iterations + 1


def test_forward_steps_are_the_published_formula() -> None:
    case = Linear()
    result = invert(case.problem(), "forward-step", tuned("forward-step", 7))
    start = z = linear(case.encoder)(case.image)
    for _ in range(7):
        z = z - 0.8 * (linear(case.encoder)(linear(case.decoder)(z)) - start)
    torch.testing.assert_close(result.latent, z, rtol=0, atol=1e-12)
    assert result.iterations.tolist() == [7] * 3


def test_inertial_steps_are_the_published_formula_and_without_inertia_forward_steps() -> None:
    case = Linear()
    start = z = previous = linear(case.encoder)(case.image)
    for _ in range(7):
        y = z + 0.2 * (z - previous)
        previous, z = z, y - 0.8 * (linear(case.encoder)(linear(case.decoder)(y)) - start)
    evaluated = z + 0.2 * (z - previous)
    result = invert(case.problem(), "inertial-km", tuned("inertial-km", 7))
    torch.testing.assert_close(result.latent, evaluated, rtol=0, atol=1e-12)
    plain = invert(case.problem(), "forward-step", tuned("forward-step", 7))
    still = invert(case.problem(), "inertial-km", tuned("inertial-km", 7, momentum=0.0))
    torch.testing.assert_close(still.latent, plain.latent, rtol=0, atol=1e-12)


@pytest.mark.parametrize("scheduled", [True, False])
def test_adam_is_the_optimiser_of_that_name_with_the_residual_for_a_gradient(scheduled: bool) -> None:
    case = Linear()
    settings = tuned("adam", 20, scheduled=scheduled)
    result = invert(case.problem(), "adam", settings)
    start = linear(case.encoder)(case.image)
    z = start.clone().requires_grad_(True)
    optimiser = torch.optim.Adam([z], lr=0.1)
    for k in range(20):
        optimiser.param_groups[0]["lr"] = scheduled_step(k, 20, 0.1) if scheduled else 0.1
        z.grad = linear(case.encoder)(linear(case.decoder)(z.detach())) - start
        optimiser.step()
    torch.testing.assert_close(result.latent, z.detach(), rtol=0, atol=1e-9)


def test_the_gradient_baseline_follows_the_analytic_gradient() -> None:
    case = Linear()
    result = invert(case.problem(), "gradient", tuned("gradient", 20, step=0.01, scheduled=False))
    z = linear(case.encoder)(case.image).flatten(1).requires_grad_(True)
    optimiser = torch.optim.Adam([z], lr=0.01)
    for _ in range(20):
        z.grad = 2 * (z.detach() @ case.decoder.T - case.image.flatten(1)) @ case.decoder
        optimiser.step()
    torch.testing.assert_close(result.latent.flatten(1), z.detach(), rtol=0, atol=1e-7)
    relative = (linear(case.decoder)(result.latent) - case.image).flatten(1).norm(dim=1) / case.image.flatten(1).norm(
        dim=1
    )
    torch.testing.assert_close(result.residual, relative, rtol=1e-5, atol=0)
    assert len(case.encoded) == 1 and len(case.decoded) == 21


@pytest.mark.parametrize("iterations", [1, 2, 10, 50, 100, 300])
def test_the_schedule_warms_up_falls_along_a_cosine_and_stays_after_four_fifths(iterations: int) -> None:
    steps = [scheduled_step(i, iterations, 0.1) for i in range(iterations)]
    length = min(iterations, 100)
    warmup = max(1, length // 10)
    assert steps[:warmup] == pytest.approx([0.1 * (i + 1) / warmup for i in range(warmup)])
    assert max(steps) == pytest.approx(0.1)
    end = max(int(0.8 * length), warmup)
    assert all(later <= earlier for earlier, later in zip(steps[warmup:], steps[warmup + 1 :], strict=False))
    assert len(set(steps[end:])) <= 1
    assert min(steps) > 0
    if iterations >= 100:
        middle = (warmup + length) // 2
        assert steps[middle] == pytest.approx(0.05)
        assert steps[-1] == pytest.approx(0.1 * 0.5 * (1 + math.cos(math.pi * 70 / 90)))
