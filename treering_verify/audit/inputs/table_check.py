"""Look at the columns of a Parquet or Arrow file before an audit begins, in a process with a bound on memory and time."""

from __future__ import annotations

import json
from multiprocessing.connection import Connection
from typing import Any

from treering_verify.audit.inputs.manifests import check_schema, is_table
from treering_verify.errors import UsageError
from treering_verify.files import printable
from treering_verify.media.isolation.child_process import ChildProcess

_SECONDS = 20.0
_MEMORY = 4 << 30  # bytes of address space
_MODULE = "treering_verify.audit.inputs.table_check"
_LONGEST = 4000  # characters of an answer


def check_columns(name: str, column: str) -> None:
    """Raise UsageError if a Parquet or Arrow file has no such column, or the column cannot name inputs.

    Where the process gives no answer nothing is raised: the one that lists the inputs meets that again.

    Parameters
    ----------
    name : str
        Path of a manifest of any kind.
    column : str
        See `manifests.manifest_entries`.
    """
    if is_table(name) and (problem := _answer(name, column)):
        raise UsageError(problem)


def _answer(name: str, column: str) -> str:
    child = ChildProcess(_MODULE, [name, column])
    try:
        if child.connection.poll(_SECONDS):
            return printable(str(child.receive()))[:_LONGEST]
    except (EOFError, OSError, ValueError):  # it died of the file
        pass
    finally:
        child.kill()
    return ""


def serve(connection: Connection, facts: list[Any]) -> None:
    """Send what is wrong with a table, in words; see `check_columns`."""
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    limit = _MEMORY if hard == resource.RLIM_INFINITY else min(_MEMORY, hard)
    resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
    problem = ""
    try:
        check_schema(*facts)
    except UsageError as error:
        problem = str(error)
    connection.send_bytes(json.dumps(problem).encode())
