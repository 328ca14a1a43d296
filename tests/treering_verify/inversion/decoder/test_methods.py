"""What holds for every decoder inversion: nearer to the truth, at a known cost, whatever the batch."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from helpers.models.linear_maps import GRADIENT_FREE, ITERATIVE, SHAPE, Linear, gaussian, linear, tuned

from treering_verify.inversion.decoder import DEFAULTS, METHODS, Problem, in_precision, invert
from treering_verify.inversion.recovery import problem_of
from treering_verify.models import LatentModel

UNFITTED = [method for method in METHODS if method != "filtered"]  # which test_closed_form.py tries on what it fits


@pytest.mark.parametrize(
    ("method", "share"),
    [("forward-step", 1e-6), ("inertial-km", 1e-6), ("adam", 0.2), ("gradient", 0.2), ("anderson", 1e-6)],
)
def test_every_method_comes_much_nearer_to_the_truth_than_the_encoder(method: str, share: float) -> None:
    case = Linear()
    encoder = case.error(invert(case.problem(), "encoder"))
    assert (encoder > 0.1).all()
    assert (case.error(invert(case.problem(), method, tuned(method))) < share * encoder).all()


@pytest.mark.parametrize("method", ITERATIVE)
def test_more_steps_come_nearer(method: str) -> None:
    case = Linear()
    # Without a schedule, whose length depends on the budget.
    errors = [case.error(invert(case.problem(), method, tuned(method, n, scheduled=False))).max() for n in (0, 5, 25)]
    assert errors[0] > errors[1] > errors[2]


@pytest.mark.parametrize("method", UNFITTED)
def test_default_settings_never_lose_to_the_encoder(method: str) -> None:
    case = Linear()
    encoder = case.error(invert(case.problem(), "encoder"))
    error = case.error(invert(case.problem(), method))
    assert (error <= encoder * (1 + 1e-12)).all()
    if method in ("forward-step", "inertial-km", "gradient"):
        assert (error < 0.5 * encoder).all()


@pytest.mark.parametrize("method", ITERATIVE)
def test_an_item_does_not_depend_on_its_batch(method: str) -> None:
    case = Linear(batch=4)
    case.image[1] += 2 * gaussian(*SHAPE, seed=9)
    case.image[2] *= 1e-3
    settings = replace(DEFAULTS[method], iterations=15)
    together = invert(case.problem(), method, settings)
    for i in range(4):
        alone = invert(case.problem(slice(i, i + 1)), method, settings)
        torch.testing.assert_close(alone.latent[0], together.latent[i], rtol=1e-9, atol=1e-9)
        assert alone.status[0] == together.status[i]
        assert alone.iterations[0] == together.iterations[i]
        mine = together.trace[: len(alone.trace), i]
        torch.testing.assert_close(alone.trace[:, 0], mine, rtol=1e-6, atol=1e-12, equal_nan=True)


@pytest.mark.parametrize("method", GRADIENT_FREE)
@pytest.mark.parametrize("iterations", [0, 1, 6])
def test_n_steps_cost_at_most_n_plus_one_evaluations(method: str, iterations: int) -> None:
    case = Linear()
    result = invert(case.problem(), method, tuned(method, iterations))
    assert case.decoded == [3] * (iterations + 1)
    assert case.encoded == [3] * (iterations + 2)  # E(x) is the start
    assert result.trace.shape == (iterations + 1, 3)
    assert result.status == ("budget",) * 3
    assert result.converged == (False,) * 3


def test_the_encoder_costs_one_pass_and_claims_no_residual() -> None:
    case = Linear()
    result = invert(case.problem(), "encoder")
    assert (case.encoded, case.decoded) == ([3], [])
    assert torch.equal(result.latent, linear(case.encoder)(case.image))
    assert result.residual.isnan().all() and result.trace.isnan().all()


def test_no_weight_receives_a_gradient_even_if_it_could() -> None:
    case = Linear()
    weight = case.decoder.clone().requires_grad_(True)
    problem = Problem(case.image, case.encode, linear(weight))
    for method in ITERATIVE:
        result = invert(problem, method, tuned(method, 3))
        assert weight.grad is None
        assert not result.latent.requires_grad


@pytest.mark.parametrize("method", UNFITTED)
def test_real_networks_can_be_inverted_by_every_method(method: str, tiny_model: LatentModel) -> None:
    latent = torch.randn(2, *tiny_model.latent_shape, generator=torch.Generator().manual_seed(8))
    with torch.inference_mode():
        image = tiny_model.decode(latent)
    settings = replace(DEFAULTS[method], iterations=2)
    result = invert(problem_of(tiny_model, image), method, settings)
    assert result.latent.shape == latent.shape and result.latent.isfinite().all()
    if method == "learned":  # the latent behind the image, not the solution of E(D(z)) = E(x): guarded, not monotone
        assert (result.residual <= 2 * result.trace[0]).all()
    elif method != "encoder":
        assert (result.residual <= result.trace[0]).all()


def test_an_unknown_method_is_a_key_error() -> None:
    with pytest.raises(KeyError, match="newton"):
        invert(Linear().problem(), "newton")


@pytest.mark.parametrize("method", [m for m in UNFITTED if m != "gauss-newton"])
def test_sixteen_bits_round_the_networks_and_never_the_latent(method: str, tiny_model: LatentModel) -> None:
    latent = torch.randn(2, *tiny_model.latent_shape, generator=torch.Generator().manual_seed(8))
    with torch.inference_mode():
        image = tiny_model.decode(latent)
    settings = replace(DEFAULTS[method], iterations=1)
    problem = problem_of(tiny_model, image)
    whole = invert(problem, method, settings).latent
    half = invert(in_precision(problem, "bfloat16"), method, settings).latent
    assert half.dtype == torch.float32
    difference = float((half - whole).norm() / whole.norm())
    # The gradient's first step is 0.1 a number, whatever the gradient's size: rounding turned the sign of 2 % of them here,
    # which makes up the difference. posterior-mode begins with two learned steps, each of which adds .04. The others step by
    # what the networks say.
    assert 0 < difference < (0.1 if method in ("gradient", "posterior-mode") else 0.05)
    assert in_precision(problem, "float32") is problem


def test_a_pass_that_overflows_in_sixteen_bits_is_run_again_in_float32() -> None:
    passes: list[bool] = []

    def encode(image: torch.Tensor) -> torch.Tensor:
        passes.append(torch.is_autocast_enabled("cpu"))
        output = image[:, :, ::2, ::2].clone()
        return output * float("inf") if passes[-1] else output

    problem = in_precision(Problem(torch.ones(1, 3, 4, 4), encode, lambda z: z), "bfloat16")
    assert torch.equal(problem.encode(torch.ones(1, 3, 4, 4)), torch.ones(1, 3, 2, 2))
    assert passes == [True, False]


def test_the_default_follows_the_refiner(tiny_model: LatentModel) -> None:
    image = torch.rand(1, 3, 128, 128, generator=torch.Generator().manual_seed(1)) * 2 - 1
    problem = problem_of(tiny_model, image)
    assert torch.equal(invert(problem).latent, invert(problem, "learned").latent)
    without = replace(problem, refine=None)
    assert torch.equal(invert(without).latent, invert(without, "forward-step").latent)
