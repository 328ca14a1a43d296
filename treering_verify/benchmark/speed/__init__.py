"""Time and memory.

`throughput` times batches of verification and `audit` whole audits, with the Ray engine in `engines` and a model without
weights in `null_model`. `screening` measures two-pass detection. `precision` compares 16 and 32 bits, for both inversions
together in `full_inversion`. `sizes` and `videos` measure decoder inversion at Stable Diffusion's size and on videos.
"""
