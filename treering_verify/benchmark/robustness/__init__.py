"""Attacks, patterns, forgery and the Fourier-domain classifier.

`robustness` plans which images are judged under which attack, and `survival` takes its twelve conditions alone.
`measurements` measures them, `tables` and `curves` summarise.
`over_exposure` judges brightened images with their restoration and without, and `gain` attacked ones by the default
inversion and by the encoder and DDIM.
`forgery` attacks a key, with its tables in `forgery_tables`. `patterns` compares all patterns. `annulus_pareto` compares
patterns, annuli and channels by evidence and by their cost to the image. `classifier` compares a classifier with the test.
"""
