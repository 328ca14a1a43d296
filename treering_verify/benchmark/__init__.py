"""Measure the toolkit: detection, robustness, inversion, speed, and the tables of the paper.

`catalogue` lists all benchmarks with the question that each answers, `durations` how long each takes, and `measured_code`
what each measures; `runner` runs one and stores its findings, and `diff` compares two runs; `by_method` measures again by
other inversions. Each benchmark is a module with a function `measure(model, scope) -> Findings`, which is imported when it
is run. Those of `paper` reproduce Hong et al. (NeurIPS 2024) and extend it; `robustness` has attacks, patterns and forgery;
`speed` has time and memory; `outside` has other schemes and users' own images. `harness` holds what they share: scope and
seeds, cached measurements, image sets, methods, rates; `answers` says what their rows mean, and `published_figures` quotes
papers. In this folder itself: `detection` and `identification` rates; `uniformity` and `search_uniformity` of p-values,
`chance` and `agreement`, which bound what chance and fitted keys reach; `coverage` and `shared` (judged by
`shared_trials`), which say what a search finds, and `search_parts` what each part of it brings; and `quality` of marked
images.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
