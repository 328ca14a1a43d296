"""What a child process runs that reads a pickled file of weights: it sets its limits, then writes the tensors.

`torch.load` with `weights_only` builds no objects but tensors and plain containers. It is not relied on alone: the file is
of unknown origin, so the process has limits of memory, time and output, and no secrets in its environment.
"""

from __future__ import annotations

import json
import resource
from collections.abc import Mapping
from multiprocessing.connection import Connection
from typing import Any

_ROOM = 6 * 2**30  # of addresses beside twice the file's size: torch alone takes four
_SECONDS = 600  # of processor time
_CONTAINERS = ("ema", "state_dict", "model")  # entries that hold the weights, the first that is there


def serve(connection: Connection, facts: list[Any]) -> None:
    """Write the tensors of a file, and answer with how many there are or why not: facts are file, its size and output."""
    source, size, output = facts
    import torch
    from safetensors.torch import save_file

    for kind, most in (
        (resource.RLIMIT_AS, 3 * size + _ROOM),
        (resource.RLIMIT_CPU, _SECONDS),
        (resource.RLIMIT_FSIZE, size + 2**24),
        (resource.RLIMIT_CORE, 0),
    ):
        hard = resource.getrlimit(kind)[1]
        limit = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (limit, limit))
    try:
        tensors = _tensors(torch.load(source, map_location="cpu", weights_only=True, mmap=True))
        save_file(tensors, output)
        answer: dict[str, Any] = {"tensors": len(tensors)}
    except Exception as error:  # whatever a hostile file raises
        answer = {"error": f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ''}"[:300]}
    connection.send_bytes(json.dumps(answer).encode())


def _tensors(found: Any) -> dict[str, Any]:
    """Return the tensors of a checkpoint by name; ValueError if there is anything else among them."""
    import torch

    for name in _CONTAINERS:
        if isinstance(found, Mapping) and isinstance(found.get(name), Mapping):
            found = found[name]
            break
    if not isinstance(found, Mapping) or not found:
        raise ValueError("it holds no table of tensors")
    for name, value in found.items():
        if not isinstance(name, str) or type(value) not in (torch.Tensor, torch.nn.Parameter) or value.is_sparse:
            raise ValueError("it holds something else than named tensors")
    return {name: value.detach().clone(memory_format=torch.contiguous_format) for name, value in found.items()}
