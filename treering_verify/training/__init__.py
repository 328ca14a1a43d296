"""Training of the learned inversion and of the embedded models; `landscape` has the recipes of the latter."""
