"""The plan of an audit: every input in order, on disk, in chunks of which each becomes one shard.

A process of its own walks and writes; chunks can be read meanwhile. After the walk the plan is complete and does not change:
later runs read it, whatever has happened to the folders since. New files are not in it, and files that are gone get a row
that says so. An interrupted walk begins again; a chunk with the same digest as before keeps its shard, the others are
judged again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sqlite3
import zlib
from collections.abc import Iterator
from itertools import islice
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

from treering_verify.audit.inputs.manifests import STDIN
from treering_verify.audit.inputs.sources import Entry, Inputs, list_inputs
from treering_verify.errors import TreeringError, UsageError
from treering_verify.files import printable, write_atomic
from treering_verify.media.isolation.child_process import ChildProcess

_PART, _WHOLE, _INDEX = "plan.part", "plan", "plan.json"
SCRATCH = "scratch"
_MEMORY = 4 * 1024**3  # address space of the process that walks, in bytes


class Chunk(NamedTuple):
    """One chunk: its place in the plan file, its number of inputs, and their digest."""

    offset: int
    size: int
    rows: int
    digest: str


class Plan:
    """The chunks of inputs that are known so far; a context that ends the walk when it is left.

    Parameters
    ----------
    folder : Path
        Folder of the plan; temporary files go to its subfolder "scratch".
    inputs : Inputs
    chunk_rows : int
        Inputs in a chunk.
    excluded : Path, optional
        A folder that is not walked.
    framed : bool
        See `sources.list_inputs`.

    Raises
    ------
    UsageError
        From `next_chunk`, if the inputs cannot be read.
    """

    def __init__(
        self, folder: Path, inputs: Inputs, chunk_rows: int, excluded: Path | None = None, framed: bool = False
    ) -> None:
        self._folder = folder
        self.chunks: list[Chunk] = []
        self.complete = False
        self.total = 0
        self._given = 0
        self._child: ChildProcess | None = None
        try:
            self._adopt(self.chunks_of(folder))
        except (OSError, ValueError, TypeError, KeyError):  # none yet, or damaged: walk
            self.chunks, self.complete = [], False
            for name in (_INDEX, _WHOLE):
                (folder / name).unlink(missing_ok=True)
            (folder / _PART).unlink(
                missing_ok=True
            )  # never truncated: a walk whose parent was killed may still hold it
            (folder / _PART).touch(0o644)
            facts = [inputs.facts(), str(folder), chunk_rows, str(excluded) if excluded else None, framed]
            self._child = ChildProcess(__name__, facts, stdin=STDIN in inputs.files_from)
        self._file = open(folder / (_WHOLE if self.complete else _PART), "rb")  # noqa: SIM115  (closed by __exit__)

    @staticmethod
    def chunks_of(folder: Path) -> list[Chunk]:
        """Return the chunks of the complete plan in a folder.

        Raises
        ------
        OSError, ValueError, TypeError, KeyError
            If there is none, or it is damaged.
        """
        chunks = [Chunk(*chunk) for chunk in json.loads((folder / _INDEX).read_text())["chunks"]]
        end = sum(chunks[-1][:2]) if chunks else 0
        if (folder / _WHOLE).stat().st_size != end:
            raise ValueError("cut short")
        return chunks

    def _adopt(self, chunks: list[Chunk]) -> None:
        self.chunks = chunks
        self.complete = True
        self.total = sum(chunk.rows for chunk in self.chunks)

    def __enter__(self) -> Plan:
        return self

    def __exit__(self, *_: object) -> None:
        if self._child:
            self._child.kill()
        self._file.close()

    def next_chunk(self) -> tuple[int, Chunk] | None:
        """Return the next chunk with its number; None if no other is known yet or, once `complete`, none is left."""
        self._listen()
        if self._given == len(self.chunks):
            return None
        self._given += 1
        return self._given - 1, self.chunks[self._given - 1]

    def read(self, chunk: Chunk) -> list[Entry]:
        """Return the inputs of a chunk.

        Raises
        ------
        UsageError
            If the plan is damaged.
        """
        packed = os.pread(self._file.fileno(), chunk.size, chunk.offset)
        try:
            data = zlib.decompress(packed)
            if _digest(data) != chunk.digest:
                raise ValueError("another digest")
            return [Entry(*item) for item in json.loads(data)]
        except (zlib.error, ValueError, TypeError) as error:
            raise UsageError("the audit's plan is damaged: start again with --overwrite") from error

    def _listen(self) -> None:
        while self._child and self._child.connection.poll():
            try:
                message = self._child.receive()
            except (EOFError, OSError):
                raise UsageError("the listing of the inputs ended unexpectedly: run the same command again") from None
            if "error" in message:
                raise UsageError(message["error"])
            if "chunk" in message:
                self.chunks.append(Chunk(*message["chunk"]))
                self.total += self.chunks[-1].rows
            else:
                self._freeze()
                self._child.kill()
                self._child = None

    def _freeze(self) -> None:
        os.replace(self._folder / _PART, self._folder / _WHOLE)
        write_atomic(self._folder / _INDEX, json.dumps({"chunks": self.chunks}).encode())
        self.complete = True


def serve(connection: Connection, facts: list[Any]) -> None:
    """Walk over the inputs and write the plan, in a process of its own; see `Plan`."""
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    limit = _MEMORY if hard == resource.RLIM_INFINITY else min(_MEMORY, hard)
    resource.setrlimit(resource.RLIMIT_AS, (limit, hard))  # a manifest may unpack to anything
    fields, where, chunk_rows, excluded, framed = facts
    inputs = Inputs.of(fields)
    folder = Path(where)

    def say(message: Any) -> None:
        connection.send_bytes(json.dumps(message).encode())

    try:
        _write(
            list_inputs(inputs, folder / SCRATCH, Path(excluded) if excluded else None, framed), folder, chunk_rows, say
        )
        say({"complete": True})
        with contextlib.suppress(EOFError, OSError):
            connection.recv_bytes()  # until the parent has heard everything
    except TreeringError as error:
        say({"error": str(error)})
    except (OSError, sqlite3.Error) as error:
        where = printable(str(getattr(error, "filename", None) or folder))
        reason = getattr(error, "strerror", None) or error
        say({"error": f"cannot write the audit's plan {where}: {reason}; free space, and run the same command again"})


def _write(remaining: Iterator[Entry], folder: Path, chunk_rows: int, say: Any) -> None:
    with open(folder / _PART, "r+b", buffering=0) as file:
        while some := list(islice(remaining, chunk_rows)):
            data = json.dumps(some).encode()
            packed = zlib.compress(data, 1)
            chunk = Chunk(file.tell(), len(packed), len(some), _digest(data))
            if file.write(packed) != len(packed):
                raise OSError(28, "No space left on device")
            say({"chunk": chunk})
        os.fsync(file.fileno())


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:32]
