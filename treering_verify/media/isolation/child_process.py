"""Child processes: started anew (never forked), and spoken to in JSON over a pipe, without pickle.

They run `python -P -c`, so that a file called numpy.py in the audited folder is never imported, and a caller's script
needs no `if __name__ == "__main__"`.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
from multiprocessing.connection import Connection, Pipe
from typing import Any

_QUIET = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
MAX_MESSAGE = 1 << 20
SECRETS = re.compile("TOKEN|SECRET|PASSW|CREDENTIAL|ACCOUNT_KEY|API_?KEY|ACCESS_?KEY|PRIVATE_?KEY|CONNECTION_STRING")
"""Names, in capitals, of environment variables that hold secrets: a process that a file took over must not have them."""

HUB_TOKENS = re.compile("^HF_.*TOKEN|^HUGGING_?FACE.*TOKEN")
"""Those that hold tokens of the Hugging Face hub."""


class ChildProcess:
    """A process that runs `module.serve(connection, facts)`; it ends when its connection does.

    Parameters
    ----------
    module : str
        Dotted name of a module.
    facts : JSON-ready
        Second argument of `serve`.
    stdin : bool
        Whether it inherits standard input.
    hidden : pattern
        Environment variables that it does not inherit.
    """

    def __init__(self, module: str, facts: Any, stdin: bool = False, hidden: re.Pattern[str] = SECRETS) -> None:
        self.connection, far = Pipe()
        code = f"from treering_verify.media.isolation.child_process import run; run({module!r}, {far.fileno()})"
        where = os.pathsep.join(path for path in sys.path if path)
        inherited = {name: value for name, value in os.environ.items() if not hidden.search(name.upper())}
        with far:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-c", code],
                pass_fds=[far.fileno()],
                stdin=None if stdin else subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,  # decoders print warnings with text from the file
                env={**inherited, **_QUIET, "PYTHONPATH": where},
                start_new_session=True,  # Ctrl-C is for the parent, which then ends the children
            )
        self.send(facts)

    def send(self, message: Any) -> None:
        """Send a JSON-ready message; OSError if the process is gone."""
        self.connection.send_bytes(json.dumps(message).encode())

    def send_bytes(self, data: bytes) -> None:
        """Send bytes; OSError if the process is gone."""
        self.connection.send_bytes(data)

    def receive_bytes(self, most: int) -> bytes:
        """Receive bytes, at most so many; EOFError or OSError if there are more, or the process is gone."""
        return self.connection.recv_bytes(most)

    def receive(self) -> Any:
        """Receive a message; EOFError or OSError if the process is gone."""
        return receive(self.connection)

    def kill(self) -> None:
        """End the process at once."""
        self.connection.close()
        self.process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(5)  # a process that waits for a dead disk cannot be ended


def receive(connection: Connection) -> Any:
    """Return the next message of a connection."""
    return json.loads(connection.recv_bytes(MAX_MESSAGE))


def run(module: str, descriptor: int) -> None:
    """Run the child's side: `module.serve` on the pipe with this file descriptor."""
    from importlib import import_module

    connection = Connection(descriptor)
    try:
        import_module(module).serve(connection, receive(connection))
    except (EOFError, BrokenPipeError, ConnectionResetError):  # the parent is gone
        os._exit(0)


def limit_process(memory: int) -> None:
    """Import what decoding needs, then limit the address space of this process, in MiB."""
    import resource
    import warnings

    import numpy  # noqa: F401
    from PIL import Image, ImageCms  # noqa: F401

    Image.init()
    warnings.simplefilter("ignore")
    sys.setrecursionlimit(1000)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    limit = memory * 2**20 if most == resource.RLIM_INFINITY else min(memory * 2**20, most)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
