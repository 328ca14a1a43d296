"""Name and read images within other files: members of ZIP and tar archives, rows of a table's column of images.

An entry within a container is called ``CONTAINER!/MEMBER``. Shards of data sets (WebDataset, img2dataset) are tar files;
tables are Parquet or Arrow files whose column holds ``struct<bytes, path>``, as Hugging Face's data sets do, or bytes.

Containers are untrusted: members are counted, never unpacked to disk, and read up to a size, whatever they declare.
"""

from __future__ import annotations

import functools
import os
import zipfile
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from treering_verify.errors import ImageError
from treering_verify.files import opened_table
from treering_verify.media.archive_checks import CutTar, check_places, is_tar, numbered, tar_members
from treering_verify.media.images import CODES, MAX_BYTES

if TYPE_CHECKING:
    import pyarrow

JOIN = "!/"
ENDINGS = (".zip", ".cbz", ".tar")
_MEMBER = b"PK\3\4"  # how a member of a ZIP archive begins
MOST_MEMBERS = 1_000_000
"""Members of one archive that an audit lists; an archive with more is an error."""

PARQUET, ARROW = b"PAR1", (b"ARROW1", b"\xff\xff\xff\xff")  # how tables begin; an Arrow stream by its first message
_BATCH = 512  # rows of a table that are held at a time


def is_archive(path: str) -> bool:
    """Return whether a path names an archive: a regular file with one of `ENDINGS` that is what its name says."""
    if not path.lower().endswith(ENDINGS) or os.path.islink(path) or not os.path.isfile(path):
        return False
    try:
        return _is_zip(path) or is_tar(path)
    except OSError:
        return False


def _is_zip(path: str) -> bool:
    """Return whether a file is a ZIP archive, also one that was cut short, and no tar archive that ends with one."""
    with open(path, "rb") as file:
        if file.read(4) in (_MEMBER, b"PK\5\6"):
            return True
    return not is_tar(path) and zipfile.is_zipfile(path)


def _checked(archive: zipfile.ZipFile) -> zipfile.ZipFile:
    """Return an open archive; BadZipFile if it shares bytes among members, or its directory is of an archive within it."""
    members = archive.infolist()
    check_places(members)
    assert archive.fp is not None
    archive.fp.seek(0)
    first = min((member.header_offset for member in members), default=0)
    if first > 0 and archive.fp.read(4) == _MEMBER:  # its own directory is cut off, and the last one is another's
        raise zipfile.BadZipFile("members that the directory does not know")
    return archive


def list_members(path: str) -> Iterator[str]:
    """Yield the names of an archive's files, in the order in which they are stored; links and folders are left out.

    The second file of a name is called ``NAME#2``, and so on.

    Raises
    ------
    ImageError
        If the archive cannot be read, or would not be as an archive is written (code ``archive_damaged``), has more
        than `MOST_MEMBERS` members (``archive_too_large``); after its whole members, if a tar archive ends early
        (``archive_cut_short``).
    """
    count = 0
    try:
        for name in numbered(_names_in_zip(path) if _is_zip(path) else _names_in_tar(path)):
            count += 1
            if count > MOST_MEMBERS:
                raise ImageError("archive_too_large", CODES["archive_too_large"], path)
            yield name
    except ImageError:
        raise
    except CutTar as error:
        raise ImageError("archive_cut_short", CODES["archive_cut_short"], path) from error
    except MemoryError as error:
        raise ImageError("archive_too_large", CODES["archive_too_large"], path) from error
    except Exception as error:  # zipfile and tarfile throw almost anything at damaged input
        raise ImageError("archive_damaged", CODES["archive_damaged"], path) from error


def _names_in_zip(path: str) -> Iterator[str]:
    with zipfile.ZipFile(path) as archive:
        for info in _checked(archive).infolist():
            if not info.is_dir():
                yield info.filename


def _names_in_tar(path: str) -> Iterator[str]:
    return (member.name for member in tar_members(path))


def split_member(path: str) -> tuple[str, str] | None:
    """Split an entry's name into container and member; None if it does not name a member of an existing file."""
    if JOIN not in path or os.path.lexists(path):
        return None
    place = path.find(JOIN)
    while place >= 0:
        if os.path.isfile(path[:place]):
            return path[:place], path[place + len(JOIN) :]
        place = path.find(JOIN, place + 1)
    return None


