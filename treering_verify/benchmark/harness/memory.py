"""Peak memory of a decoder inversion, measured in a fresh process that does nothing else."""

from __future__ import annotations

import math
import multiprocessing
import sys
import weakref
from collections.abc import Callable
from dataclasses import dataclass, replace
from multiprocessing.pool import Pool
from typing import TYPE_CHECKING, Any, cast

from treering_verify.inversion.decoder import METHODS, Settings

if TYPE_CHECKING:
    import torch

    from treering_verify.models.source import Device

_STEPS = 6  # by then every method holds all that it ever holds (anderson: its whole memory)
# What every model's loading imports, some seconds of it; `diffusers` alone imports hardly anything before it is asked.
_PRELOADED = (
    "diffusers.models.autoencoders.autoencoder_kl",
    "diffusers.models.unets.unet_2d",
    "diffusers.schedulers.scheduling_ddim",
    "treering_verify.models.networks.estimator",
    "treering_verify.inversion.recovery",
)


@dataclass(frozen=True)
class Peak:
    """Mebibytes above what the loaded model took: live tensors, and resident set (CUDA: both the allocator's maximum)."""

    tensors: float
    resident: float


def peak_memory(
    model_name: str,
    pixels: torch.Tensor,
    method: str,
    settings: Settings,
    precision: str = "float32",
    device: str = "cpu",
) -> Peak:
    """Return the peak memory of inverting one batch, above what the loaded model takes.

    It is NaN for a method that was added in Python, which the fresh process does not know; a package's method it knows.
    """
    if method in METHODS.added_here and not device.startswith("cuda"):
        return Peak(math.nan, math.nan)
    few = replace(settings, iterations=min(settings.iterations, _STEPS))
    return peak_of(_inversion, (model_name, pixels.numpy(), method, few, precision, device), device)


def peak_of(prepare: Callable[..., Callable[[], object]], arguments: tuple[Any, ...], device: str = "cpu") -> Peak:
    """Return the peak memory of calling what prepare(*arguments) returns, in a fresh process; preparation does not count.

    Both must be importable by name, and the arguments picklable. On a GPU it is measured in this process,
    since the allocator counts exactly.

    Raises
    ------
    torch.OutOfMemoryError
    """
    if device.startswith("cuda"):
        return _measure_allocator(prepare(*arguments))
    with fresh_process() as pool:
        return pool.apply(_measure, (prepare, arguments))


def fresh_process() -> Pool:
    """Return a pool of one process that has imported the libraries and run nothing yet.

    A fork server that has imported them forks it, so it starts at once.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([*_PRELOADED])
    return context.Pool(1)


def _inversion(
    model_name: str, pixels: Any, method: str, settings: Settings, precision: str, device: str
) -> Callable[[], object]:
    import torch

    from treering_verify.inversion.decoder import in_precision, invert
    from treering_verify.inversion.recovery import problem_of
    from treering_verify.models import load_model

    model = load_model(model_name, device=cast("Device", device))
    problem = in_precision(problem_of(model, torch.from_numpy(pixels)), precision)
    return lambda: invert(problem, method, settings)


def _measure_allocator(work: Callable[[], object]) -> Peak:
    import torch

    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    work()
    peak = (torch.cuda.max_memory_allocated() - before) / 2**20
    return Peak(peak, peak)


def _measure(prepare: Callable[..., Callable[[], object]], arguments: tuple[Any, ...]) -> Peak:
    work = prepare(*arguments)
    resident = _resident()
    with _live_tensors() as live:
        work()
    return Peak(live.peak / 2**20, _resident() - resident)


def _resident() -> float:
    """Return the high-water mark of the resident set, in mebibytes."""
    import resource

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / (2**20 if sys.platform == "darwin" else 2**10)


def _live_tensors() -> Any:
    """Return a context that counts the bytes of live storages made inside it, and their maximum."""
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves

    class Live(TorchDispatchMode):
        """Counts the outputs of every operation; storages that several tensors share count once."""

        def __init__(self) -> None:
            super().__init__()
            self.now = self.peak = 0
            self.known: set[int] = set()

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            import torch

            outputs = func(*args, **(kwargs or {}))
            for output in tree_leaves(outputs):
                if isinstance(output, torch.Tensor):
                    self.add(output.untyped_storage())
            return outputs

        def add(self, storage: Any) -> None:
            address, size = storage.data_ptr(), storage.nbytes()
            if address and address not in self.known:
                self.known.add(address)
                self.now += size
                self.peak = max(self.peak, self.now)
                weakref.finalize(storage, self.drop, address, size)

        def drop(self, address: int, size: int) -> None:
            self.known.discard(address)
            self.now -= size

    return Live()
