"""Measure what the toolkit does: each benchmark returns findings, which `run` stores as Parquet, text and HTML."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from treering_verify.benchmark.ablation import ablation
from treering_verify.benchmark.audit import audit
from treering_verify.benchmark.baseline import baseline
from treering_verify.benchmark.classification import classification
from treering_verify.benchmark.classifier import classifier
from treering_verify.benchmark.clips import clips
from treering_verify.benchmark.cocoercivity import cocoercivity
from treering_verify.benchmark.detection import detection
from treering_verify.benchmark.editing import editing
from treering_verify.benchmark.forgery import forgery
from treering_verify.benchmark.front import front
from treering_verify.benchmark.heldout import heldout
from treering_verify.benchmark.identification import identification
from treering_verify.benchmark.inversion import inversion
from treering_verify.benchmark.kept import FOLDER
from treering_verify.benchmark.noise import noise
from treering_verify.benchmark.null import null
from treering_verify.benchmark.pareto import pareto
from treering_verify.benchmark.passes import passes
from treering_verify.benchmark.patterns import patterns
from treering_verify.benchmark.places import places
from treering_verify.benchmark.precision import precision
from treering_verify.benchmark.quality import quality
from treering_verify.benchmark.robustness import robustness
from treering_verify.benchmark.scope import Scope, hardware, versions
from treering_verify.benchmark.search import search
from treering_verify.benchmark.sizes import sizes
from treering_verify.benchmark.throughput import throughput
from treering_verify.findings import Findings
from treering_verify.models import LatentModel, device_of
from treering_verify.report import Provenance, store_findings

__all__ = ["BENCHMARKS", "Scope", "run"]

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
    "clips": clips,
    "throughput": throughput,
    "audit": audit,
    "passes": passes,
    "quality": quality,
    "robustness": robustness,
    "forgery": forgery,
    "front": front,
}


def run(name: str, model: LatentModel, output: Path, scope: Scope) -> str:
    """Run one benchmark, store what it found in a folder, and return the summary; long measurements there are taken up.

    Those that another device made are left where they are: results of two devices are never mixed.
    """
    device = device_of(model)
    findings = BENCHMARKS[name](
        model, replace(scope, folder=output / (FOLDER if device == "cpu" else f"{FOLDER}-{device}"))
    )
    options = [" --quick" if scope.quick else "", f" --count {scope.count}" if scope.count else ""]
    options += ["" if device == "cpu" else f" --device {device}"]
    where = "" if model.name == "landscape" else f" --model {model.name}"
    provenance = Provenance(
        command=f"treering benchmark {name}{''.join(options)}{where} --output DIR",
        model=findings.model or model.name,
        hardware=hardware(accelerated=(findings.device or device) != "cpu"),
        versions=versions(),
        date=datetime.date.today().isoformat(),
    )
    return store_findings(findings, provenance, output)
