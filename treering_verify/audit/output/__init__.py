"""Output of an audit: rows, shards and cached answers.

`rows` defines the columns, `open_shards` collects rows until a shard is whole, `store` writes the folder of results, and
`cache` stores answers by content, so that equal images are judged once. `feature_sample` stores
features for the statistics of chance, `database` is how both open SQLite. `repeat` tells a finished audit without its model.
"""
