"""Audits of many images: one row per input, whatever happens, in Parquet shards that survive a crash.

The stages, each in a module: `inputs.sources` lists the inputs, `inputs.plan` writes the list to disk in a process of its
own, `inputs.reader_pool` gives them to reader processes, which run `inputs.reading`. `batcher` makes batches of the
readings, `judge` runs `detection.judge` on them, `output.cache` stores the answers by content, `output.open_shards` puts the
rows in order and `output.store` writes them. `sketches` makes of an image's features what `output.feature_sample` stores,
and `chance` says from those what chance alone detects, and which detected files are one finding. `engine`
overlaps all this on one machine; `cluster` does it on many. `options` and `settings` say how an audit
is run and what its verdicts depend on.
`folder` has the Python function, `audit_folder`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
