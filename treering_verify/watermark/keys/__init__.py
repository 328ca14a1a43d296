"""Watermark keys and their files.

`key_family` is what keys may share: pattern, channels, annulus and latent shape. `key` is one key: how it is generated, and
its JSON file. `key_origin` says whether a key's numbers are derived. `key_dates` says from when to when a key marks images,
and `key_folder` manages a folder of key files. `index_file` is the format of a memory-mapped file of many keys, and `index`
loads and holds such keys. `given` takes keys as objects or as paths. `checks` refuses keys that cannot be tried together,
or not on a model.
"""
