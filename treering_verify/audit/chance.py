"""What chance alone would detect in an audit, and which detections are one finding: for `summary.json`.

The mean is files x alpha. Everything else comes from the features of the sample (`feature_sample`), by
`treering_detectors.dependence`, as if each file were tested once, on these features, at the audit's alpha.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from treering_verify.audit.output.feature_sample import FeatureSample, Sketch
from treering_verify.audit.output.store import Store, read_table, shard_files
from treering_verify.results import DETECTED

if TYPE_CHECKING:
    from treering_verify.audit.judge import AuditJudge
    from treering_verify.audit.output.open_shards import Tally

_NAMES = ("chance", "findings")
_GROUPS = 100  # that are listed, the largest first
_PATHS = 5  # of each, and of each content


def chance_of(store: Store, judge: AuditJudge, made_by: str, tally: Tally, earlier: dict[str, Any]) -> dict[str, Any]:
    """Return the fields `chance` and `findings` of the summary of a finished audit, JSON-ready.

    Parameters
    ----------
    store : Store
    judge : AuditJudge
    made_by : str
        Digest of how the sketches were made.
    tally : Tally
        Progress of the run that has finished it.
    earlier : dict
        The summary from before this run; its answer stands if nothing was judged since.
    """
    if earlier.get("finished") and tally.resumed == tally.done and all(name in earlier for name in _NAMES):
        return {name: earlier[name] for name in _NAMES}
    with FeatureSample(store.state, made_by) as sample:
        sketches, bounds = sample.read()
    files = _files(store, {sketch.digest for sketch in sketches})
    sampled = [sketch for sketch in sketches if sketch.rank <= bounds.all and files.copies[sketch.digest]]
    detected = [sketch for sketch in sketches if sketch.fingerprint and files.paths[sketch.digest]]
    return {
        "chance": _chance(sampled, files, judge),
        "findings": _findings(detected, files, judge.judge.alpha / judge.judge.test.keys_tried),
    }


@dataclass
class _Files:
    """Judged files: how many, how many of each content of the sample, and the first paths of its detected ones."""

    judged: int = 0
    detected: int = 0
    copies: Counter[bytes] = field(default_factory=Counter)
    paths: defaultdict[bytes, list[str]] = field(default_factory=lambda: defaultdict(list))


def _files(store: Store, digests: set[bytes]) -> _Files:
    import pyarrow as pa
    from pyarrow import compute

    found = _Files()
    wanted = pa.array([digest.hex() for digest in digests], pa.string())
    for path in shard_files(store.folder):
        table = read_table(path, ["path", "status", "verdict", "sha256"])
        table = table.filter(compute.equal(table["status"], "ok"))
        found.judged += len(table)
        found.detected += compute.sum(compute.equal(table["verdict"], DETECTED)).as_py() or 0
        table = table.filter(compute.is_in(table["sha256"], wanted))
        found.copies.update(map(bytes.fromhex, table["sha256"].to_pylist()))
        for row in table.filter(compute.equal(table["verdict"], DETECTED)).to_pylist():
            listed = found.paths[bytes.fromhex(row["sha256"])]
            if len(listed) < _PATHS:
                listed.append(row["path"])
    return found


def _vectors(sketches: Sequence[Sketch]) -> np.ndarray[Any, np.dtype[np.float16]]:
    return np.stack([np.frombuffer(sketch.vector, np.float16) for sketch in sketches])


def _chance(sampled: Sequence[Sketch], files: _Files, judge: AuditJudge) -> dict[str, Any] | None:
    """Return the number of detections by chance alone, over random keys; None if there is no sample."""
    from treering_detectors import chance_count

    if not sampled:
        return None
    copies = np.array([files.copies[sketch.digest] for sketch in sampled])
    covered = int(copies.sum())
    contents = max(len(sampled), round(len(sampled) * files.judged / covered))
    found = chance_count(
        _vectors(sampled),
        judge.judge.alpha,
        keys=judge.judge.test.keys_tried,
        copies=copies,
        contents=contents,
        images=files.judged,
    )
    return {**asdict(found), "files": files.judged, "sample": covered}


def _findings(detected: Sequence[Sketch], files: _Files, alpha: float) -> dict[str, Any]:
    """Return how many findings the detected files are, if those of one key that share features count as one."""
    from treering_detectors import feature_groups, shared_cosine

    by_key: defaultdict[str, list[Sketch]] = defaultdict(list)
    for sketch in detected:
        by_key[sketch.fingerprint].append(sketch)
    groups: list[dict[str, Any]] = []
    for fingerprint, sketches in by_key.items():
        vectors = _vectors(sketches)
        numbers = feature_groups(vectors, shared_cosine(alpha, vectors.shape[1]))
        for number in range(int(numbers.max()) + 1):
            inside = [sketch.digest for sketch, own in zip(sketches, numbers.tolist(), strict=True) if own == number]
            paths = sorted(path for digest in inside for path in files.paths[digest])
            count = sum(files.copies[digest] for digest in inside)
            groups.append({"fingerprint": fingerprint, "files": count, "paths": paths[:_PATHS]})
    groups.sort(key=lambda group: (-group["files"], group["paths"]))
    return {
        "files": files.detected,
        "compared": sum(group["files"] for group in groups),
        "count": len(groups),
        "groups": [group for group in groups[:_GROUPS] if group["files"] > 1],
    }