def stays_in(root: str, path: str) -> bool:
    """Return whether a path, and each container that it may name, leads to a place in a folder.

    A path whose last part is a link leads to the link, because files are opened after a check that they are none. No folder
    on the way, and no container, may be a link out of the folder.

    Parameters
    ----------
    root : str
        The folder, as `os.path.realpath` gives it.
    path : str

    Raises
    ------
    OSError, ValueError
        If no file can have that name.
    """
    parts = path.split(JOIN)
    containers = [JOIN.join(parts[:count]) for count in range(1, len(parts))]
    if os.path.islink(path):
        place = os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))
    else:
        place = os.path.realpath(path)
    return all(os.path.commonpath([root, each]) == root for each in [place, *map(os.path.realpath, containers)])


def read_member(container: str, member: str) -> bytes:
    """Return the bytes of a member of a container.

    Raises
    ------
    ImageError
        not_found, too_large_file, archive_damaged, or archive_too_large.
    """
    try:
        with open(container, "rb") as file:
            head = file.read(8)
        if head.startswith((PARQUET, *ARROW)):
            return _read_row(container, member)
        if _is_zip(container):
            return _read_from_zip(container, member)
        return _read_from_tar(container, member)
    except KeyError as error:
        raise ImageError("not_found", CODES["not_found"], member) from error
    except ImageError:
        raise
    except MemoryError:
        raise
    except Exception as error:  # zipfile, tarfile, zlib and pyarrow throw almost anything at damaged input
        raise ImageError("archive_damaged", CODES["archive_damaged"], container) from error


def _read_from_zip(container: str, member: str) -> bytes:
    status = os.stat(container)
    opened = _opened_zip(container, status.st_mtime_ns, status.st_size)
    if isinstance(opened, str):
        raise ImageError(opened, CODES[opened], container)
    archive, members = opened
    with archive.open(members[member]) as file:
        return _bounded(file.read(MAX_BYTES + 1), member)


@functools.lru_cache(maxsize=2)
def _opened_zip(container: str, modified: int, size: int) -> tuple[zipfile.ZipFile, dict[str, zipfile.ZipInfo]] | str:
    """Return an open archive and its members, as `list_members` names them, or the code with which that refuses it.

    A list may name members that were not listed. Reading the directory anew for each would take as long as all together.
    """
    try:
        archive = zipfile.ZipFile(container)
        if len(archive.infolist()) > MOST_MEMBERS:
            return "archive_too_large"
        _checked(archive)
    except MemoryError:
        raise
    except Exception:  # zipfile throws almost anything at damaged input
        return "archive_damaged"
    files = [info for info in archive.infolist() if not info.is_dir()]
    return archive, dict(zip(numbered(info.filename for info in files), files, strict=True))


def _read_from_tar(container: str, member: str) -> bytes:
    status = os.stat(container)
    index, code = _tar_index(container, status.st_mtime_ns, status.st_size)
    if code and member not in index:
        raise ImageError(code, CODES[code], container)
    offset, size = index[member]
    if size > MAX_BYTES:
        raise ImageError("too_large_file", CODES["too_large_file"], member)
    with open(container, "rb") as file:
        file.seek(offset)
        return _bounded(file.read(size), member)


@functools.lru_cache(maxsize=2)
def _tar_index(container: str, modified: int, size: int) -> tuple[dict[str, tuple[int, int]], str]:
    """Return offset and size of each regular member, as `list_members` names it, and the code with which others are refused.

    Of an archive that was cut short the whole members are returned, of another that is refused none.
    """
    places: list[tuple[int, int]] = []
    names: list[str] = []
    code = ""
    try:
        for count, member in enumerate(tar_members(container), 1):
            if count > MOST_MEMBERS:
                return {}, "archive_too_large"
            names.append(member.name)
            places.append((member.offset_data, member.size))
    except MemoryError:
        raise
    except CutTar:
        code = "archive_cut_short"
    except Exception:  # tarfile throws almost anything at damaged input
        return {}, "archive_damaged"
    return dict(zip(numbered(names), places, strict=True)), code


def _bounded(data: bytes, member: str) -> bytes:
    if len(data) > MAX_BYTES:
        raise ImageError("too_large_file", CODES["too_large_file"], member)
    return data


def is_image_type(kind: pyarrow.DataType) -> bool:
    """Return whether values of a type are images: bytes, or a struct of bytes and path (Hugging Face's `Image`)."""
    import pyarrow.types as types

    if types.is_struct(kind):
        names = {kind.field(i).name: kind.field(i).type for i in range(kind.num_fields)}
        return "bytes" in names and is_image_type(names["bytes"])
    return bool(types.is_binary(kind) or types.is_large_binary(kind) or is_view(kind, text=False))


