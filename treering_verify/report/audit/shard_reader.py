"""Read the shards of a folder of results batch by batch: few bytes may stand for gigabytes, and are refused."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from treering_verify.files import opened_table
from treering_verify.media.containers import most_rows

BATCH_ROWS = 65_536
_MOST_TEXT = 1 << 20  # bytes of one text
_MOST_TEXTS = 1 << 28  # bytes of a column's texts in a batch
_MOST_GROUP = 1 << 30  # bytes of a row group, unpacked


def facts_of_shard(shard: Path) -> tuple[set[str], int]:
    """Return the columns of a shard and its count of rows.

    Raises
    ------
    ValueError
        If it says that it unpacks to more than any audit writes.
    OSError, pyarrow.ArrowException
        If it cannot be read.
    """
    from pyarrow import parquet

    with opened_table(shard) as opened:
        size = opened.size()
        with parquet.ParquetFile(opened) as file:
            _check(file.metadata, size)
            return set(file.schema_arrow.names), file.metadata.num_rows


def shard_batches(shard: Path, columns: Sequence[str]) -> Iterator[Any]:
    """Yield some columns of a shard as `pyarrow.RecordBatch` of at most `BATCH_ROWS`; errors as `facts_of_shard`."""
    from pyarrow import parquet, types

    with opened_table(shard) as opened:
        size = opened.size()
        with parquet.ParquetFile(opened) as file:
            _check(file.metadata, size)
            schema = file.schema_arrow
        # A text that stands once in the file stays once in memory until its repetitions are counted.
        kinds = (types.is_string, types.is_large_string, types.is_binary, types.is_large_binary)
        texts = [
            name for name in columns if name in schema.names and any(kind(schema.field(name).type) for kind in kinds)
        ]
        opened.seek(0)
        with parquet.ParquetFile(opened, read_dictionary=texts) as file:
            for batch in file.iter_batches(BATCH_ROWS, columns=list(columns), use_threads=False):
                for column in batch.columns:
                    _check_texts(column)
                yield batch


def _check(metadata: Any, size: int) -> None:
    most = most_rows(size)
    if metadata.num_rows > most:
        raise ValueError(f"it has {metadata.num_rows:,} rows, and a file of its size at most {most:,}")
    for number in range(metadata.num_row_groups):
        if metadata.row_group(number).total_byte_size > _MOST_GROUP:
            raise ValueError(f"a part of it unpacks to more than {_MOST_GROUP:,} bytes")


def _check_texts(column: Any) -> None:
    """Raise ValueError if the texts of a column are too long, one of them or all together."""
    from pyarrow import compute, types

    if not types.is_dictionary(column.type):
        return
    lengths = compute.binary_length(column.dictionary)
    if len(lengths) and (compute.max(lengths).as_py() or 0) > _MOST_TEXT:
        raise ValueError(f"a text has more than {_MOST_TEXT:,} bytes")
    if (compute.sum(compute.take(lengths, column.indices)).as_py() or 0) > _MOST_TEXTS:
        raise ValueError(f"the texts of {len(column):,} rows have more than {_MOST_TEXTS:,} bytes")
