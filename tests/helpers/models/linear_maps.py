"""Linear encoders and decoders, whose inversion has a known answer and a known speed."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from treering_verify.inversion.decoder import Problem, Settings, invert
from treering_verify.inversion.decoder.solution import Solution

SHAPE = (3, 8, 8)
SIDE = math.prod(SHAPE)
GRADIENT_FREE = ("forward-step", "inertial-km", "adam", "anderson")
ITERATIVE = (*GRADIENT_FREE, "gradient")
NO_STOP = {"stagnation": -9.0, "tolerance": 0.0}


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

    def error(self, result: Solution, items: slice = slice(None)) -> torch.Tensor:
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

    def solve(self, method: str, settings: Settings) -> Solution:
        return invert(Problem(self.image, linear(self.encoder, (3, 4, 4)), linear(self.decoder)), method, settings)

    def error(self, result: Solution) -> torch.Tensor:
        return (result.latent - self.truth).flatten(1).norm(dim=1) / self.truth.flatten(1).norm(dim=1)
