"""Families of pipelines that are a file each: conditions, network, and the `PipelineFamily` that names them.

`sana` and `z_image` make images by flow matching. `chat` writes prompts as chat models take them.
"""
