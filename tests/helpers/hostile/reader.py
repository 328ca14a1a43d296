"""A reader process that fails as the name of a file says; audit tests use it in place of the real one."""

from __future__ import annotations

import errno
import os
import signal
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from treering_verify.audit.inputs import reader_process, reading
from treering_verify.media import frame_folders
from treering_verify.media.images import read_bytes


def serve(connection: Connection, facts: list[Any]) -> None:
    reading.read_bytes = frame_folders.read_bytes = read  # type: ignore[attr-defined, assignment]
    reader_process.serve(connection, facts)


def read(path: str) -> bytes:
    name, marker = Path(path).name, Path(f"{path}.tried")
    if name.startswith("crash") or (name.startswith("once") and not marker.exists()):
        marker.touch()
        os.kill(os.getpid(), signal.SIGSEGV)
    if name.startswith("hang"):
        time.sleep(600)
    if name.startswith("hungry"):
        bytearray(1 << 40)
    if name.startswith("strange"):
        raise KeyError("\x1b[31mred")
    for code in (errno.EIO, errno.EACCES):
        if name.startswith(errno.errorcode[code].lower()):
            raise OSError(code, os.strerror(code))
    return read_bytes(path)
