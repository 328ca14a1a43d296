"""Other schemes and users' own images.

`peers` lets other schemes decide on the same images, `mark_diffusion` among them, and `labelled` takes users' images.
"""
