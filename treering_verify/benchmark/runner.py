"""Run a benchmark, in one process or several, and store its findings."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from treering_verify.benchmark.catalogue import BENCHMARKS
from treering_verify.benchmark.harness.cache import FOLDER
from treering_verify.benchmark.harness.code_digests import code_digests
from treering_verify.benchmark.harness.interruption import BenchmarkInterrupted, Interruption, findings_of_rows
from treering_verify.benchmark.harness.provenance import provenance_of, reference_times
from treering_verify.benchmark.harness.scope import Scope
from treering_verify.benchmark.harness.workers import Helped, Share, end_with_parent
from treering_verify.models import LatentModel, ModelSource, device_of, load_model
from treering_verify.models.weights import fingerprint
from treering_verify.report import store_findings
from treering_verify.report.findings import Findings


def run(name: str, model: LatentModel, output: Path, scope: Scope) -> str:
    """Run one benchmark, store its findings in a folder, and return the summary.

    Cached measurements in that folder are used again, if they are of the same code. Each device has a cache of its own, so
    that results of two devices are never mixed.

    Raises
    ------
    BenchmarkInterrupted
        After Ctrl-C, when what was measured until then has been stored.
    KeyboardInterrupt
        After Ctrl-C, if nothing can be reported yet.
    """
    benchmark, device, started, ended = BENCHMARKS[name], device_of(model), _processor_seconds(), Interruption()
    here = replace(scope, folder=_cache_folder(name, output, device), progress=ended.around(scope.progress), rows=[])
    reference = reference_times()
    try:
        findings = benchmark.measure(model, here)
    except (Exception, KeyboardInterrupt) as error:
        if isinstance(error, KeyboardInterrupt):
            ended.where = ended.where or "interrupted"
        elif not ended.where:
            raise
        findings = _of_rows(name, here.rows)
    spent = _processor_seconds() - started
    provenance = provenance_of(benchmark.measured, findings, model, device, scope, spent)
    provenance = replace(provenance, reference_ms=(*reference, *reference_times()))
    if not ended.where:
        return store_findings(findings, provenance, output)
    if not findings.rows:
        raise KeyboardInterrupt
    raise BenchmarkInterrupted(store_findings(findings, replace(provenance, partial=ended.where), output))


def _processor_seconds() -> float:
    """Return the time of a processor that this process has taken, with all processes that it started.

    A process that still runs, such as the fork server of the measurements of memory, counts where /proc says what it took.
    """
    own = Path("/proc/self/task")
    children = {pid for path in own.glob("*/children") for pid in path.read_text().split()} if own.exists() else set()
    return sum(os.times()[:4]) + sum(_seconds_of(pid) for pid in children)


def _seconds_of(pid: str) -> float:
    """Return the time of a processor that a process has taken, with the processes that it has waited for."""
    try:
        fields = Path("/proc", pid, "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")  # utime, stime, cutime, cstime: fields 14 to 17


def finished(name: str, model: LatentModel, output: Path, count: int | None, *, quick: bool = False) -> bool:
    """Return whether a folder holds a whole result of a benchmark, of this model, this code and these numbers of images."""
    try:
        facts = json.loads((output / f"{name}.json").read_text())["facts"]
    except (OSError, ValueError, KeyError):
        return False
    options = shlex.split(facts["repeat"])
    counted = options[options.index("--count") + 1] if "--count" in options else None
    return bool(
        not facts["partial"]
        and ("--quick" in options) == quick
        and counted == (None if count is None else str(count))
        and facts["weights"] in ("", fingerprint(model, without=()))
        and facts["code"] == code_digests(BENCHMARKS[name].measured)
    )


def _of_rows(name: str, rows: list[dict[str, Any]]) -> Findings:
    """Return findings of an interrupted measurement of which the benchmark cannot make tables."""
    if not rows:
        raise KeyboardInterrupt
    return findings_of_rows(name, BENCHMARKS[name].question, rows)


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
        scope = Scope(_silent, quick, count, _cache_folder(name, output, device_of(loaded)), share)
        BENCHMARKS[name].measure(loaded, scope)


def _cache_folder(name: str, output: Path, device: str) -> Path:
    """Return the folder of cached measurements of a benchmark's code on a device: other code has another folder."""
    return output / (FOLDER if device == "cpu" else f"{FOLDER}-{device}") / BENCHMARKS[name].cache_name


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
