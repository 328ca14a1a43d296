"""Audit many images: one row per input, whatever happens, in Parquet shards that survive a crash.

The stages, each in a module: `sources` names the inputs, `plan` writes them down in a process of its own, `readers` hands
them to reader processes (`reading` is what these do), `judging` sends images through the model in batches, `cache`
remembers the answers by content, `flow` leads from readings to rows, `open_shards` puts them in order and `shards` writes
them. `engine` lets all that overlap on one machine; on a cluster, `cluster` deals the inputs out to each `worker`, and a
`desk` knows what they must know of each other. `folder` is the front.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
