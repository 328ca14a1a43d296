"""In which precision numbers are multiplied, whichever device multiplies them."""

from __future__ import annotations

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


@contextmanager
def ieee() -> Iterator[None]:
    """Multiply float32 numbers as such on a GPU too, where convolutions take but 10 bits of them (TF32) by default.

    A decoder inversion that goes on until the residual is small would never see it small. The switches are the process's;
    they are put back as they were found, whatever happens.
    """
    import torch

    products = torch.backends.cuda.matmul
    convolutions = getattr(torch.backends.cudnn, "conv", None)  # since PyTorch 2.9, which forbids mixing both ways
    switches: tuple[tuple[Any, str, object], ...] = (
        ((convolutions, "fp32_precision", "ieee"), (products, "fp32_precision", "ieee"))
        if convolutions is not None
        else ((torch.backends.cudnn, "allow_tf32", False), (products, "allow_tf32", False))
    )
    before = [getattr(where, name) for where, name, _ in switches]
    try:
        for where, name, value in switches:
            setattr(where, name, value)
        yield
    finally:
        for (where, name, _), value in zip(switches, before, strict=True):
            setattr(where, name, value)
