"""The settings that each method takes by default, and `invert`, which runs a method by its name."""

from __future__ import annotations

import inspect
import math
from dataclasses import replace

from treering_verify.inversion.decoder.problem import Problem, Settings
from treering_verify.inversion.decoder.registry import AUTO, METHODS
from treering_verify.inversion.decoder.solution import Solution
from treering_verify.models.precision import ieee

REFINED = ("learned", "filtered", "posterior-mode")
"""Methods that use what was fitted to the model (its refiner, its filters), and are refused where it has none."""


def unstopped(settings: Settings) -> Settings:
    """Return the settings without early stopping and the other stops that published methods lack, but for `iterations`."""
    return replace(settings, tolerance=0.0, divergence=math.inf, stagnation=-math.inf, early_stopping=False)


class _Defaults(dict[str, Settings]):
    """Settings by method; of a method that users added, the default of its own parameter `settings`."""

    def __missing__(self, name: str) -> Settings:
        own = inspect.signature(METHODS[name]).parameters.get("settings")
        return own.default if own and isinstance(own.default, Settings) else self["forward-step"]


_ADAM = replace(unstopped(Settings(iterations=50, step=0.0, scheduled=True)), early_stopping=True)
DEFAULTS: dict[str, Settings] = _Defaults(
    {
        "encoder": Settings(iterations=0, step=0.0),
        "gradient": replace(_ADAM, step=0.1),
        "forward-step": Settings(
            iterations=3, step=1.0, early_stopping=True
        ),  # 4 steps: .2 dB better, 1.3 times the time
        "inertial-km": Settings(iterations=5, step=1.0, momentum=0.3, early_stopping=True),
        "adam": replace(_ADAM, step=0.01),
        "anderson": Settings(iterations=5, step=1.0, memory=4, early_stopping=True),
        "gauss-newton": Settings(iterations=2, step=0.1, inner=6, early_stopping=True),
        # The second step: 1.6 dB lower on clean images, up to .5 dB on attacked ones, and more evidence (docs/findings.md).
        "learned": Settings(iterations=2, step=1.0),
        "filtered": Settings(iterations=16, step=1.0),  # as many as were fitted
        "posterior-mode": unstopped(Settings(iterations=50, step=0.01, scheduled=True)),
    }
)
"""Settings of each method where none are given; of a method that users added, see docs/extending.md."""


def default_method(*, refined: bool, filtered: bool = False) -> str:
    """Return the name of the method that "auto" stands for, by whether the model has a refiner or carries fitted filters.

    Two learned steps take less time than three forward steps with early stopping, and have the lower error under every
    attack measured (docs/findings.md).
    """
    return "filtered" if filtered else "learned" if refined else "forward-step"


def invert(problem: Problem, method: str = AUTO, settings: Settings | None = None) -> Solution:
    """Run a method by name with its default settings or others; "auto" chooses by `default_method`.

    Raises
    ------
    UsageError
        If there is no such method: see `METHODS`.
    """
    if method == AUTO:
        method = default_method(refined=problem.refine is not None, filtered=problem.filters is not None)
    with ieee():
        return METHODS[method](problem, settings or DEFAULTS[method])
