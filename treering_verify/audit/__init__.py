"""Audit many images: one row per input, whatever happens, in Parquet shards that survive a crash.

The stages, each in a module: `sources` names the inputs, `plan` writes them down in a process of its own, `readers` hands
them to reader processes (`reading` is what these do), `judging` sends pictures through the model in batches, `cache`
remembers the answers by content, `shards` writes rows. `engine` lets them overlap; `folder` is the front.
"""
