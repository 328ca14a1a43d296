"""Decoder inversion: find the latent z with D(z) = x, without a prompt and mostly without gradients.

Every method is a function `(problem, settings) -> Solution`; `registry` names them all (`METHODS`), `methods` holds their
default settings (`DEFAULTS`) and `invert`, which runs one by name. The start is z = E(x), E being the mode of the encoder's
posterior. D(z) is never clamped inside the iteration.

`problem` holds what a method is given and `solution` what it returns. The iterative methods run in one loop, `loop.solve`,
whose safeguards no method can leave out; `bootstrap_stopping` says how many of its steps to accept. `baselines` holds the
published methods (encoder, gradient, forward step, inertial Krasnoselskii-Mann, Adam), `anderson`, `gauss_newton`,
`learned`, `filtered` and `posterior_mode` one method each.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
