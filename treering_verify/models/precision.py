"""In which precision numbers are multiplied, whichever device multiplies them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any


@contextmanager
def autocasting(precision: str) -> Iterator[None]:
    """Run networks in a precision, on whichever device: images may lie on the processor and networks on an accelerator."""
    import torch

    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    with ExitStack() as lowered:
        if precision != "float32":
            for device in (name for name, found in there.items() if found):
                lowered.enter_context(torch.autocast(device, getattr(torch, precision)))
        yield


class _Switches:
    """How PyTorch multiplies float32 on a GPU, how many want it exact just now, and how it was before them."""

    def __init__(self) -> None:
        self._lock, self._wanted, self._before = threading.Lock(), 0, list[object]()

    def enter(self) -> None:
        """Multiply exactly, from the first who wants it on."""
        with self._lock:
            if not self._wanted:
                self._before = [getattr(where, name) for where, name, _ in _switches()]
                for where, name, exact in _switches():
                    setattr(where, name, exact)
            self._wanted += 1

    def leave(self) -> None:
        """Put all back, after the last."""
        with self._lock:
            self._wanted -= 1
            if not self._wanted:
                for (where, name, _), value in zip(_switches(), self._before, strict=True):
                    setattr(where, name, value)


def _switches() -> tuple[tuple[Any, str, object], ...]:
    """Object, attribute, and the value that means float32."""
    import torch

    products = torch.backends.cuda.matmul
    convolutions = getattr(torch.backends.cudnn, "conv", None)  # since PyTorch 2.9, which forbids mixing both ways
    if convolutions is None:
        return (torch.backends.cudnn, "allow_tf32", False), (products, "allow_tf32", False)
    return (convolutions, "fp32_precision", "ieee"), (products, "fp32_precision", "ieee")


_SWITCHES = _Switches()


@contextmanager
def ieee() -> Iterator[None]:
    """Multiply float32 numbers as such on a GPU too, where convolutions take but 10 bits of them (TF32) by default.

    A decoder inversion that goes on until the residual is small would never see it small. The switches are the process's;
    they are put back as they were found when the last block ends, in whatever thread, and whatever happens.
    """
    _SWITCHES.enter()
    try:
        yield
    finally:
        _SWITCHES.leave()
