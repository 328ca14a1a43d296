"""Readings of methods around known errors, for tests of what the page of the papers says of them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch

from treering_verify.benchmark.harness.inversion_methods import published
from treering_verify.benchmark.harness.inversion_paths import Path
from treering_verify.benchmark.harness.laboratory import Judgement
from treering_verify.benchmark.paper.readings import PUBLISHED, Reading

LOG10 = -40.0
"""log10 p of each image of a reading."""


def reading(label: str, error: float, iterations: int = 20, setting: str = PUBLISHED, residual: float = 0.5) -> Reading:
    """Return a reading of four images around an error in dB, without a model."""
    variant = next(v for v in published(200, "bfloat16") if v.label == label and iterations in v.budgets)
    errors = torch.tensor([error - 1, error, error, error + 1], dtype=torch.float64)
    path = Path(errors.repeat(iterations + 1, 1), torch.zeros(1), {iterations: torch.zeros(4, 1, 1, 1)}, torch.ones(4))
    lab: Any = SimpleNamespace(
        evidence=lambda latent: Judgement([LOG10] * 4, [0.5] * 4, [LOG10 + 5] * 4, [0.4] * 4),
        residual=lambda latent, attack: [residual] * 4,
    )
    return Reading(lab, variant, iterations, setting, path)
