"""Measure what the toolkit does: each benchmark returns findings, which `run` stores as Parquet, text and HTML."""

from __future__ import annotations

import contextlib
import datetime
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from treering_verify.benchmark.detection import detection
from treering_verify.benchmark.harness.cache import FOLDER
from treering_verify.benchmark.harness.scope import Scope, hardware, versions
from treering_verify.benchmark.harness.workers import Helped, Share, end_with_parent
from treering_verify.benchmark.identification import identification
from treering_verify.benchmark.null import null
from treering_verify.benchmark.paper.ablation import ablation
from treering_verify.benchmark.paper.baseline import baseline
from treering_verify.benchmark.paper.classification import classification
from treering_verify.benchmark.paper.cocoercivity import cocoercivity
from treering_verify.benchmark.paper.editing import editing
from treering_verify.benchmark.paper.heldout import heldout
from treering_verify.benchmark.paper.inversion import inversion
from treering_verify.benchmark.paper.noise import noise
from treering_verify.benchmark.paper.pareto import pareto
from treering_verify.benchmark.paper.places import places
from treering_verify.benchmark.quality import quality
from treering_verify.benchmark.robustness.classifier import classifier
from treering_verify.benchmark.robustness.forgery import forgery
from treering_verify.benchmark.robustness.front import front
from treering_verify.benchmark.robustness.patterns import patterns
from treering_verify.benchmark.robustness.robustness import robustness
from treering_verify.benchmark.search import search
from treering_verify.benchmark.speed.audit import audit
from treering_verify.benchmark.speed.precision import precision
from treering_verify.benchmark.speed.screening import screening
from treering_verify.benchmark.speed.sizes import sizes
from treering_verify.benchmark.speed.throughput import throughput
from treering_verify.benchmark.speed.videos import videos
from treering_verify.models import LatentModel, ModelSource, device_of, load_model
from treering_verify.report import Provenance, store_findings
from treering_verify.report.findings import Findings

__all__ = ["BENCHMARKS", "SHARED", "Scope", "run", "run_shared"]

BENCHMARKS: dict[str, Callable[[LatentModel, Scope], Findings]] = {
    "detection": detection,
    "search": search,
    "identification": identification,
    "patterns": patterns,
    "places": places,
    "null": null,
    "classifier": classifier,
    "inversion": inversion,
    "ablation": ablation,
    "baseline": baseline,
    "cocoercivity": cocoercivity,
    "pareto": pareto,
    "heldout": heldout,
    "noise": noise,
    "precision": precision,
    "sizes": sizes,
    "classification": classification,
    "editing": editing,
    "videos": videos,
    "throughput": throughput,
    "audit": audit,
    "screening": screening,
    "quality": quality,
    "robustness": robustness,
    "forgery": forgery,
    "front": front,
}


SHARED = ("robustness", "forgery", "front")
"""Benchmarks that several processes may share."""


def run(name: str, model: LatentModel, output: Path, scope: Scope) -> str:
    """Run one benchmark, store what it found in a folder, and return the summary; long measurements there are taken up.

    Those that another device made are left where they are: results of two devices are never mixed.
    """
    device = device_of(model)
    findings = BENCHMARKS[name](model, replace(scope, folder=_kept_in(output, device)))
    options = [" --quick" if scope.quick else "", f" --count {scope.count}" if scope.count else ""]
    options += ["" if device == "cpu" else f" --device {device}"]
    processes = scope.share.of if scope.share else 1
    options += ["" if processes == 1 else f" --workers {processes}"]
    where = "" if model.name == "landscape" else f" --model {model.name}"
    provenance = Provenance(
        command=f"treering benchmark {name}{''.join(options)}{where} --output DIR",
        model=findings.model or model.name,
        hardware=hardware(accelerated=(findings.device or device) != "cpu", processes=processes),
        versions=versions(),
        date=datetime.date.today().isoformat(),
    )
    return store_findings(findings, provenance, output)


def run_shared(name: str, model: ModelSource, output: Path, scope: Scope, workers: int) -> str:
    """As `run`, one of `SHARED` by several processes on this machine, each with the model and its part of the processors."""
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
        for helper in helpers:  # who finished, unless this process did not
            helper.terminate()
            helper.join()


def _help(name: str, model: ModelSource, output: Path, quick: bool, count: int | None, share: Share) -> None:
    """Measure what the others do not. What fails here fails there too, and is told there."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # ended by the process that it helps
    end_with_parent()
    with _threads(share.of), contextlib.suppress(Helped):
        loaded = load_model(model)
        scope = Scope(_silent, quick, count, _kept_in(output, device_of(loaded)), share)
        BENCHMARKS[name](loaded, scope)


def _kept_in(output: Path, device: str) -> Path:
    return output / (FOLDER if device == "cpu" else f"{FOLDER}-{device}")


@contextlib.contextmanager
def _threads(processes: int) -> Iterator[None]:
    """Take no more than one's part of the processors."""
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
