"""Checks of a model folder before anything of diffusers or transformers reads it: it may have been made to do harm.

`folder` checks a whole folder: `json_files` reads its configurations, `limits` checks their fields, and `tensor_files`
reads the headers of its weights. `parameters` compares what a configuration asks for with the weights that are there.
"""
