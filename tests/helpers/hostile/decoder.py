"""A decoder process that fails as the first bytes of a file say; tests use it in place of the real one."""

from __future__ import annotations

import os
import signal
import sys
import time
from multiprocessing.connection import Connection
from typing import Any

from treering_verify.media.isolation import decoder_process


def serve(connection: Connection, facts: list[Any]) -> None:
    honest = decoder_process._decoded

    def decoded(request: dict[str, Any], data: bytes) -> tuple[dict[str, Any], list[Any]]:
        if data.startswith(b"crash"):
            os.kill(os.getpid(), signal.SIGSEGV)
        if data.startswith(b"hang"):
            time.sleep(600)
        if data.startswith(b"hungry"):
            bytearray(1 << 40)
        if data.startswith(b"odd"):
            raise KeyError("\x1b[31mred")
        if data.startswith(b"many"):
            return {"frames": [[1, 8, 8, None]] * 1000, "total": 1000}, []
        if data.startswith(b"huge"):
            return {"frames": [[1, 1 << 20, 1 << 20, None]], "total": 0}, []
        if data.startswith(b"lying"):
            return {"code": "\x1b[31m", "reason": "\x1b[31m"}, []
        if data.startswith(b"silent"):
            sys.stdout.close()
            os._exit(0)
        return honest(request, data)

    decoder_process._decoded = decoded
    decoder_process.serve(connection, facts)
