"""What the tests share.

Models: `pipelines` and `video_pipelines` (tiny diffusers pipelines), `white_model`, `linear_maps`, and `cluster_models`,
which are harmful when unpickled. Files: `images`, `hostile` with `hostile_reader`, `audits`, `audit_rows`. `markings` has
keys of every pattern, `browser` is a headless Chromium; `progress`, `leaks` and `places` are small tools. `behaviour` and
`import_graph` are also scripts.
"""
