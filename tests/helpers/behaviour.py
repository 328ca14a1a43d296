"""Compute p-values and images of the samples, which must not change: `python tests/helpers/behaviour.py` prints JSON.

Run in a process of its own with one thread, since sums of floats depend on how many threads share them.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import treering_verify as tv

SAMPLES = Path(__file__).parents[2] / "samples"


def platform() -> str:
    """Return what results depend on in their last digits: the processor, its instruction set and the libraries."""
    import diffusers
    import numpy
    import torch

    with open("/proc/cpuinfo") as file:
        first = dict(re.findall(r"^(.+?)\s*:\s*(.*)$", file.read().split("\n\n")[0], re.MULTILINE))
    processor = " ".join(first.get(name, "?") for name in ("vendor_id", "cpu family", "model"))
    amx = "amx" if "amx_tile" in first.get("flags", "") else "no amx"
    capability = torch.backends.cpu.get_cpu_capability()
    versions = f"torch {torch.__version__}, diffusers {diffusers.__version__}, numpy {numpy.__version__}"
    return f"{processor}, {capability}, {amx}, {versions}"


def judged(verdict: Any) -> dict[str, Any]:
    """Return a verdict's numbers in full precision."""
    best = verdict.best
    return {
        "verdict": verdict.verdict,
        "key": verdict.key,
        "note": verdict.note,
        "log10": best.log10_adjusted,
        "statistic": best.statistic,
        "residual": verdict.residual,
    }


def behaviour(folder: Path) -> dict[str, Any]:
    """Verify, identify, audit and decode the samples; generate with both embedded models."""
    secret = folder / "sample.key.json"
    shutil.copyfile(SAMPLES / secret.name, secret)
    secret.chmod(0o600)
    key = tv.Key.load(secret)
    model = tv.load_model("landscape")
    images = sorted(p for p in SAMPLES.iterdir() if p.suffix in (".png", ".jpg"))
    found: dict[str, Any] = {"platform": platform()}
    found["verify"] = {Path(v.path).name: judged(v) for v in tv.verify_many(images, key, model=model)}
    others = [tv.Key.generate(model.latent_shape, name=f"other-{i}", seed=i) for i in range(20)]
    found["identify"] = {
        Path(v.path).name: judged(v) for v in tv.detection.identify_many(images[:6], [key, *others], model=model, top=3)
    }
    found["audit"] = {
        Path(row.path).name: [row.status, row.verdict, row.code, row.log10_adjusted, row.decided_by]
        for row in tv.audit.audit_folder(str(SAMPLES), key, model=model)
    }
    shading = tv.detection.with_message(
        tv.Key.generate(model.latent_shape, name="shading", pattern="gaussian-shading", seed=3), "edition 7"
    )
    (made,) = tv.generate(model, shading, seeds=[5])
    (read,) = tv.detection.decode_many([made.image], shading, model=model)
    found["decode"] = {**judged(read), "message": read.message}
    found["generate"] = {}
    for name in ("landscape", "landscape-tiny"):
        loaded = tv.load_model(name)
        for label, chosen in (("marked", key), ("unmarked", None)):
            (made,) = tv.generate(loaded, chosen, seeds=[7])
            thumbnail = made.image.convert("L").reduce(32)
            found["generate"][f"{name} {label}"] = {
                "sha256": hashlib.sha256(made.image.tobytes()).hexdigest(),
                "levels": list(thumbnail.tobytes()),
            }
    return found


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        json.dump(behaviour(Path(folder)), sys.stdout, indent=2, sort_keys=True)
        print()
