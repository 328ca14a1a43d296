"""Ranges of seeds for all that makes images to measure, fit or calibrate, so that no two purposes share an image.

torch's generator on a processor takes the lower 32 bits of a seed alone: seeds that agree in them give the same noise. So
all ranges lie below 2**32, in its upper half, and the lower half is left to users. The recipes of the embedded models took
seeds whose lower 32 bits lie in the lower half, too: no range here has an image that those models learned from.
"""

from __future__ import annotations

_STEP = 1 << 24
_NAMES = (
    "detection",
    "throughput",
    "quality",
    "classification",
    "ablation",
    "cocoercivity",
    "inversion",
    "noise",
    "pareto",
    "precision",
    "heldout",
    "identification",
    "shared",
    "audit",
    "patterns",
    "uniformity",
    "classifier",
    "readout",
    "robustness",
    "forgery",
    "annulus-pareto",
    "screening",
    "editing",
    "baseline",
    "agreement",
    "chance",
    "coverage",
    "peers",
    "search-uniformity",
    "over-exposure",
    "gain",
    "fit",  # images of treering models fit
    "fit-report",
    "networks",  # images that a network on top of a fit learns from
    "networks-validation",
    "calibration",  # images of treering calibrate
)
SEEDS = {name: (1 << 31) + i * _STEP for i, name in enumerate(_NAMES)}
"""First seed of each range, by the benchmark or the purpose."""
