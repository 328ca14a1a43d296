"""Inputs of an audit, from names to pixels.

`sources` lists folders, files, globs and URLs, and with `manifests` the entries of lists and tables; `table_check` looks
at columns before an audit begins. `plan` stores the entries in chunks on disk. `reader_pool` starts processes
(`media.isolation.child_process`) that run `reader_process`, which reads one input at a time by `reading`. `urls` says
which URLs may be opened, and `http_reader` reads those of http and https.
"""
