"""Settings of an audit: compared before it is continued, and written into its summary."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from treering_verify.audit.inputs.sources import Inputs
from treering_verify.audit.judge import AuditJudge
from treering_verify.audit.output.rows import SCHEMA_VERSION
from treering_verify.models.provenance import versions, weights_of
from treering_verify.version import __version__
from treering_verify.watermark.keys.index import public_keys

if TYPE_CHECKING:
    from treering_verify.watermark.keys.index import KeyIndex
    from treering_verify.watermark.keys.key import Key

_MOST_KEYS = 1000  # beyond, a digest stands for their names and fingerprints


def settings_of(judge: AuditJudge) -> dict[str, Any]:
    """Return everything that a verdict depends on, JSON-ready; of the keys only what is public."""
    return {
        "version": __version__,
        "model": judge.model.name,
        "weights": weights_of(judge.model, judge.judge.unused_networks),
        "keys": public_keys(judge.indexes, _MOST_KEYS),
        **judge.judge.settings,
    }


def settings_id_of(settings: dict[str, Any]) -> str:
    """Return the digest of settings, 16 hexadecimal digits."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]


def facts_of(settings: dict[str, Any], inputs: Inputs, shard_rows: int) -> dict[str, Any]:
    """Return everything that must be the same when an audit is continued."""
    return {"schema_version": SCHEMA_VERSION, **settings, "inputs": inputs.facts(), "shard_rows": shard_rows}


def early_facts(keys: Sequence[Key | KeyIndex], alpha: float, inputs: Inputs, shard_rows: int) -> dict[str, Any]:
    """Return those of `facts_of` that are known before a model is loaded, which may have another name then."""
    settings = {"version": __version__, "keys": public_keys(keys, _MOST_KEYS), "alpha": alpha}
    return facts_of(settings, inputs, shard_rows)


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
        "versions": dict(versions()),
    }


_KINDS = ("status", "verdict", "code", "decided_by")
