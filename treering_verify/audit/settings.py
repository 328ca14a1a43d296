"""Settings of an audit: compared before it is continued, and written into its summary."""

from __future__ import annotations

import hashlib
import json
import platform
from dataclasses import asdict, replace
from importlib.metadata import version
from typing import Any

import numpy as np

from treering_verify.audit.inputs.sources import Inputs
from treering_verify.audit.judge import AuditJudge
from treering_verify.audit.output.rows import SCHEMA_VERSION
from treering_verify.detection.search.settings import OFF
from treering_verify.inversion.recovery import filters_used
from treering_verify.models.weights import fingerprint
from treering_verify.version import __version__

_MOST_KEYS = 1000  # beyond, a digest stands for their names and fingerprints
_PACKAGES = ("torch", "diffusers", "numpy", "scipy", "pillow", "pyarrow")


def settings_of(judge: AuditJudge) -> dict[str, Any]:
    """Return everything that a verdict depends on, JSON-ready; of the keys only what is public."""
    profile = judge.judge.inversion.profile
    filters = filters_used(judge.model, judge.judge.inversion)
    inversion = asdict(replace(judge.judge.inversion, profile=None))
    del inversion["batch_size"]
    return {
        "version": __version__,
        "model": judge.model.name,
        "weights": fingerprint(judge.model, without=() if judge.judge.screening else ("screen",)),
        "keys": _keys(judge),
        "alpha": judge.judge.alpha,
        **inversion,
        "profile": profile.record() if profile else None,
        **({"inverter": filters} if filters else {}),
        "tile": judge.model.tile,
        "search": judge.judge.search.words if judge.judge.search and judge.judge.targets else OFF,
        **({"screening": asdict(judge.judge.screening)} if judge.judge.screening else {}),
    }


def settings_id_of(settings: dict[str, Any]) -> str:
    """Return the digest of settings, 16 hexadecimal digits."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]


def facts_of(settings: dict[str, Any], inputs: Inputs, shard_rows: int) -> dict[str, Any]:
    """Return everything that must be the same when an audit is continued."""
    return {**settings, "inputs": inputs.facts(), "shard_rows": shard_rows}


def summary_of(
    settings: dict[str, Any],
    inputs: Inputs,
    judge: AuditJudge,
    counts: dict[str, int],
    seconds: float,
    finished: bool,
    q_values: bool,
) -> dict[str, Any]:
    """Return the content of `summary.json`; `counts` are those of `rows.count`, `seconds` the time of all runs."""
    counted = {
        kind: {k.split(":", 1)[1]: n for k, n in sorted(counts.items()) if k.startswith(kind)} for kind in _KINDS
    }
    judged = counted["status"].get("ok", 0)
    return {
        "schema_version": SCHEMA_VERSION,
        "finished": finished,
        "files": sum(counted["status"].values()),
        "status": counted["status"],
        "verdict": counted["verdict"],
        "code": counted["code"],
        **({"decided_by": counted["decided_by"]} if judge.judge.screening else {}),
        "alpha": judge.judge.alpha,
        "expected_false_positives": judged * judge.judge.alpha,
        "q_values": q_values,
        "model": judge.model.name,
        "keys": settings["keys"],
        "keys_tried": judge.judge.test.keys_tried,
        "settings_id": judge.settings_id,
        "settings": settings,
        "inputs": inputs.facts(),
        "seconds": round(seconds, 3),
        "versions": {
            "treering-verify": __version__,
            "python": platform.python_version(),
            **{name: version(name) for name in _PACKAGES},
        },
    }


_KINDS = ("status", "verdict", "code", "decided_by")


def _keys(judge: AuditJudge) -> Any:
    names = np.concatenate([index.facts["name"] for index in judge.indexes]).tolist()
    prints = np.concatenate([index.facts["fingerprint"] for index in judge.indexes]).tolist()
    pairs = sorted(
        (name.decode("ascii", "replace"), text.decode("ascii", "replace"))
        for name, text in zip(names, prints, strict=True)
    )
    if len(pairs) <= _MOST_KEYS:
        return [{"name": name, "fingerprint": text} for name, text in pairs]
    return {"count": len(pairs), "digest": hashlib.sha256(json.dumps(pairs).encode()).hexdigest()[:16]}
