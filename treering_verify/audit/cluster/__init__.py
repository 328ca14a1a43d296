"""The engine for clusters, on Ray Data.

`run` deals the inputs out to workers and writes their rows, `worker` judges a block of inputs, `coordinator` holds what the
workers must know of each other, and `ray_session` connects to Ray.
"""
