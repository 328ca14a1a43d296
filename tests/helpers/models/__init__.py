"""Models that the tests share: small, or without networks.

`pipelines`, `recent_pipelines` and `video_pipelines` build tiny pipelines of diffusers; `white_model` has no networks, and
`linear_maps` has inversions with a known answer. Script: `real_shapes` (seconds and memory at released models' shapes).
"""
