"""Tables and figures of Hong et al. (NeurIPS 2024), and what follows from them.

Tables 1 and S1: `inversion`, and `baseline` for the released gradient baseline. Table S2: `ablation`. Figure 3:
`cocoercivity`. Watermark classification: `classification`, with the published keys and disc in `published_geometry`.
Editing: `editing`. Beyond the paper: `pareto` (error against time), `heldout` (an autoencoder that nothing was tuned on),
`noise` (noise inversion) and `readout` (where a key is read best). `page` puts all of it on one page, of the `parts`, beside
the numbers of `benchmark.published_figures`; `readings` has what a method reached, and the best that a sweep reaches.
"""
