"""Measure the toolkit: detection, robustness, inversion, speed, and the tables of the paper.

`catalogue` lists all benchmarks with the question that each answers; `runner` runs one and stores its findings. Each
benchmark is a module with a function `measure(model, scope) -> Findings`, which is imported when it is run. Those of `paper`
reproduce Hong et al. (NeurIPS 2024) and extend it; `robustness` has attacks, patterns and forgery; `speed` has time and
memory. `harness` holds what they share: scope and seeds, cached measurements, image sets, methods, rates. In this folder
itself: `detection`, `uniformity` (of p-values), `identification`, `search` and `quality`.
"""

from treering_verify.benchmark.catalogue import BENCHMARKS, GROUPS, SHARED, Benchmark, format_group
from treering_verify.benchmark.harness.scope import Scope
from treering_verify.benchmark.runner import run, run_shared

__all__ = ["BENCHMARKS", "GROUPS", "SHARED", "Benchmark", "Scope", "format_group", "run", "run_shared"]
