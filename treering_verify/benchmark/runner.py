"""Run a benchmark, in one process or several, and store its findings."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from treering_verify.benchmark.catalogue import BENCHMARKS
from treering_verify.benchmark.harness.cache import FOLDER
from treering_verify.benchmark.harness.provenance import provenance_of
from treering_verify.benchmark.harness.scope import Scope
from treering_verify.benchmark.harness.workers import Helped, Share, end_with_parent
from treering_verify.models import LatentModel, ModelSource, device_of, load_model
from treering_verify.report import store_findings


def run(name: str, model: LatentModel, output: Path, scope: Scope) -> str:
    """Run one benchmark, store its findings in a folder, and return the summary.

    Cached measurements in that folder are used again. Each device has a cache of its own, so that results of two devices
    are never mixed.
    """
    device, started = device_of(model), time.process_time()
    findings = BENCHMARKS[name].measure(model, replace(scope, folder=_cache_folder(output, device)))
    spent = time.process_time() - started
    return store_findings(
        findings, provenance_of(BENCHMARKS[name].measured, findings, model, device, scope, spent), output
    )


def run_shared(name: str, model: ModelSource, output: Path, scope: Scope, workers: int) -> str:
    """Run one benchmark of `SHARED` in several processes, each with its own copy of the model and its share of the cores."""
    import multiprocessing

    context = multiprocessing.get_context("spawn")
    helpers = [
        context.Process(
            target=_help, args=(name, model, output, scope.quick, scope.count, Share(i, workers)), daemon=True
        )
        for i in range(1, workers)
    ]
    for helper in helpers:
        helper.start()
    try:
        with _threads(workers):
            return run(name, load_model(model), output, replace(scope, share=Share(0, workers)))
    finally:
        for helper in helpers:  # already finished, unless this process failed
            helper.terminate()
            helper.join()


def _help(name: str, model: ModelSource, output: Path, quick: bool, count: int | None, share: Share) -> None:
    """Measure what no other process does. An error here also occurs in the reporting process, which reports it."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # ended by the process that it helps
    end_with_parent()
    with _threads(share.of), contextlib.suppress(Helped):
        loaded = load_model(model)
        scope = Scope(_silent, quick, count, _cache_folder(output, device_of(loaded)), share)
        BENCHMARKS[name].measure(loaded, scope)


def _cache_folder(output: Path, device: str) -> Path:
    """Return the folder of cached measurements of a device."""
    return output / (FOLDER if device == "cpu" else f"{FOLDER}-{device}")


@contextlib.contextmanager
def _threads(processes: int) -> Iterator[None]:
    """Use this process's share of the threads inside the block."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(max(1, before // processes))
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def _silent(what: str, count: int) -> Iterator[Callable[[], None]]:
    yield lambda: None
