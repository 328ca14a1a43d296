"""Recipes of the embedded model `landscape`, each a module that runs: `python -m treering_verify.training.landscape.NAME`.

`train` makes the autoencoder and the diffusion model, with `pyramid_start` for the autoencoder's first weights. On top
of them `train_refiner` makes the refiner, `train_estimator` the noise estimator and the screen, `train_tiny` the
held-out autoencoder of `landscape-tiny`, `train_restorer` the networks for over-exposed images, and `train_flow` a
flow-matching model. All learn from `scenes`, which are procedural; `recipe` holds what the recipes share. `measure`
prints the numbers of the model card.
"""
