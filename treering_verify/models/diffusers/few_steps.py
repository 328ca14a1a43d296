"""Models of few steps, told by their sampler: what they are called here, and why verdicts on them reach less far.

A network distilled to few steps is no field that an ODE follows: it was trained at the times of its own grid, to land at the
clean end of it. Its steps can still be taken without fresh noise, and each be solved for its start.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

CONSISTENCY = "LCMScheduler"
CONSISTENCY_CAUTION = (
    "a consistency model (LCM): its own sampler draws fresh noise at each step but the first, and what such a call makes in "
    "more than one step is found badly or not at all. Mark images of one step, or generate with this toolkit, which draws "
    "none; verify with the steps that generated and noise inversion exact"
)
TURBO_CAUTION = (
    "a sampler as of models of few steps (Turbo, Lightning): such a network knows its own times alone, and an ancestral "
    "sampler draws fresh noise between steps. Generate in 1 to 4 steps without guidance (1); verify with as many and noise "
    "inversion exact"
)


def is_consistency(scheduler: str, config: Mapping[str, Any]) -> bool:
    """Whether a scheduler is that of a latent consistency model (Luo et al., arXiv 2310.04378)."""
    return scheduler == CONSISTENCY


def is_turbo(scheduler: str, config: Mapping[str, Any]) -> bool:
    """Whether a scheduler is set as those of SD-Turbo and SDXL-Turbo are (Sauer et al., arXiv 2311.17042).

    Nothing else in their files tells them from what they were distilled from. Trailing steps under Euler are also what
    others choose for undistilled models: the caution then says too much, and nothing else differs.
    """
    return (
        scheduler in ("EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler")
        and config.get("timestep_spacing") == "trailing"
        and config.get("prediction_type", "epsilon") == "epsilon"
    )