def is_view(kind: pyarrow.DataType, text: bool = True) -> bool:
    """Return whether values of a type are bytes, or also text, in Arrow's layout of views, as Polars writes them."""
    return str(kind) == "binary_view" or (text and str(kind) == "string_view")


def large_type(kind: pyarrow.DataType) -> pyarrow.DataType:
    """Return the type of the same values without views."""
    import pyarrow

    return pyarrow.large_string() if str(kind) == "string_view" else pyarrow.large_binary()


def arrow_batches(name: str, choose: Callable[[list[str]], str]) -> Iterator[pyarrow.RecordBatch]:
    """Yield batches of one column of a Parquet or Arrow file, `choose` picking its name.

    Raises
    ------
    ValueError
        If the table has more rows than `most_rows` of its size: few bytes can declare billions.
    """
    import pyarrow
    import pyarrow.parquet
    import pyarrow.types as types

    with opened_table(name) as file:
        most = most_rows(file.size())
        head = file.read(8)
        file.seek(0)
        if head.startswith(PARQUET):
            with pyarrow.parquet.ParquetFile(file) as table:
                _check_rows(table.metadata.num_rows, most)
                schema = table.schema_arrow
                chosen = choose(schema.names)
            text = types.is_string(schema.field(chosen).type) or types.is_large_string(schema.field(chosen).type)
            file.seek(0)
            # A text that stands once in the file stays once in memory.
            with pyarrow.parquet.ParquetFile(file, read_dictionary=[chosen] if text else None) as table:
                yield from table.iter_batches(_BATCH, columns=[chosen], use_threads=False)
            return
        if head.startswith(ARROW[0]):
            reader = pyarrow.ipc.open_file(file)
            batches = (reader.get_batch(i) for i in range(reader.num_record_batches))
        else:
            reader = pyarrow.ipc.open_stream(file)
            batches = iter(reader)
        chosen = choose(reader.schema.names)
        rows = 0
        for batch in batches:
            rows += batch.num_rows
            _check_rows(rows, most)
            for start in range(0, batch.num_rows, _BATCH):
                yield batch.select([chosen]).slice(start, _BATCH)


def table_schema(name: str) -> pyarrow.Schema:
    """Return the columns of a Parquet or Arrow file, with their types; ValueError as `arrow_batches`."""
    import pyarrow
    import pyarrow.parquet

    with opened_table(name) as file:
        head = file.read(8)
        file.seek(0)
        if head.startswith(PARQUET):
            with pyarrow.parquet.ParquetFile(file) as table:
                _check_rows(table.metadata.num_rows, most_rows(file.size()))
                return table.schema_arrow
        reader = pyarrow.ipc.open_file(file) if head.startswith(ARROW[0]) else pyarrow.ipc.open_stream(file)
        return reader.schema


def most_rows(size: int) -> int:
    """Return the most rows that a table of a size in bytes may have: a million, and 100 for each byte."""
    return 1_000_000 + 100 * size


def _check_rows(rows: int, most: int) -> None:
    if rows > most:
        raise ValueError(f"it has {rows:,} rows, and a file of its size at most {most:,}: split it")


def _read_row(container: str, member: str) -> bytes:
    column, _, number = member.rpartition("/")
    value = _rows_from(container, os.stat(container).st_mtime_ns, column).value(int(number))
    data = value.get("bytes") if isinstance(value, dict) else value
    if not isinstance(data, bytes):
        raise KeyError(member)
    return _bounded(data, member)


class _Rows:
    """The rows of a column, read forwards; going back begins anew."""

    def __init__(self, container: str, column: str) -> None:
        self._container, self._column = container, column
        self._restart()

    def _restart(self) -> None:
        self._batches = arrow_batches(self._container, lambda _: self._column)
        self._first, self._batch = 0, next(self._batches, None)

    def value(self, row: int) -> Any:
        """Return the value of a row; KeyError where there is none."""
        if row < self._first:
            self._restart()
        while self._batch is not None and row >= self._first + self._batch.num_rows:
            self._first += self._batch.num_rows
            self._batch = next(self._batches, None)
        if self._batch is None:
            raise KeyError(row)
        return self._batch.column(0)[row - self._first].as_py()


@functools.lru_cache(maxsize=2)
def _rows_from(container: str, modified: int, column: str) -> _Rows:
    return _Rows(container, column)
