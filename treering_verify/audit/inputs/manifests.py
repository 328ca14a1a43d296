"""Lists and manifests: files whose entries name an audit's inputs.

A list is a text file with an entry a line. A manifest is a table: Parquet, Arrow IPC, JSON Lines, or CSV, whose delimiter is
found out. A column of images, as data sets of Hugging Face have them, gives one entry for each row, which
`containers.read_member` reads.
"""

from __future__ import annotations

import codecs
import contextlib
import io
import os
import re
import sys
from collections.abc import Callable, Iterator
from typing import IO, TYPE_CHECKING, Any

from treering_verify.audit.inputs.urls import is_url
from treering_verify.errors import UsageError
from treering_verify.files import printable
from treering_verify.media.containers import (
    ARROW,
    JOIN,
    PARQUET,
    arrow_batches,
    is_image_type,
    is_view,
    large_type,
    table_schema,
)
from treering_verify.media.formats import Kind, kind_of

if TYPE_CHECKING:
    import pyarrow

STDIN = "-"
_BLOCK = 1 << 16
_LOOKED_AT = 1 << 20  # bytes of a table that are looked at before an audit begins
_COLUMNS = ("path", "url", "file", "filename", "image")  # a manifest's column where none is named
_OTHERS = ("file_name", "file_path", "filepath", "image_path", "image_url")  # where none of those is there
_DELIMITERS = ",;\t|"
_LONGEST_LINE = 1 << 20  # of a JSON Lines file, in characters
_LONGEST_NAME = 100  # of a column, in messages
_LONGEST_ENTRY = 1 << 16  # bytes of a path or URL
_LEAST_CHARACTERS = 1 << 26  # of all entries of a table, whose size on disk may be next to nothing
_HEAD = 1 << 7  # bytes by which UTF-16 without a byte order mark is told
_FILE_NAME = re.compile(r".*\.(png|jpe?g|webp|gif|bmp|tiff?|avif|hei[cf]|jxl|mp4|zip|tar)", re.IGNORECASE | re.DOTALL)
_SEPARATOR = re.compile(r"\"?sep=([,;\t|])\"?\s*")  # a first line that spreadsheets write
_MARKS = (  # byte order marks, the longer before those that they begin with
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def list_entries(name: str, end: bytes) -> Iterator[str]:
    """Yield the entries of a list; empty ones are left out, and a carriage return before a line's end.

    Parameters
    ----------
    name : str
        Path of a text file, or "-" for standard input. A byte order mark says how it is encoded, and so do the zero bytes
        of UTF-16; otherwise bytes are taken as the file system takes them, so that any file's name can stand in a list.
    end : bytes
        What ends an entry: a line feed, or a zero byte.

    Raises
    ------
    UsageError
        If the list cannot be read, or is not encoded as it says.
    """
    shown = "standard input" if name == STDIN else printable(name)
    try:
        with contextlib.nullcontext(sys.stdin.buffer) if name == STDIN else open(name, "rb") as file:
            first = file.read(_BLOCK)
            encoding = _encoding_of(first, guessed=end != b"\0")
            if end == b"\n" not in first and b"\r" in first:
                end = b"\r"  # as old programs of the Macintosh end lines
            if encoding is None:
                if b"\0" in first and (kind := kind_of(first)).code in ("image", "container", "video_file"):
                    raise ValueError(f"it is {_named(kind)}, and no list: give it as PATH")
                if b"\0" in first and end != b"\0":
                    raise ValueError("it holds zero bytes: entries that end with them are read with --null")
                yield from _split(first, file, end)
            else:
                yield from _split_text(first, file, end.decode(), encoding)
    except UnicodeDecodeError as error:
        raise UsageError(f"the list {shown} is not {error.encoding} as it says: save it as UTF-8") from error
    except OSError as error:
        raise UsageError(f"cannot read the list {shown}: {error.strerror}") from error
    except ValueError as error:
        raise UsageError(f"the list {shown} cannot be used: {error}") from error


def _named(kind: Kind) -> str:
    return f"a {kind.name}" if kind.name else "an image"


def _check_rest(size: int) -> None:
    if size > _LONGEST_ENTRY + _BLOCK:
        raise ValueError(f"an entry is longer than {_LONGEST_ENTRY:,} bytes: is it a list, and do its entries end so?")


def _encoding_of(data: bytes, guessed: bool = True) -> str | None:
    """Name of the encoding that a byte order mark announces, or, if `guessed`, that zero bytes show; None otherwise."""
    announced = next((encoding for mark, encoding in _MARKS if data.startswith(mark)), None)
    if announced or not guessed:
        return announced
    first, second = data[:_HEAD:2], data[1:_HEAD:2]
    if 2 * second.count(0) > len(second) and not first.count(0):
        return "utf-16-le"
    return "utf-16-be" if 2 * first.count(0) > len(first) and not second.count(0) else None


def _split(first: bytes, file: IO[bytes], end: bytes) -> Iterator[str]:
    rest, block = b"", first
    while block:
        *whole, rest = (rest + block).split(end)
        for line in whole:
            if text := line if end == b"\0" else line.removesuffix(b"\r"):
                yield os.fsdecode(text)
        _check_rest(len(rest))
        block = file.read(_BLOCK)
    if rest := rest if end == b"\0" else rest.removesuffix(b"\r"):
        yield os.fsdecode(rest)


def _split_text(first: bytes, file: IO[bytes], end: str, encoding: str) -> Iterator[str]:
    decoder = codecs.getincrementaldecoder(encoding)()
    rest, block = "", first
    while True:
        *whole, rest = (rest + decoder.decode(block, final=not block)).split(end)
        for line in whole:
            if text := line if end == "\0" else line.removesuffix("\r"):
                yield text
        if not block:
            break
        _check_rest(len(rest))
        block = file.read(_BLOCK)
    if rest := rest if end == "\0" else rest.removesuffix("\r"):
        yield rest


def manifest_entries(name: str, column: str) -> Iterator[str]:
    """Yield the entries of a manifest's column; empty ones are left out.

    Parameters
    ----------
    name : str
        Path of a Parquet, Arrow IPC (file or stream), JSON Lines or CSV file, told apart by their content.
    column : str
        "": path, url, file, filename, image, or another usual name, in this order; or the only column.

    Raises
    ------
    UsageError
        If it cannot be read, has no such column, or the column holds something else than text or images.
    """
    with _told(name):
        head = _head_of(name)
        if head.startswith((PARQUET, *ARROW)):
            yield from _arrow(name, column)
        else:
            encoding, errors = _decoding_of(head)
            with open(name, encoding=encoding, errors=errors, newline="") as file:
                yield from _rows(file, column, head)


def _decoding_of(head: bytes) -> tuple[str, str]:
    """Return the encoding of a CSV or JSON Lines file, and what is done with bytes that are not in it."""
    encoding = _encoding_of(head) or "utf-8"
    return encoding, "surrogateescape" if encoding.startswith("utf-8") and not _is_json(head) else "strict"


def _rows(file: IO[str], column: str, head: bytes) -> Iterator[str]:
    return _json_lines(file, column) if _is_json(head) else _csv(file, column, head)


def check_list(name: str, end: bytes) -> bool:
    """Return whether a list has an entry, as far as it can be read twice; arguments as those of `list_entries`.

    Raises
    ------
    UsageError
        If the file does not begin as a list does.
    """
    if not os.path.isfile(name):
        return True
    first = next(list_entries(name, end), None)
    if first and first.startswith("{") and first.endswith("}") and not os.path.lexists(first):
        raise UsageError(f"{printable(name)} is not a list of paths: give JSON Lines as --manifest")
    return first is not None


def check_manifest(name: str, column: str) -> bool:
    """Return whether a manifest may have an entry, by its first mebibyte.

    Raises
    ------
    UsageError
        If the file does not begin as a CSV or JSON Lines manifest does, or has no such column. Parquet and Arrow files are
        left to `table_check.check_columns`.
    """
    if not os.path.isfile(name):  # a pipe can be read once
        return True
    with _told(name):
        head = _head_of(name)
        if head.startswith((PARQUET, *ARROW)):
            return True
        with open(name, "rb") as file:
            begin = file.read(_LOOKED_AT)
        encoding, errors = _decoding_of(head)
        whole = len(begin) < _LOOKED_AT
        text = codecs.getincrementaldecoder(encoding)(errors).decode(begin, final=whole)
        if not whole:
            text = text[: text.rfind("\n") + 1] or text
        return next(_rows(io.StringIO(text, newline=""), column, head), None) is not None or not whole


def is_table(name: str) -> bool:
    """Return whether a file is a Parquet or Arrow file; False for what cannot be read twice."""
    return os.path.isfile(name) and _head_of(name).startswith((PARQUET, *ARROW))


def check_schema(name: str, column: str) -> None:
    """Raise UsageError if a Parquet or Arrow file has no such column, or it holds neither text nor images."""
    with _told(name):
        schema = table_schema(name)
        _reader_of(name, schema.field(_choose(schema.names, column)))


@contextlib.contextmanager
def _told(name: str) -> Iterator[None]:
    """Turn what goes wrong with a manifest into a UsageError that names it."""
    shown = printable(name)
    try:
        yield
    except OSError as error:
        raise UsageError(f"cannot read the manifest {shown}: {error.strerror or error}") from error
    except MemoryError as error:
        raise UsageError(f"the manifest {shown} takes too much memory to read: split it, or store it as CSV") from error
    except RecursionError as error:
        raise UsageError(f"the manifest {shown} cannot be used: a line is nested too deep") from error
    except (ValueError, LookupError) as error:  # pyarrow's errors are among them; csv's is turned into one
        raise UsageError(f"the manifest {shown} cannot be used: {printable(str(error))}") from error


def _head_of(name: str) -> bytes:
    with open(name, "rb") as file:
        return file.read(_BLOCK)


def _is_json(head: bytes) -> bool:
    """Return whether a manifest is JSON Lines; ValueError if it is other JSON."""
    text = head.decode(_encoding_of(head) or "utf-8", "replace").lstrip("\ufeff \t\r\n")
    if re.match(r"\[\s*[\[{\"\]]", text):
        raise ValueError("it is a JSON array: write an object a line (JSON Lines), such as by jq -c '.[]'")
    return text.startswith("{")


def _arrow(name: str, column: str) -> Iterator[str]:
    """Yield the entries of a Parquet or Arrow file; those of a column of images are its rows."""
    row, take, characters = 0, None, 0
    most = _LEAST_CHARACTERS + 100 * os.stat(name).st_size
    for batch in arrow_batches(name, lambda names: _choose(names, column)):
        take = take or _reader_of(name, batch.schema.field(0))
        values = batch.column(0)
        if is_view(values.type):
            values = values.cast(large_type(values.type))
        _check_lengths(values)
        for value in values.to_pylist():
            if entry := take(value, row):
                characters += len(entry)
                if characters > most:
                    raise ValueError(f"its entries have more than {most:,} characters: split it")
                yield entry
            row += 1


def _check_lengths(column: pyarrow.Array) -> None:
    """Raise ValueError if a text is longer than a path or URL can be, before any is made a string of Python."""
    import pyarrow.types as types
    from pyarrow import compute

    values = column.dictionary if types.is_dictionary(column.type) else column
    if types.is_string(values.type) or types.is_large_string(values.type):
        longest = compute.max(compute.binary_length(values)).as_py() or 0
        if longest > _LONGEST_ENTRY:
            raise ValueError(f"an entry has {longest:,} bytes, and {_LONGEST_ENTRY:,} is the most")


def _reader_of(name: str, field: pyarrow.Field) -> Callable[[Any, int], str]:
    """Return what turns a value and its row into an entry; ValueError where the column holds neither text nor images."""
    import pyarrow.types as types

    kind = field.type
    kind = kind.value_type if types.is_dictionary(kind) else kind
    kind = large_type(kind) if is_view(kind) else kind
    if types.is_string(kind) or types.is_large_string(kind):
        return lambda value, row: value or ""
    if types.is_null(kind):
        return lambda value, row: ""
    if is_image_type(kind):
        return lambda value, row: _path_alone(value) or (f"{name}{JOIN}{field.name}/{row}" if value else "")
    raise ValueError(
        f"its column {field.name!r} holds {kind}, and not paths, URLs or images: choose another with --column"
    )


def _path_alone(value: Any) -> str:
    """Return the path of an image that a data set names and does not hold."""
    path = value.get("path") if isinstance(value, dict) and value.get("bytes") is None else None
    if path and len(path) > _LONGEST_ENTRY:
        raise ValueError(f"an entry has {len(path):,} characters, and {_LONGEST_ENTRY:,} is the most")
    return path if isinstance(path, str) else ""


def _json_lines(file: IO[str], column: str) -> Iterator[str]:
    import json

    chosen, number = "", 0
    while line := file.readline(_LONGEST_LINE):
        number += 1
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except ValueError as error:
            more = "" if line.rstrip().endswith("}") else " (an object stands in one line: jq -c . writes it so)"
            raise ValueError(f"line {number} is not JSON: {error}{more}") from error
        if not isinstance(record, dict):
            raise ValueError(f"line {number} is no JSON object")
        chosen = chosen or _choose(list(record), column)
        if chosen not in record:  # one line may name it otherwise than another
            with contextlib.suppress(LookupError):
                chosen = _choose([*record, ""], column)  # "": an only name stands for no path here
        value = record.get(chosen)
        if value is not None and not isinstance(value, str):
            raise ValueError(f"line {number}: {chosen!r} is {type(value).__name__}, and not text")
        if value:
            yield value


def _csv(file: IO[str], column: str, head: bytes) -> Iterator[str]:
    import csv

    if not _encoding_of(head) and b"\0" in head[:_HEAD] and (kind := kind_of(head)).code:
        raise ValueError(f"it is {_named(kind)}, and no table")
    first = file.readline(_LONGEST_LINE)
    named = _SEPARATOR.fullmatch(first.lstrip("\ufeff"))
    if not named:
        file.seek(0)
    rows = csv.reader(_lines_of(file), delimiter=named[1] if named else _delimiter_of(first))
    try:
        header = next((row for row in rows if any(row)), [])
        if not column and any(is_url(cell) or _FILE_NAME.fullmatch(cell) for cell in header):
            advice = (
                "give it as a list, --files-from" if len(header) == 1 else "write a first line that names the columns"
            )
            raise ValueError(f"its first line names a file, and no column: {advice}")
        place = header.index(_choose(header, column))
        spaced = header[place].startswith(" ")  # a space behind each delimiter
        for row in rows:
            if len(row) > place and (entry := row[place].lstrip(" ") if spaced else row[place]):
                yield entry
    except csv.Error as error:
        raise ValueError(f"line {rows.line_num}: {error}") from error


def _lines_of(file: IO[str]) -> Iterator[str]:
    """Yield the lines of a file; ValueError for one that no table has, before all of it is in memory."""
    while line := file.readline(_LONGEST_LINE):
        if len(line) == _LONGEST_LINE and not line.endswith(("\n", "\r")):
            raise ValueError(f"a line has more than {_LONGEST_LINE:,} characters")
        yield line


def _delimiter_of(header: str) -> str:
    """Return what separates the names in the first line of a CSV file; a comma where nothing does.

    csv.Sniffer would try regular expressions, which take hours on some lines.
    """
    outside = re.sub('"[^"]*"', "", header)
    return max(_DELIMITERS, key=outside.count)


def _choose(names: list[str], column: str) -> str:
    candidates = [column] if column else [*_COLUMNS, *(names if len(names) == 1 else [])]
    for candidate in candidates:
        if candidate in names:
            return candidate
    plain = [name.strip().lower() for name in names]  # capitals and spaces as people write them
    for candidate in [column.strip().lower()] if column else [*_COLUMNS, *_OTHERS]:
        if plain.count(candidate) == 1:
            return names[plain.index(candidate)]
    if not any(names):
        raise LookupError("it names no columns")
    listed = ", ".join(name[:_LONGEST_NAME] for name in names[:20])
    raise LookupError(f"no column {column!r} in it: choose one of {listed}" if column else f"--column one of {listed}")
