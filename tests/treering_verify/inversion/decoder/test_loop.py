"""The loop that all iterative methods run in: best iterate, stops of each item, early stopping."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from helpers.models.linear_maps import ITERATIVE, Attacked, Linear, linear, start_residual, tuned

from treering_verify.inversion.decoder import DEFAULTS, Problem, invert, unstopped
from treering_verify.inversion.decoder.bootstrap_stopping import _accepted_steps


@pytest.mark.parametrize("method", ITERATIVE)
@pytest.mark.parametrize("step", [0.1, 1.0, 3.0, 100.0])
def test_no_result_has_a_larger_residual_than_the_start(method: str, step: float) -> None:
    case = Linear()
    result = invert(case.problem(), method, tuned(method, 15, step=step))
    started = result.trace[0]
    if method != "gradient":
        torch.testing.assert_close(started, start_residual(case), rtol=1e-9, atol=1e-12)
    assert (result.residual <= started).all()


@pytest.mark.parametrize("early_stopping", [False, True])
@pytest.mark.parametrize("method", ["forward-step", "inertial-km"])
def test_where_plain_steps_diverge_the_start_is_returned(method: str, early_stopping: bool) -> None:
    case = Linear(sign=-1.0)  # E(D(z)) is about -z, so r grows along every step
    z = start = linear(case.encoder)(case.image)
    for _ in range(10):
        z = z - (linear(case.encoder)(linear(case.decoder)(z)) - start)
    assert float(z.norm()) > 100 * float(start.norm())  # the plain iteration does diverge
    result = invert(case.problem(), method, tuned(method, 10, step=1.0, early_stopping=early_stopping))
    assert result.status == ("diverged",) * 3
    assert result.converged == (False,) * 3
    assert torch.equal(result.latent, start)
    torch.testing.assert_close(result.residual, result.trace[0], rtol=0, atol=0)


def test_numbers_that_are_not_finite_end_in_the_best_finite_iterate() -> None:
    case = Linear()

    def explode(latent: torch.Tensor) -> torch.Tensor:
        case.decoded.append(len(latent))
        image = linear(case.decoder)(latent)
        return image * math.inf if len(case.decoded) == 3 else image

    problem = Problem(case.image, case.encode, explode)
    result = invert(problem, "forward-step", tuned("forward-step", 10))
    assert result.latent.isfinite().all()
    assert result.residual.tolist() == result.trace[1].tolist()
    assert result.iterations.tolist() == [1] * 3
    assert len(case.decoded) == 3


@pytest.mark.parametrize("method", ITERATIVE)
def test_the_best_of_the_trace_is_the_residual_that_is_returned(method: str) -> None:
    case = Linear()
    result = invert(case.problem(), method, tuned(method, 12, tolerance=0.01, stagnation=0.05))
    trace = result.trace.nan_to_num(nan=math.inf)
    assert torch.equal(trace.min(dim=0).values, result.residual)
    assert torch.equal(trace.argmin(dim=0), result.iterations)


def test_each_item_stops_by_itself_and_is_not_evaluated_again() -> None:
    case = Linear(batch=4)
    # Each is a tenth of the one before, while the encoder's constant part stays: their relative residuals differ.
    case.image = linear(case.decoder)(torch.stack([case.truth[0] * 10.0**-i for i in range(4)]))

    def offset(image: torch.Tensor) -> torch.Tensor:
        case.encoded.append(len(image))
        return linear(case.encoder)(image) + 0.01

    result = invert(Problem(case.image, offset, case.decode), "forward-step", tuned("forward-step", 30, tolerance=1e-5))
    evaluated = result.trace.isfinite()
    counts = evaluated.sum(dim=0).tolist()
    assert result.status == ("tolerance",) * 4
    assert len(set(counts)) > 1
    for i, count in enumerate(counts):  # finite up to its stop, NaN after it
        assert evaluated[:count, i].all() and not evaluated[count:, i].any()
        assert result.iterations[i] == count - 1
    assert case.decoded == evaluated.sum(dim=1).tolist()
    assert case.encoded == [4, *case.decoded]


def test_tolerance_and_stagnation_end_the_iteration() -> None:
    case = Linear()
    reached = invert(case.problem(), "forward-step", tuned("forward-step", 40, tolerance=1e-3))
    assert reached.status == ("tolerance",) * 3
    assert (reached.residual <= 1e-3).all() and (reached.trace[-2].nan_to_num(nan=1.0) > 1e-3).all()
    slow = invert(case.problem(), "forward-step", tuned("forward-step", 40, step=1e-3, stagnation=0.02))
    assert slow.status == ("stagnated",) * 3
    assert len(slow.trace) == 2
    assert slow.converged == reached.converged == (True,) * 3


@pytest.mark.parametrize("method", ITERATIVE)
def test_early_stopping_keeps_the_attack_out_of_the_latent_and_lets_clean_images_through(method: str) -> None:
    iterations = 25 if method in ("forward-step", "inertial-km", "anderson") else 60
    free = tuned(method, iterations, **({"step": 1.0} if iterations == 25 else {}))
    settings = replace(free, early_stopping=True)
    clean = Attacked(0.0)
    encoder = clean.error(clean.solve("encoder", settings))
    assert (clean.error(clean.solve(method, settings)) < 0.5 * encoder).all()
    for noise in (1.0, 2.0, 4.0):
        case = Attacked(noise)
        encoder = case.error(case.solve("encoder", settings))
        stopped, whole = case.solve(method, settings), case.solve(method, free)
        assert (case.error(stopped) <= 1.05 * encoder).all()
        assert "overfit" not in whole.status
        if method != "gradient":  # least squares ignores this attack, which lies outside what the decoder draws
            assert stopped.status == ("overfit",) * 8 and stopped.converged == (True,) * 8
            assert (whole.residual < stopped.residual).all()  # the equation is solved better ...
            if noise > 1:
                assert (case.error(whole) > 1.2 * encoder).all()  # ... and the latent is worse


def test_early_stopping_is_on_by_default_and_off_in_comparisons() -> None:
    for method in (*ITERATIVE, "gauss-newton"):
        assert DEFAULTS[method].early_stopping and not unstopped(DEFAULTS[method]).early_stopping


def test_steps_that_early_stopping_discards_are_in_the_trace_and_not_returned() -> None:
    case = Attacked(4.0)
    result = case.solve("forward-step", tuned("forward-step", 25, step=1.0, early_stopping=True))
    assert (result.iterations < result.trace.isfinite().sum(dim=0) - 1).all()
    for i in range(8):
        assert result.trace[result.iterations[i], i] == result.residual[i]


def test_the_bootstrap_image_is_the_starts_own_image_with_the_mirrored_misfit() -> None:
    case = Attacked(0.5, batch=2)
    encode, decode = linear(case.encoder, (3, 4, 4)), linear(case.decoder)
    encoded: list[torch.Tensor] = []

    def watching(image: torch.Tensor) -> torch.Tensor:
        encoded.append(image)
        return encode(image)

    settings = tuned("forward-step", 3, step=1.0, early_stopping=True)
    invert(Problem(case.image, watching, decode), "forward-step", settings)
    start = encode(case.image)
    path = invert(Problem(case.image, encode, decode), "forward-step", replace(settings, early_stopping=False))
    closest = min((decode(z) for z in [start, path.latent]), key=lambda y: float((y - case.image).norm()))
    posed = decode(start) + (case.image - closest).flip(-1)
    torch.testing.assert_close(encoded[5], posed)  # after E(x) and four evaluated points


def test_a_method_that_fits_pixels_takes_its_bootstrap_image_from_forward_steps() -> None:
    case = Attacked(2.0, batch=2)
    encode, decode = linear(case.encoder, (3, 4, 4)), linear(case.decoder)
    encoded: list[torch.Tensor] = []

    def watching(image: torch.Tensor) -> torch.Tensor:
        encoded.append(image.detach())
        return encode(image)

    settings = tuned("gradient", 40, early_stopping=True)
    invert(Problem(case.image, watching, decode), "gradient", settings)
    points: list[torch.Tensor] = []
    problem = Problem(case.image, encode, decode, watch=lambda k, rows, z: points.append(z.clone()))
    invert(problem, "forward-step", replace(DEFAULTS["forward-step"], iterations=3, step=1.0, early_stopping=False))
    left = torch.stack([case.image - decode(z) for z in points])
    nearest = left.flatten(2).norm(dim=2).argmin(dim=0)
    misfit = left[nearest, torch.arange(2)]
    torch.testing.assert_close(encoded[-1], decode(encode(case.image)) + misfit.flip(-1))


def test_the_last_step_with_half_of_the_best_bootstrap_gain_is_accepted() -> None:
    gains = torch.tensor(
        [[0.0, 0.0, 0.0, 0.0], [2.0, 0.9, 1.1, math.nan], [4.0, 0.3, -1.0, 3.0], [2.1, 0.2, -3.0, 1.0]]
    )
    allowed = torch.ones_like(gains, dtype=torch.bool)
    assert _accepted_steps(gains, allowed).tolist() == [3, 0, 1, 2]
    allowed[3, 0] = False  # its residual is above the start's
    assert _accepted_steps(gains, allowed)[0] == 2


def test_published_runs_go_through_a_residual_that_grows_on_the_way() -> None:
    case = Linear(sign=-1.0)
    settings = replace(tuned("forward-step", 6, step=1.0), divergence=2.0)
    assert invert(case.problem(), "forward-step", settings).status == ("diverged",) * 3
    free = invert(case.problem(), "forward-step", unstopped(settings))
    assert free.status == ("budget",) * 3 and free.trace.isfinite().all()
    assert (free.residual <= free.trace[0]).all()  # and the best iterate is returned all the same
