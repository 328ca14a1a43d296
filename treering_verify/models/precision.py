"""The precision in which networks and float32 products are computed, on every device."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Literal, get_args

from treering_verify.errors import UsageError, unknown

Precision = Literal["float32", "bfloat16", "float16"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)


def precision_of(name: str) -> Precision:
    """Return the precision of a name; UsageError if there is no such one."""
    for precision in PRECISIONS:
        if precision == name:
            return precision
    raise UsageError(unknown("precision", name, PRECISIONS))


@contextmanager
def autocasting(precision: str) -> Iterator[None]:
    """Run networks in a precision on every device: images may be on the processor and networks on an accelerator."""
    import torch

    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    with ExitStack() as lowered:
        if precision != "float32":
            for device in (name for name, found in there.items() if found):
                lowered.enter_context(torch.autocast(device, getattr(torch, precision)))
        yield


class _Switches:
    """PyTorch's switches for float32 products on a GPU: their old values, and how many blocks need exact products now."""

    def __init__(self) -> None:
        self._lock, self._wanted, self._before = threading.Lock(), 0, list[object]()

    def enter(self) -> None:
        """Switch to exact products, at the first block."""
        with self._lock:
            if not self._wanted:
                self._before = [getattr(where, name) for where, name, _ in _switches()]
                for where, name, exact in _switches():
                    setattr(where, name, exact)
            self._wanted += 1

    def leave(self) -> None:
        """Restore the old values, after the last block."""
        with self._lock:
            self._wanted -= 1
            if not self._wanted:
                for (where, name, _), value in zip(_switches(), self._before, strict=True):
                    setattr(where, name, value)


def _switches() -> tuple[tuple[Any, str, object], ...]:
    """Return object, attribute and exact value of each switch."""
    import torch

    products = torch.backends.cuda.matmul
    convolutions = getattr(torch.backends.cudnn, "conv", None)  # since PyTorch 2.9, which forbids mixing both ways
    if convolutions is None:
        return (torch.backends.cudnn, "allow_tf32", False), (products, "allow_tf32", False)
    return (convolutions, "fp32_precision", "ieee"), (products, "fp32_precision", "ieee")


_SWITCHES = _Switches()


@contextmanager
def ieee() -> Iterator[None]:
    """Compute float32 products exactly on a GPU, where convolutions round to 10 bits (TF32) by default.

    With TF32 the residual of a decoder inversion would never become small. The switches are those of the process. They are
    restored when the last block ends, in any thread and after any exception.
    """
    _SWITCHES.enter()
    try:
        yield
    finally:
        _SWITCHES.leave()
