"""Decoder inversions of this project: anderson, gauss-newton and learned steps."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from helpers.models.linear_maps import NO_STOP, SHAPE, SIDE, Attacked, Linear, gaussian, linear, tuned

from treering_verify.errors import UsageError
from treering_verify.inversion.decoder import DEFAULTS, Problem, Settings, invert


def test_anderson_needs_fewer_evaluations_than_forward_steps_for_the_same_residual() -> None:
    case = Linear()
    taken = {}
    for method in ("forward-step", "anderson"):
        result = invert(case.problem(), method, tuned(method, 60, step=0.3, tolerance=1e-6, memory=6))
        assert result.status == ("tolerance",) * 3
        taken[method] = int(result.iterations.max())
    assert taken["anderson"] < 0.4 * taken["forward-step"]  # and what rho is hardly matters to it


def test_anderson_with_a_memory_of_one_is_forward_step() -> None:
    case = Linear()
    plain = invert(case.problem(), "forward-step", tuned("forward-step", 7))
    short = invert(case.problem(), "anderson", tuned("anderson", 7, memory=1))
    torch.testing.assert_close(short.latent, plain.latent, rtol=0, atol=1e-9)


def test_anderson_solves_a_problem_of_few_dimensions_in_as_many_steps() -> None:
    # Three eigenvalues of E D: a Krylov space of three dimensions holds the answer (Walker and Ni 2011, theorem 2.2).
    values = torch.tensor([0.4, 0.8, 1.3], dtype=torch.float64).repeat(SIDE // 3)
    truth = gaussian(2, *SHAPE, seed=4)
    problem = Problem(linear(torch.diag(values))(truth), lambda x: x, linear(torch.diag(values)))
    result = invert(problem, "anderson", tuned("anderson", 6, step=1.0, memory=5))
    assert (result.trace[4] < 1e-3 * result.trace[0]).all()
    free = invert(problem, "forward-step", tuned("forward-step", 6, step=1.0))
    assert (free.trace[4] > 1e-2 * free.trace[0]).all()


def test_anderson_discards_its_history_when_the_residual_grows() -> None:
    calls: list[torch.Tensor] = []

    def encode(image: torch.Tensor) -> torch.Tensor:
        # The third residual is made larger than the second (0 would be right), but not so that the loop gives up.
        return image * (0.48 if len(calls) == 3 else 0.6)

    def decode(z: torch.Tensor) -> torch.Tensor:
        calls.append(z.clone())
        return z

    image = gaussian(1, *SHAPE, seed=4)
    invert(Problem(image, encode, decode), "anderson", tuned("anderson", 3, step=1.0, memory=4))
    third = calls[2]
    torch.testing.assert_close(calls[3], third - (0.48 * third - 0.6 * image), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("scale", [0.25, 1.0])  # of the image: few pixels, or many, are black or white
def test_gauss_newton_finds_the_maximum_a_posteriori_of_a_linear_decoder(scale: float) -> None:
    case = Linear(error=0.8)  # so poor an encoder that three forward steps leave something to do
    case.truth, case.image = case.truth * scale, case.image * scale
    settings = Settings(**{"iterations": 1, "step": 0.3, "inner": 150, **NO_STOP})  # type: ignore[arg-type]
    result = invert(case.problem(), "gauss-newton", settings)
    centre = invert(
        case.problem(), "forward-step", replace(settings, iterations=3, step=1.0, early_stopping=True)
    ).latent
    misfit = linear(case.decoder)(centre) - case.image

    def unexplained(misfit: torch.Tensor) -> torch.Tensor:
        error = torch.nn.functional.softshrink(misfit, 1 / 255)  # half a grey level counts as explained
        error[(case.image >= 1) & (misfit > 0)] = 0
        error[(case.image <= -1) & (misfit < 0)] = 0
        return error

    error = unexplained(misfit)
    step = torch.empty_like(centre)
    for i in range(3):
        mu = max(float(misfit[i].square().mean()), (2 / 255) ** 2 / 12) / 0.3**2
        normal = case.decoder.T @ case.decoder + mu * torch.eye(SIDE, dtype=torch.float64)
        step[i] = -torch.linalg.solve(normal, case.decoder.T @ error[i].flatten()).view(SHAPE)
    after = unexplained(linear(case.decoder)(centre + step) - case.image)
    assert (after.flatten(1).norm(dim=1) < error.flatten(1).norm(dim=1)).all()  # so the step is taken
    assert result.iterations.tolist() == [1] * 3
    torch.testing.assert_close(result.latent, centre + step, rtol=0, atol=1e-6)
    assert (case.error(result) < case.error(invert(case.problem(), "encoder"))).all()


def test_gauss_newton_is_held_by_its_start_when_the_image_is_disturbed() -> None:
    moved = []
    for noise in (0.1, 4.0):
        case = Attacked(noise)
        settings = Settings(iterations=2, step=0.1, inner=20)  # what holds it here is its own prior
        result = case.solve("gauss-newton", settings)
        centre = case.solve("forward-step", replace(settings, iterations=3, step=1.0, early_stopping=True))
        energy = case.image.flatten(1).norm(dim=1) / 192**0.5
        moved.append(float(((result.latent - centre.latent).flatten(1).norm(dim=1) / energy).mean()))
    assert moved[1] < 0.2 * moved[0]


def test_gauss_newton_leaves_images_alone_of_which_early_stopping_accepts_no_forward_step() -> None:
    attacked, clean = Attacked(4.0, batch=2), Attacked(0.0, batch=2)
    image = torch.stack([attacked.image[0], clean.image[1]])
    problem = Problem(image, linear(clean.encoder, (3, 4, 4)), linear(clean.decoder))
    settings = Settings(iterations=2, step=0.1, inner=20, early_stopping=True)
    watched: list[tuple[int, list[int]]] = []
    result = invert(
        replace(problem, watch=lambda k, rows, z: watched.append((k, rows.tolist()))), "gauss-newton", settings
    )
    centre = invert(problem, "forward-step", replace(settings, iterations=3, step=1.0))
    assert centre.iterations[0] == 0 < centre.iterations[1]
    assert watched[0] == (0, [0, 1]) and [rows for k, rows in watched[1:]] == [[1], [1]]
    assert result.status[0] == "overfit" and result.iterations.tolist() == [0, 2]
    torch.testing.assert_close(result.latent[0], centre.latent[0], rtol=0, atol=0)
    assert (result.latent[1] - clean.truth[1]).norm() < 0.9 * (centre.latent[1] - clean.truth[1]).norm()


def test_the_posterior_mode_is_computed_only_for_images_unchanged_since_decoding() -> None:
    case, other = Attacked(0.0, batch=3), Attacked(1.0, batch=3)
    encode, decode = linear(case.encoder, (3, 4, 4)), linear(case.decoder)
    undone = torch.linalg.inv(case.encoder @ case.decoder)
    image = torch.stack([case.image[0], other.image[1], case.image[2]]) * 0.1

    def refine(start: torch.Tensor, z: torch.Tensor, residual: torch.Tensor, *rest: torch.Tensor) -> torch.Tensor:
        return -0.9 * linear(undone, (3, 4, 4))(residual)

    def problem(items: slice = slice(None)) -> Problem:
        return Problem(image[items], encode, decode, refine, lambda k, rows, points: watched.append((k, rows.tolist())))

    watched: list[tuple[int, list[int]]] = []
    settings = replace(DEFAULTS["posterior-mode"], iterations=400, step=0.003)
    result = invert(problem(), "posterior-mode", settings)
    assert watched[0] == (0, [0, 1, 2]) and watched[1:] == [(k, [0, 2]) for k in range(1, 401)]
    centre = invert(problem(), "learned", Settings(iterations=2, step=1.0)).latent
    assert result.status == ("budget", "refined", "budget")
    assert torch.equal(result.latent[1], centre[1]) and result.iterations[1] == 0
    assert result.trace[1:, 1].isnan().all() and result.trace[:, 0].isfinite().all()
    for i in (0, 2):
        misfit = decode(centre[i : i + 1]) - image[i : i + 1]
        mu = max(float(misfit.square().mean()), (2 / 255) ** 2 / 12) / 0.021**2
        normal = case.decoder.T @ case.decoder + mu * torch.eye(48, dtype=torch.float64)
        mode = centre[i] - torch.linalg.solve(normal, case.decoder.T @ misfit.flatten()).view(3, 4, 4)
        assert (result.latent[i] - mode).norm() < 0.05 * (centre[i] - mode).norm()
    alone = invert(problem(slice(1, 2)), "posterior-mode", settings)
    torch.testing.assert_close(alone.latent[0], result.latent[1])
    assert alone.status == ("refined",)


def test_learned_steps_are_the_refiners_output_for_the_known_quantities() -> None:
    case = Linear()
    told: list[tuple[torch.Tensor, ...]] = []

    def refine(*known: torch.Tensor) -> torch.Tensor:
        told.append(known)
        return case.refine(*known)

    problem = replace(case.problem(), refine=refine)
    result = invert(problem, "learned", Settings(iterations=2, step=1.0))
    assert result.status == ("refined",) * 3 and result.converged == (True,) * 3
    assert case.decoded == [3] * 3 and case.encoded == [3] * 4
    assert (case.error(result) < 0.02).all()  # a tenth is left by each step
    torch.testing.assert_close(result.residual, result.trace[-1], rtol=0, atol=0)
    start = linear(case.encoder)(case.image)
    for k, (first, z, residual, image, output) in enumerate(told):
        torch.testing.assert_close(first, start)
        torch.testing.assert_close(output, linear(case.decoder)(z))
        torch.testing.assert_close(residual, linear(case.encoder)(output) - start)
        assert image is problem.image and (k > 0 or torch.equal(z, start))


def test_a_refiner_that_increases_the_residual_is_rejected() -> None:
    case = Linear()

    def refine(start: torch.Tensor, z: torch.Tensor, residual: torch.Tensor, *rest: torch.Tensor) -> torch.Tensor:
        away = torch.ones_like(z)
        away[1] = -residual[1]
        away[2] = math.nan
        return away

    result = invert(replace(case.problem(), refine=refine), "learned", Settings(iterations=1, step=1.0))
    assert result.status == ("diverged", "refined", "diverged")
    assert result.iterations.tolist() == [0, 1, 0]
    start = linear(case.encoder)(case.image)
    assert torch.equal(result.latent[0], start[0]) and torch.equal(result.latent[2], start[2])
    assert (result.residual <= result.trace[0]).all()


def test_a_second_step_that_increases_the_residual_leaves_the_first() -> None:
    case, asked = Linear(), []

    def refine(start: torch.Tensor, z: torch.Tensor, residual: torch.Tensor, *rest: torch.Tensor) -> torch.Tensor:
        asked.append(z)
        step = case.refine(start, z, residual)
        if len(asked) == 2:
            step[0] = 100.0
        return step

    result = invert(replace(case.problem(), refine=refine), "learned", Settings(iterations=2, step=1.0))
    assert result.status == ("refined",) * 3 and result.iterations.tolist() == [1, 2, 2]
    assert torch.equal(result.latent[0], asked[1][0]) and result.residual[0] == result.trace[1, 0]


@pytest.mark.parametrize(("times", "status"), [(3.9, "refined"), (4.1, "diverged")])
def test_a_refiner_may_leave_up_to_four_times_the_residual(times: float, status: str) -> None:
    case = Linear()
    start = linear(case.encoder)(case.image)
    first = linear(case.encoder)(linear(case.decoder)(start)) - start
    back = torch.linalg.inv(case.encoder @ case.decoder)  # of what a change of z does to the residual

    def refine(start: torch.Tensor, z: torch.Tensor, residual: torch.Tensor, *rest: torch.Tensor) -> torch.Tensor:
        return linear(back)((times - 1) * residual)

    result = invert(replace(case.problem(), refine=refine), "learned", Settings(iterations=1, step=1.0))
    assert set(result.status) == {status}
    torch.testing.assert_close(result.trace[1], times * result.trace[0], rtol=1e-3, atol=1e-6)
    assert torch.equal(result.latent, start) == (status == "diverged") and first.any()


def test_without_a_refiner_the_message_says_what_to_do() -> None:
    with pytest.raises(UsageError, match="no refiner: choose another"):
        invert(replace(Linear().problem(), refine=None), "learned")
