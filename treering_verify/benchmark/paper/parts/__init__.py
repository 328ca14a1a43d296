"""The parts of the page that `treering benchmark paper` writes, each a table or figure of a paper beside ours.

Hong et al. (NeurIPS 2024): `errors` (tables 1 and S1), `sixteen_bits` (their 16-bit rows), `implementation` (what the
baseline's time owes to its code), `optimisers` (table S2), `convergence` (figure 3), `classes` (classification) and `edits`
(the editing figure). `attacks` has Tree-Ring's table 1 and SFWMark's means. `missing` names what cannot be
measured here. Each has a function `measure` that returns a `Measured` of `measured`; the benchmarks of `paper` and
`robustness` do the measuring, and their caches are shared. `extent` says how much a run measures, and `whole` shows one
progress for all parts.
"""
