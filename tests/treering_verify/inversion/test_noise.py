"""The ODE in both directions, on Gaussian data, where the network and the flow are known in closed form."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import pytest
import torch

from treering_verify.inversion.noise import DEFAULT_STEPS, METHODS, exact, heun, invert, naive
from treering_verify.models import Condition, LatentModel, Timestep
from treering_verify.models.sampling import denoise

DEVIATIONS = (0.3, 0.7, 1.5)  # of the data, per channel
BETAS = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
ALPHAS = torch.cumprod(1 - BETAS, dim=0)
ODE = ("naive", "exact", "heun")  # the methods that need no estimator


class GaussianModel:
    """The best possible network for data N(0, s_c^2): its estimates are posterior means.

    Like a real network it is told a time index and guesses, from z, the noise; alpha turns the guess into a latent. So
    naive inversion, which names one index and stands at another alpha, makes the error here that it makes everywhere.
    """

    name = "gaussian"
    classes = ()
    latent_shape = (3, 4, 4)
    image_size = (8, 8)
    refine = None
    estimate = None
    screen = None

    def __init__(self, grid: Sequence[int] | None = None) -> None:
        self.grid = grid
        self.asked: list[Timestep] = []
        self.conditions: list[list[Condition]] = []
        self.variance = torch.tensor(DEVIATIONS, dtype=torch.float64).square()[:, None, None]

    def timesteps(self, steps: int) -> tuple[Timestep, ...]:
        indices = self.grid or [int(999 - i * 999 / steps) for i in range(steps)]
        assert len(indices) == steps
        return tuple(Timestep(i, float(ALPHAS[i])) for i in [*indices, 0])

    def denoise(
        self, z: torch.Tensor, at: Timestep, conditions: Sequence[Condition], guidance: float = 1.0
    ) -> tuple[torch.Tensor, torch.Tensor]:
        self.asked.append(at)
        self.conditions.append(list(conditions))
        alpha = ALPHAS[at.index]
        noise = (1 - alpha).sqrt() * z / (alpha * self.variance + 1 - alpha)
        return (z - (1 - at.alpha) ** 0.5 * noise) / at.alpha**0.5, noise

    def flow(self, start: int, end: int) -> torch.Tensor:
        """Return the exact ODE's factor between two indices: it keeps each coordinate's quantile."""
        spread = [ALPHAS[i] * self.variance + 1 - ALPHAS[i] for i in (start, end)]
        return (spread[1] / spread[0]).sqrt()


def white(batch: int = 2, seed: int = 0) -> torch.Tensor:
    return torch.randn(batch, 3, 4, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def relative(error: torch.Tensor, reference: torch.Tensor) -> float:
    return float(torch.linalg.norm(error) / torch.linalg.norm(reference))


def test_the_error_of_the_round_trip_falls_with_the_number_of_steps() -> None:
    model, noise = GaussianModel(), white()
    errors = []
    for steps in (4, 10, 25, 50, 200):
        latent = denoise(model, noise, steps=steps, conditions=[None] * 2)
        errors.append(relative(naive(model, latent, steps=steps) - noise, noise))
    assert all(later < earlier for earlier, later in pairwise(errors))
    assert errors[0] > 0.25  # naive inversion does err ...
    assert errors[-1] < 0.02  # ... by the size of its steps


def test_both_directions_tend_to_the_exact_flow_at_first_order() -> None:
    model, noise = GaussianModel(), white()
    down, up = [], []
    for steps in (50, 100, 200, 400):
        exact = noise * model.flow(999, 0)
        down.append(relative(denoise(model, noise, steps=steps, conditions=[None] * 2) - exact, exact))
        up.append(relative(naive(model, exact, steps=steps) - noise, noise))
    for errors in (down, up):
        assert errors[-1] < 0.01
        for earlier, later in pairwise(errors):
            assert later / earlier == pytest.approx(0.5, abs=0.1)  # Euler: half the step, half the error


def test_the_exact_flow_turns_unit_noise_into_the_data() -> None:
    noise = white(batch=2000)
    latent = denoise(GaussianModel(), noise, steps=200, conditions=[None] * 2000)
    assert latent.std(dim=(0, 2, 3)).tolist() == pytest.approx(DEVIATIONS, rel=0.04)


@pytest.mark.parametrize("method", ["auto", *ODE])
def test_no_steps_return_the_latent(method: str) -> None:
    model, latent = GaussianModel(), white()
    assert torch.equal(invert(model, latent, method, steps=0), latent)
    assert not model.asked


def test_exact_inversion_inverts_the_steps_of_generation() -> None:
    model, noise = GaussianModel(), white()
    for steps in (4, 10, 50):
        latent = denoise(model, noise, steps=steps, conditions=[None] * 2)
        naively = relative(naive(model, latent, steps=steps) - noise, noise)
        errors = [
            relative(exact(model, latent, steps=steps, iterations=n, tolerance=0.0) - noise, noise)
            for n in (0, 2, 8, 60)
        ]
        assert errors[0] == pytest.approx(naively, rel=1e-9)
        assert all(later < earlier for earlier, later in pairwise(errors))
        assert errors[-1] < 2e-3 < naively


def test_exact_inversion_is_never_worse_than_naive_where_the_fixed_point_diverges() -> None:
    class Steep(GaussianModel):
        """A network whose answer changes so fast with z that the plain fixed point diverges."""

        def denoise(
            self, z: torch.Tensor, at: Timestep, conditions: Sequence[Condition], guidance: float = 1.0
        ) -> tuple[torch.Tensor, torch.Tensor]:
            self.asked.append(at)
            noise = -4.0 * z
            return (z - (1 - at.alpha) ** 0.5 * noise) / at.alpha**0.5, noise

    model, latent = Steep([600]), white()
    start, end = model.timesteps(1)

    def residual(z: torch.Tensor) -> torch.Tensor:
        return (denoise(model, z, steps=1, conditions=[None] * 2) - latent).flatten(1).norm(dim=1)

    naively = residual(naive(model, latent, steps=1))
    plain = naive(model, latent, steps=1)
    for _ in range(6):
        plain = plain - (start.alpha / end.alpha) ** 0.5 * (
            denoise(model, plain, steps=1, conditions=[None] * 2) - latent
        )
    assert (residual(plain) > 10 * naively).all()
    assert (residual(exact(model, latent, steps=1, iterations=6)) < 0.9 * naively).all()


def test_heun_tends_to_the_exact_flow_at_second_order() -> None:
    model, noise = GaussianModel(), white()
    latent = noise * model.flow(999, 0)
    errors = [relative(heun(model, latent, steps=steps) - noise, noise) for steps in (50, 100, 200, 400)]
    for earlier, later in pairwise(errors):
        assert later / earlier == pytest.approx(0.25, abs=0.08)
    assert relative(naive(model, latent, steps=200) - noise, noise) > 5 * errors[2]


def test_an_item_does_not_depend_on_its_batch() -> None:
    model, noise = GaussianModel(), white(batch=3)
    together = denoise(model, noise, steps=10, conditions=[None] * 3)
    back = naive(model, together, steps=10)
    for i in range(3):
        alone = denoise(model, noise[i : i + 1], steps=10, conditions=[None])
        torch.testing.assert_close(alone, together[i : i + 1], rtol=0, atol=1e-12)
        torch.testing.assert_close(naive(model, alone, steps=10), back[i : i + 1], rtol=0, atol=1e-12)


def test_an_item_of_a_real_network_depends_on_its_batch_by_rounding_only(tiny_model: LatentModel) -> None:
    noise = torch.randn(3, *tiny_model.latent_shape, generator=torch.Generator().manual_seed(3))
    conditions = ["dawn", None, "dusk"]
    with torch.inference_mode():
        together = denoise(tiny_model, noise, steps=2, conditions=conditions, guidance=2.0)
        alone = denoise(tiny_model, noise[2:], steps=2, conditions=conditions[2:], guidance=2.0)
    # Processors that run the network in bfloat16 round to 3 digits.
    assert relative(alone - together[2:], alone) < 0.02
    assert relative(together[:1] - together[2:], alone) > 0.5


def test_the_grid_is_the_models_own_however_it_is_spaced() -> None:
    grid = [999, 950, 400, 390, 17]
    model, noise = GaussianModel(grid), white()
    latent = denoise(model, noise, steps=5, conditions=[None] * 2)
    assert [at.index for at in model.asked] == grid
    assert [at.alpha for at in model.asked] == [float(ALPHAS[i]) for i in grid]
    factor = torch.ones(3, 1, 1, dtype=torch.float64)
    for start, end in zip(grid, [*grid[1:], 0], strict=True):
        a, b, spread = ALPHAS[start], ALPHAS[end], ALPHAS[start] * model.variance + 1 - ALPHAS[start]
        factor = factor * (b.sqrt() * a.sqrt() * model.variance + (1 - b).sqrt() * (1 - a).sqrt()) / spread
    torch.testing.assert_close(latent, noise * factor, rtol=1e-12, atol=1e-12)
    model.asked.clear()
    naive(model, latent, steps=5)
    # Inversion: each step is given the index of its noisy end, and stands at the alpha of its clean end.
    assert [at.index for at in model.asked] == grid[::-1]
    assert [at.alpha for at in model.asked] == [float(ALPHAS[i]) for i in [0, *grid[:0:-1]]]


def test_inversion_knows_no_condition_unless_told() -> None:
    model = GaussianModel()
    naive(model, white(), steps=2)
    naive(model, white(), steps=1, conditions=["lake", "night"])
    assert model.conditions == [[None, None], [None, None], ["lake", "night"]]


def test_every_method_recovers_the_noise_at_the_default_number_of_steps() -> None:
    model, noise = GaussianModel(), white()
    latent = denoise(model, noise, steps=50, conditions=[None] * 2)
    for method in (METHODS[name] for name in ODE):
        back = method(model, latent, steps=DEFAULT_STEPS)
        cosine = torch.nn.functional.cosine_similarity(back.flatten(1), noise.flatten(1))
        assert float(cosine.min()) > 0.95
