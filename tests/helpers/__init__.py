"""What the tests share.

Models: `pipelines` and `video_pipelines` (tiny diffusers pipelines), `white_model`, `linear_maps`. Files: `images`,
`audits`, `audit_rows`, and the package `hostile`. `markings` has keys of every pattern, `browser` is a headless Chromium;
`progress`, `leaks` and `places` are small tools. Scripts: `behaviour`, `decoding_speed`, `floors`, `import_graph`,
`mixed_folder`, `report_again`, `startup`, `surface`.
"""
