"""What a result must say of its origin: commit, weights, machine, versions, and the code that it measured."""

from __future__ import annotations

import datetime
import subprocess
import time
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from treering_verify.benchmark.harness.code_digests import code_digests
from treering_verify.benchmark.harness.scope import Scope, hardware, versions
from treering_verify.models.weights import fingerprint
from treering_verify.report import Provenance

if TYPE_CHECKING:
    from treering_verify.models import LatentModel
    from treering_verify.report.findings import Findings

_CODE = Path(__file__).resolve().parents[2]


def provenance_of(
    measured: tuple[str, ...], findings: Findings, model: LatentModel, device: str, scope: Scope, seconds: float
) -> Provenance:
    """Return the origin of findings that were just made.

    Parameters
    ----------
    measured : tuple of str
        Modules and packages that were measured.
    findings : Findings
    model : LatentModel
    device : str
    scope : Scope
    seconds : float
        Time of a processor that this run took.
    """
    options = [" --quick" if scope.quick else "", f" --count {scope.count}" if scope.count else ""]
    options += [f" --only '{part}'" for part in scope.only]
    options += ["" if device == "cpu" else f" --device {device}"]
    processes = scope.share.of if scope.share else 1
    options += ["" if processes == 1 else f" --workers {processes}"]
    options += [f" --method {name}" for name in scope.methods]
    options += [" --images DIR --key KEYS" + (" --labels TABLE" if scope.own.table else "")] if scope.own else []
    options += [" --inverter DIR"] if scope.inverter else []
    where = "" if model.name == "landscape" else f" --model {model.name}"
    commit, changed = commit_of_code()
    return Provenance(
        command=f"treering benchmark {findings.name}{''.join(options)}{where} --output DIR",
        model=findings.model or model.name,
        hardware=hardware(accelerated=(findings.device or device) != "cpu", processes=processes),
        versions=versions(),
        date=datetime.date.today().isoformat(),
        commit=commit,
        changed=changed,
        weights="" if findings.model else fingerprint(model, without=()),
        code=code_digests(measured),
        processor_seconds=round(seconds, 1),
    )


def reference_times() -> tuple[float, ...]:
    """Return milliseconds of a fixed computation, five times: what the machine's speed and load make of any time."""
    import torch

    image, kernel = torch.ones(1, 32, 64, 64), torch.ones(32, 32, 3, 3)
    found = []
    with torch.inference_mode():
        for _ in range(6):
            started = time.perf_counter()
            for _ in range(8):
                torch.nn.functional.conv2d(image, kernel)
            found.append(round(1000 * (time.perf_counter() - started), 3))
    return tuple(found[1:])  # the first is the warm-up


@cache
def commit_of_code() -> tuple[str, bool]:
    """Return the commit of this package's code, and whether the code differs from it; "" outside of a repository."""
    if not _git("ls-files", "version.py"):
        return "", False
    return _git("rev-parse", "--short=12", "HEAD"), bool(_git("status", "--porcelain", "--", ".", "../detectors"))


def _git(*arguments: str) -> str:
    """Return what git says of the folder of this package; "" if there is no git, or no repository."""
    try:
        done = subprocess.run(
            ["git", "-C", str(_CODE), *arguments], capture_output=True, text=True, timeout=30, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()
