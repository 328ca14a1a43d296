"""Fitting the inversion to a model.

`closed_form` fits linear filters (`fit`) to `examples`, a model's own generations or photographs, by the ridge regression of
`regression`, under the attacks of `attack_table`; `decoder_stages` are the steps of its decoder inversion, and `gate` says
how much of them an image takes. `correction` trains a network on top, which learns from `network_examples`; its loss is the
error on a `band` of frequencies. All networks are trained by one `trainer`, and an `example_store` keeps on disk what they
learn from. `fit_report` says on held-out images what a fit brings. `memory` lets a model compute nothing twice. `landscape`
has the recipes of the embedded models, `landscape_sd` that of a text-to-image model. `conversion` makes a model folder of a
pickled file (`convert`), which a process of its own reads by `pickled_tensors`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
