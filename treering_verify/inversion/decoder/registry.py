"""Methods of decoder inversion by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from treering_verify.plugins import Registry

if TYPE_CHECKING:
    from treering_verify.inversion.decoder.problem import Problem, Settings
    from treering_verify.inversion.decoder.solution import Solution

# Fitted filters where the model carries them, learned steps where it has a refiner, forward steps elsewhere.
AUTO = "auto"
_HERE = "treering_verify.inversion.decoder"

METHODS: Registry[Callable[[Problem, Settings], Solution]] = Registry(
    "decoder inversion",
    "treering_verify.inversions",
    {
        "encoder": f"{_HERE}.baselines:encoder",
        "gradient": f"{_HERE}.baselines:gradient",
        "forward-step": f"{_HERE}.baselines:forward_step",
        "inertial-km": f"{_HERE}.baselines:inertial_km",
        "adam": f"{_HERE}.baselines:adam",
        "anderson": f"{_HERE}.anderson:anderson_acceleration",
        "gauss-newton": f"{_HERE}.gauss_newton:gauss_newton_steps",
        "learned": f"{_HERE}.learned:learned_steps",
        "filtered": f"{_HERE}.filtered:filtered_steps",
        "posterior-mode": f"{_HERE}.posterior_mode:descend_to_posterior_mode",
    },
    reserved=(AUTO,),
)
"""Methods by name, each (problem, settings) -> solution; users add their own (docs/extending.md)."""
