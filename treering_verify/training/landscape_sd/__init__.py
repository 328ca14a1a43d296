"""Recipe of `landscape-sd`, a text-to-image model in Stable Diffusion's format.

`python -m treering_verify.training.landscape_sd.train` runs it. `attributes` says what a scene shows, `scenes` and `trees`
draw it, `captions` tells it. `text` makes the tokenizer and the text encoder, `autoencoder` and `diffusion` the other
networks, `train` runs them in turn and exports, `card` writes the model card, and `measure` prints what is found of marks.
The weights are not in the package.
"""
