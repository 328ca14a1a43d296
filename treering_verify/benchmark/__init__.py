"""Measure the toolkit: detection, robustness, inversion, speed, and the tables of the paper.

`catalogue` lists all benchmarks with the question that each answers, `measured_code` what each measures; `runner` runs one
and stores its findings. Each benchmark is a module with a function `measure(model, scope) -> Findings`, which is imported
when it is run. Those of `paper` reproduce Hong et al. (NeurIPS 2024) and extend it; `robustness` has attacks, patterns and
forgery; `speed` has time and memory; `outside` has other schemes and users' own images. `harness` holds what they share:
scope and seeds, cached measurements, image sets, methods, rates; `answers` says what their rows mean. In this folder itself:
`detection`, `uniformity` (of p-values), `identification`, `quality` and more; `published_figures` quotes papers.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
