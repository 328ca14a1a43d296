"""Families of pipelines that are a file each: conditions, network, and the `PipelineFamily` that names them.

`flux2`, `qwen_image`, `sana` and `z_image` make images by flow matching. `lavie` makes videos, by the network and the
pipeline of `lavie_network`. `chat` writes prompts as chat models take them.
"""
