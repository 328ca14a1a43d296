"""What a reader process runs: it sets its limits, then reads one file after another."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import signal
from multiprocessing.connection import Connection
from typing import Any

from treering_verify.audit.inputs.reading import Reading, read_path, read_url, refused
from treering_verify.audit.inputs.urls import Access
from treering_verify.media.isolation.child_process import limit_process, receive

_ARRAYS = ("path", "pixels", "page")
_SHARE = 0.9  # of the time limit, for downloading; the rest is for decoding
_GRACE = 5  # seconds beyond the limit after which a reader ends itself, in case its parent is gone


def serve(connection: Connection, facts: list[Any]) -> None:
    """Answer requests until the connection ends; see `reader_pool.ReaderPool`."""
    shape, seconds, memory, protocols, allow_private, pages = facts
    access = Access(tuple(protocols), allow_private)
    limit_process(memory)
    connection.send_bytes(b'"ready"')
    while True:
        path, is_url = receive(connection)
        signal.alarm(math.ceil(seconds) + _GRACE)
        try:
            size = tuple(shape)
            reading = read_url(path, size, access, _SHARE * seconds) if is_url else read_path(path, size)
        except MemoryError:
            connection.send_bytes(b'"reader_memory"')
            os._exit(0)
        except Exception as error:
            reading = refused(path, "reader_failed", f"{type(error).__name__}: {error}")
        _answer(connection, reading if pages else dataclasses.replace(reading, page=None))
        signal.alarm(0)


def _answer(connection: Connection, reading: Reading) -> None:
    fields = {f.name: getattr(reading, f.name) for f in dataclasses.fields(reading) if f.name not in _ARRAYS}
    page = reading.page
    connection.send_bytes(json.dumps({**fields, "page_shape": None if page is None else page.shape}).encode())
    for array in (reading.pixels, page):
        if array is not None:
            connection.send_bytes(array.tobytes())
