"""Tensors on disk: examples that are computed once, and checkpoints; safetensors alone, written whole or not at all."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from treering_verify.errors import UsageError
from treering_verify.files import printable, write_atomic

if TYPE_CHECKING:
    import torch

    Tensors = dict[str, torch.Tensor]

_MOST_BYTES = 512 << 20  # of files that are kept in memory


_LAYOUT = "channels last"  # names of tensors in that layout of memory: what is computed from them rounds by it


def write_tensors(path: Path, tensors: Tensors, facts: dict[str, str]) -> None:
    """Write tensors and what is to be known of them."""
    from safetensors.torch import save

    others = [name for name, one in tensors.items() if not one.is_contiguous() and _is_last(one)]
    parts = {name: one.detach().contiguous() for name, one in tensors.items()}
    write_atomic(path, save(parts, {**facts, _LAYOUT: json.dumps(others)}))


def read_tensors(path: Path) -> tuple[Tensors, Mapping[str, str]]:
    """Return the tensors of a file, laid out as when written, and what is known of them; UsageError if it is damaged."""
    import torch
    from safetensors.torch import load_file

    facts = facts_of(path)
    found = load_file(path)
    for name in json.loads(facts[_LAYOUT]):
        found[name] = found[name].contiguous(memory_format=torch.channels_last)
    return found, facts


def _is_last(tensor: torch.Tensor) -> bool:
    import torch

    return tensor.dim() == 4 and tensor.is_contiguous(memory_format=torch.channels_last)


def facts_of(path: Path) -> Mapping[str, str]:
    """Return what is known of a file's tensors; UsageError if it is damaged."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as opened:
            return dict(opened.metadata() or {})
    except (OSError, SafetensorError) as error:
        raise UsageError(f"{printable(str(path))} is damaged: delete {printable(str(path.parent))}") from error


@dataclass(frozen=True, eq=False)
class ExampleStore:
    """The files of examples in a folder.

    Attributes
    ----------
    folder : Path
    identity : str
        Digest of what the examples depend on: a file with another one is refused.
    """

    folder: Path
    identity: str = ""
    _kept: dict[Path, Tensors] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)

    def get(self, name: str, compute: Callable[[], Tensors]) -> Tensors:
        """Return the tensors of a file, which are computed and written if it does not exist."""
        path = self.folder / f"{name}.safetensors"
        if not path.exists():
            started = time.monotonic()
            tensors = compute()
            write_tensors(path, tensors, {"identity": self.identity, "seconds": str(time.monotonic() - started)})
        self._check(path)
        return read_tensors(path)[0]

    def parts(self, count: int, compute: Callable[[int], Tensors]) -> list[Tensors]:
        """Return the tensors of `count` files, which are named by their numbers, as `get` does."""
        found = []
        for number in range(count):
            found.append(self.get(str(number), partial(compute, number)))
            print(f"{self.folder.name} {number + 1}/{count}", flush=True)
        return found

    def read(self, path: Path) -> Tensors:
        """Read a file; as many as fit into half a gigabyte stay in memory."""
        if path not in self._kept:
            found, _ = read_tensors(path)
            held = [one.nbytes for tensors in (found, *self._kept.values()) for one in tensors.values()]
            if sum(held) > _MOST_BYTES:
                self._kept.pop(next(iter(self._kept)), None)
            self._kept[path] = found
        return self._kept[path]

    def files(self, kind: str) -> list[Path]:
        """Return the files whose names begin so, in the order of their names."""
        return sorted(self.folder.glob(f"{kind}-*.safetensors"))

    def seconds(self) -> float:
        """Return how long all files of the folder took to make; UsageError if one is of other examples."""
        return sum(float(self._check(path)["seconds"]) for path in self.files("*"))

    def _check(self, path: Path) -> Mapping[str, str]:
        facts = facts_of(path)
        if facts.get("identity") != self.identity:
            where = printable(str(path.parent))
            raise UsageError(
                f"{where} is of a training with another model, fit or settings: delete it, or name another --output"
            )
        return facts
