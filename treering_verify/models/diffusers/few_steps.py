"""Recognise models of few steps by their sampler, and say why marks in their images are detected less surely.

A network distilled to few steps defines no ODE: it was trained at the times of its own grid, to reach the clean end of it.
Its steps can still be taken without fresh noise, and each step can be solved for its start.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_FEW_STEPS = re.compile(r"turbo|lightning|hyper|dmd|flash|schnell|[-_ ][1248]-?steps?", re.IGNORECASE)
CONSISTENCY = "LCMScheduler"
CONSISTENCY_CAUTION = (
    "a consistency model (LCM): its own sampler draws fresh noise at each step after the first, so marks in its images of "
    "more than one step are detected badly or not at all. Mark images of one step, or generate with this toolkit, which "
    "draws none; verify with the steps that generated and noise inversion exact"
)
TURBO_CAUTION = (
    "the sampler of a model of few steps (Turbo, Lightning): such a network works at its own times only, and an ancestral "
    "sampler draws fresh noise between steps. Generate in 1 to 4 steps without guidance (1); verify with as many and noise "
    "inversion exact"
)


def is_consistency(scheduler: str, config: Mapping[str, Any]) -> bool:
    """Return whether a scheduler is that of a latent consistency model (Luo et al., arXiv 2310.04378)."""
    return scheduler == CONSISTENCY


def is_turbo(scheduler: str, config: Mapping[str, Any]) -> bool:
    """Return whether a scheduler is configured as that of SD-Turbo and SDXL-Turbo (Sauer et al., arXiv 2311.17042).

    Others choose trailing steps and Euler for undistilled models too (Lin et al., arXiv 2305.08891), so the caution goes by
    the name: `is_named_few_steps`. Nothing else differs.
    """
    return (
        scheduler in ("EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler")
        and config.get("timestep_spacing") == "trailing"
        and config.get("prediction_type", "epsilon") == "epsilon"
    )


def is_named_few_steps(pipe: Any) -> bool:
    """Return whether the name of a pipeline or of its network says that it was distilled to few steps.

    Nothing else in the files of SD-Turbo, SDXL-Turbo and SDXL-Lightning tells them from the models that they were distilled
    from. Of a path only the last part counts, and the folder of a repository in the hub's cache.
    """
    names = [str(part.config.get("_name_or_path") or "") for part in (pipe, pipe.unet)]
    parts = [part for name in names for part in re.split(r"[/\\]", name)[-1:] + re.findall(r"models--[^/\\]+", name)]
    return any(_FEW_STEPS.search(part) for part in parts)
