"""Pipelines of diffusers as models of this package.

`loading` loads a pipeline from a folder, which `folder` checks (by `components` and `variants`), a file or the hub, whose
connection `hub` checks. `families` lists the supported families, each a `family` of functions. Those of `kinds` are a file
each; `unet`, `diffusion_transformers`, `flow_transformers`, `rectified_flow` and `video_networks` encode prompts and call
networks for the others, and `few_steps` recognises models of few steps. `schedules` turns schedulers into grids of the
ODE. `video` lays out videos. `related` knows pipelines with more inputs, such as ControlNet. `adapter` makes a model of a
pipeline and its family, and `rectified_flow_pipeline` is a pipeline that diffusers does not have.
"""
