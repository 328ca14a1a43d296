"""Decoder inversion on linear maps, where the answer and the speed of every method are known."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from treering_verify.decoder_inversion import DEFAULTS, METHODS, Problem, Settings, invert, scheduled_step
from treering_verify.errors import UsageError
from treering_verify.models import LatentModel
from treering_verify.results import Inversion
from treering_verify.verification import problem_of

SHAPE = (3, 8, 8)
SIDE = math.prod(SHAPE)
GRADIENT_FREE = ("forward-step", "inertial-km", "adam", "anderson")
ITERATIVE = (*GRADIENT_FREE, "gradient")
NO_STOP = {"misfit_fall": 0.0, "misfit_explained": 0.0, "stagnation": -9.0, "tolerance": 0.0}


def gaussian(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def orthogonal(size: int, seed: int) -> torch.Tensor:
    return torch.linalg.qr(gaussian(size, size, seed=seed))[0]


def linear(matrix: torch.Tensor, shape: tuple[int, ...] = SHAPE) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda x: (x.flatten(1) @ matrix.T).unflatten(1, shape)


class Linear:
    """D with singular values 0.5 to 2, and E = (1 + error) D^-1; counts the items that pass through each."""

    def __init__(self, *, error: float = 0.3, batch: int = 3, sign: float = 1.0) -> None:
        left, right = orthogonal(SIDE, seed=1), orthogonal(SIDE, seed=2)
        self.decoder = left @ torch.diag(torch.logspace(-1, 1, SIDE, base=2, dtype=torch.float64)) @ right.T
        perturbation = gaussian(SIDE, SIDE, seed=3) / SIDE**0.5 / 2  # of spectral norm about 1
        self.encoder = sign * (torch.eye(SIDE, dtype=torch.float64) + error * perturbation) @ self.decoder.inverse()
        self.truth = gaussian(batch, *SHAPE, seed=4)
        self.image = linear(self.decoder)(self.truth)
        self.encoded: list[int] = []
        self.decoded: list[int] = []

    def encode(self, image: torch.Tensor) -> torch.Tensor:
        self.encoded.append(len(image))
        return linear(self.encoder)(image)

    def decode(self, latent: torch.Tensor) -> torch.Tensor:
        self.decoded.append(len(latent))
        return linear(self.decoder)(latent)

    def problem(self, items: slice = slice(None)) -> Problem:
        return Problem(self.image[items], self.encode, self.decode, self.refine)

    def refine(self, start: torch.Tensor, z: torch.Tensor, residual: torch.Tensor, *rest: torch.Tensor) -> torch.Tensor:
        """Learned from this map: the Newton step of the residual, damped."""
        return -0.9 * linear((self.encoder @ self.decoder).inverse())(residual)

    def error(self, result: Inversion, items: slice = slice(None)) -> torch.Tensor:
        truth = self.truth[items]
        return (result.latent - truth).flatten(1).norm(dim=1) / truth.flatten(1).norm(dim=1)


def tuned(method: str, iterations: int = 60, **changes: object) -> Settings:
    """Settings that suit the linear map, with every stop but the budget off."""
    step = {"forward-step": 0.8, "inertial-km": 0.8, "adam": 0.1, "gradient": 0.1, "anderson": 0.8}[method]
    return Settings(
        **{  # type: ignore[arg-type]
            "iterations": iterations,
            "step": step,
            "momentum": 0.2,
            "scheduled": method in ("adam", "gradient"),
            **NO_STOP,
            **changes,
        }
    )


def start_residual(case: Linear) -> torch.Tensor:
    start = linear(case.encoder)(case.image)
    again = linear(case.encoder)(linear(case.decoder)(start))
    return (again - start).flatten(1).norm(dim=1) / start.flatten(1).norm(dim=1)


# --- towards the truth ------------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("method", METHODS)
def test_default_settings_never_lose_to_the_encoder(method: str) -> None:
    case = Linear()
    encoder = case.error(invert(case.problem(), "encoder"))
    error = case.error(invert(case.problem(), method))
    assert (error <= encoder * (1 + 1e-12)).all()
    if method in ("forward-step", "inertial-km", "gradient"):
        assert (error < 0.5 * encoder).all()


def test_the_default_settings_of_the_published_optimisers_use_their_whole_budget() -> None:
    # Adam's step is far from lowering the misfit by a fifth: with the overfit stop on, it would never take one.
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


# --- safeguards -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ITERATIVE)
@pytest.mark.parametrize("step", [0.1, 1.0, 3.0, 100.0])
def test_no_result_has_a_larger_residual_than_the_start(method: str, step: float) -> None:
    case = Linear()
    result = invert(case.problem(), method, tuned(method, 15, step=step))
    started = result.trace[0]
    if method != "gradient":
        torch.testing.assert_close(started, start_residual(case), rtol=1e-9, atol=1e-12)
    assert (result.residual <= started).all()


@pytest.mark.parametrize("method", ["forward-step", "inertial-km"])
def test_where_plain_steps_diverge_the_start_is_returned(method: str) -> None:
    case = Linear(sign=-1.0)  # E(D(z)) is about -z, so r grows along every step
    z = start = linear(case.encoder)(case.image)
    for _ in range(10):
        z = z - (linear(case.encoder)(linear(case.decoder)(z)) - start)
    assert float(z.norm()) > 100 * float(start.norm())  # the plain iteration does diverge
    result = invert(case.problem(), method, tuned(method, 10, step=1.0))
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


def test_tolerance_and_stagnation_end_the_iteration() -> None:
    case = Linear()
    reached = invert(case.problem(), "forward-step", tuned("forward-step", 40, tolerance=1e-3))
    assert reached.status == ("tolerance",) * 3
    assert (reached.residual <= 1e-3).all() and (reached.trace[-2].nan_to_num(nan=1.0) > 1e-3).all()
    slow = invert(case.problem(), "forward-step", tuned("forward-step", 40, step=1e-3, stagnation=0.02))
    assert slow.status == ("stagnated",) * 3
    assert len(slow.trace) == 2
    assert slow.converged == reached.converged == (True,) * 3


# --- the overfit stop -------------------------------------------------------------------------------------------------


class Attacked:
    """A decoder with a narrow range, and images with noise that it cannot produce; E is a poor inverse.

    D maps 48 numbers into 192. E reads the range by D's pseudo-inverse, shrunk, so that steps help on clean images, and
    it reads the rest of the image too, amplified: that is how an attack enters the latent.
    """

    def __init__(self, noise: float, batch: int = 8) -> None:
        columns = orthogonal(SIDE, seed=5)
        self.decoder, outside = columns[:, :48], columns[:, 48:96]
        scales = torch.linspace(0.25, 0.9, 48, dtype=torch.float64)
        self.encoder = torch.diag(scales) @ (self.decoder.T + 0.5 * outside.T)
        self.truth = gaussian(batch, 3, 4, 4, seed=6)
        clean = linear(self.decoder)(self.truth)
        disturbance = (gaussian(batch, SIDE - 48, seed=7) @ columns[:, 48:].T).unflatten(1, SHAPE)
        self.image = clean + noise * disturbance

    def solve(self, method: str, settings: Settings) -> Inversion:
        return invert(Problem(self.image, linear(self.encoder, (3, 4, 4)), linear(self.decoder)), method, settings)

    def error(self, result: Inversion) -> torch.Tensor:
        return (result.latent - self.truth).flatten(1).norm(dim=1) / self.truth.flatten(1).norm(dim=1)


@pytest.mark.parametrize("method", ["forward-step", "inertial-km"])
def test_the_overfit_stop_keeps_the_attack_out_of_the_latent_and_lets_clean_images_through(method: str) -> None:
    settings = replace(tuned(method, 25, step=1.0), misfit_fall=0.8, misfit_explained=0.5)
    unstopped = tuned(method, 25, step=1.0)
    clean = Attacked(0.0)
    encoder = clean.error(clean.solve("encoder", settings))
    assert (clean.error(clean.solve(method, settings)) < 0.3 * encoder).all()
    for noise in (1.0, 2.0, 4.0):
        case = Attacked(noise)
        encoder = case.error(case.solve("encoder", settings))
        stopped = case.solve(method, settings)
        assert stopped.status == ("overfit",) * 8
        assert stopped.converged == (True,) * 8
        assert (case.error(stopped) <= 1.05 * encoder).all()
        free = case.solve(method, unstopped)
        assert "overfit" not in free.status
        assert (free.residual < stopped.residual).all()  # the equation is solved better ...
        if noise > 1:
            assert (case.error(free) > 1.2 * encoder).all()  # ... and the latent is worse


def test_a_step_that_the_overfit_stop_takes_back_is_shown_in_the_trace_and_not_returned() -> None:
    case = Attacked(4.0)
    result = case.solve("forward-step", replace(tuned("forward-step", 25, step=1.0), misfit_fall=0.8))
    last = result.trace.isfinite().sum(dim=0) - 1
    assert (result.iterations < last).all()
    for i in range(8):
        assert result.trace[result.iterations[i], i] == result.residual[i]


def test_the_overfit_stop_compares_each_step_with_the_one_before_and_with_the_start() -> None:
    lasted = []
    for noise in (0.1, 0.2, 0.4, 1.0):
        case = Attacked(noise, batch=1)
        case.encoder = (
            case.decoder.T * 0.4
        )  # reads no attack: the misfit falls to the attack's energy, and stalls there
        misfits: list[float] = []

        def decode(z: torch.Tensor, case: Attacked = case, misfits: list[float] = misfits) -> torch.Tensor:
            image = linear(case.decoder)(z)
            misfits.append(float((image - case.image).norm()))
            return image

        settings = replace(tuned("forward-step", 40, step=1.0), misfit_fall=0.9, misfit_explained=0.2)
        result = invert(Problem(case.image, linear(case.encoder, (3, 4, 4)), decode), "forward-step", settings)
        assert result.status == ("overfit",)
        stalled = [k for k in range(1, len(misfits)) if misfits[k] > max(0.9 * misfits[k - 1], 0.2 * misfits[0])]
        assert stalled == [len(misfits) - 1]  # the first step that stalls is the last one taken
        assert result.iterations.tolist() == [len(misfits) - 2]
        lasted.append(len(misfits))
    assert lasted[0] > lasted[-1] and lasted[0] > 3


# --- anderson ---------------------------------------------------------------------------------------------------------


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


def test_anderson_throws_its_history_away_when_the_residual_grows() -> None:
    calls: list[torch.Tensor] = []

    def encode(image: torch.Tensor) -> torch.Tensor:
        # The third residual is made larger than the second (0 would be right), but not so that the driver gives up.
        return image * (0.48 if len(calls) == 3 else 0.6)

    def decode(z: torch.Tensor) -> torch.Tensor:
        calls.append(z.clone())
        return z

    image = gaussian(1, *SHAPE, seed=4)
    invert(Problem(image, encode, decode), "anderson", tuned("anderson", 3, step=1.0, memory=4))
    third = calls[2]
    torch.testing.assert_close(calls[3], third - (0.48 * third - 0.6 * image), rtol=1e-9, atol=1e-9)


# --- gauss-newton -----------------------------------------------------------------------------------------------------


def test_gauss_newton_finds_the_maximum_a_posteriori_of_a_linear_decoder() -> None:
    case = Linear()
    settings = Settings(iterations=1, step=0.3, inner=150, tolerance=0.0)
    result = invert(case.problem(), "gauss-newton", settings)
    centre = invert(case.problem(), "forward-step", replace(settings, iterations=3, step=1.0)).latent
    misfit = linear(case.decoder)(centre) - case.image
    level = 1 / 255  # half a grey level counts as explained
    error = torch.nn.functional.softshrink(misfit, level)
    error[(case.image >= 1) & (misfit > 0)] = 0
    error[(case.image <= -1) & (misfit < 0)] = 0
    for i in range(3):
        mu = max(float(misfit[i].square().mean()), (2 / 255) ** 2 / 12) / 0.3**2
        normal = case.decoder.T @ case.decoder + mu * torch.eye(SIDE, dtype=torch.float64)
        step = -torch.linalg.solve(normal, case.decoder.T @ error[i].flatten())
        expected = centre[i].flatten() + step
        after = float(torch.linalg.norm(case.decoder @ expected - case.image[i].flatten()))
        if after < float(misfit[i].norm()):  # where it is not, the safeguard keeps the start
            torch.testing.assert_close(result.latent[i].flatten(), expected, rtol=0, atol=1e-6)
    assert (case.error(result) < case.error(invert(case.problem(), "encoder"))).all()


def test_gauss_newton_is_held_by_its_start_when_the_image_is_disturbed() -> None:
    moved = []
    for noise in (0.1, 4.0):
        case = Attacked(noise)
        settings = Settings(iterations=2, step=0.1, inner=20)
        result = case.solve("gauss-newton", settings)
        centre = case.solve("forward-step", replace(settings, iterations=3, step=1.0))
        energy = case.image.flatten(1).norm(dim=1) / 192**0.5
        moved.append(float(((result.latent - centre.latent).flatten(1).norm(dim=1) / energy).mean()))
    assert moved[1] < 0.2 * moved[0]


# --- learned ----------------------------------------------------------------------------------------------------------


def test_learned_steps_are_those_of_the_refiner_and_are_told_what_is_known() -> None:
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


def test_a_refiner_that_leads_astray_is_not_followed() -> None:
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


def test_without_a_refiner_the_message_says_what_to_do() -> None:
    with pytest.raises(UsageError, match="no refiner: choose another"):
        invert(replace(Linear().problem(), refine=None), "learned")


# --- the gradient baseline --------------------------------------------------------------------------------------------


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


def test_no_weight_receives_a_gradient_even_if_it_could() -> None:
    case = Linear()
    weight = case.decoder.clone().requires_grad_(True)
    problem = Problem(case.image, case.encode, linear(weight))
    for method in ITERATIVE:
        result = invert(problem, method, tuned(method, 3))
        assert weight.grad is None
        assert not result.latent.requires_grad


@pytest.mark.parametrize("method", METHODS)
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


# --- the schedule -----------------------------------------------------------------------------------------------------


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


def test_an_unknown_method_is_a_key_error() -> None:
    with pytest.raises(KeyError, match="newton"):
        invert(Linear().problem(), "newton")
