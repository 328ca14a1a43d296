"""The Ray engine of audits compared with the local one, over the same files on this machine."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from treering_verify.audit.engine import run_audit
from treering_verify.audit.inputs.sources import Inputs
from treering_verify.audit.judge import AuditJudge
from treering_verify.audit.options import Options
from treering_verify.audit.output.open_shards import Tally
from treering_verify.audit.output.rows import Row
from treering_verify.audit.output.store import read_shard

LOCAL = "local"


def has_ray() -> bool:
    """Return whether Ray is installed, so that there is a second engine to measure."""
    return find_spec("ray") is not None


def measure_engines(
    what: str, judge: AuditJudge, images: Path, outputs: Path, batch_size: int, clusters: Sequence[tuple[int, int]]
) -> list[dict[str, Any]]:
    """Audit a folder with the local engine, then with Ray on clusters of this machine.

    Parameters
    ----------
    what : str
        Name in the records and of the folders.
    judge : AuditJudge
    images, outputs : Path
    batch_size : int
    clusters : sequence of (int, int)
        Processors of each cluster, and of each worker.

    Returns
    -------
    list of dict
        For each audit: what, engine ("local" or "ray, 2 workers of 1 processor"), files; start, the seconds in which the
        cluster started, and seconds, those of the audit after it; first, the seconds until the first rows, and head, their
        number. For Ray: the number of rows that differ from the local engine's in anything but their seconds (other), and
        in verdict, code or key (otherwise); the largest difference of log10 p (apart).
    """
    from treering_verify.audit.cluster.ray_session import connected

    found: list[dict[str, Any]] = []
    expected: list[dict[str, Any]] = []
    for count, each in ((0, 1), *clusters):
        engine = f"ray, {_named(count // each, 'worker')} of {_named(each, 'processor')}" if count else LOCAL
        begun = time.perf_counter()
        with connected(count) if count else nullcontext():
            start = time.perf_counter() - begun
            output = outputs / f"{what}-{count}-{each}"
            options = Options(batch_size=batch_size, engine="ray" if count else LOCAL, worker_cpus=each)
            record, rows = _audit(Inputs((str(images),)), judge, output, options)
        record |= {"what": what, "engine": engine, "start": start}
        if count:
            pairs = list(zip(expected, rows, strict=True))
            record["other"] = sum(a != b for a, b in pairs)
            record["otherwise"] = sum(any(a[k] != b[k] for k in ("verdict", "code", "key")) for a, b in pairs)
            numbers = [[row["log10_pvalue"] or 0.0 for row in pair] for pair in pairs]
            record["apart"] = max(abs(a - b) for a, b in numbers)
        else:
            expected = rows
        found.append(record)
    return found


def clusters_here(quick: bool) -> tuple[tuple[int, int], ...]:
    """Return the clusters to measure here: one worker of one processor, one per processor, and one with all of them."""
    most = os.cpu_count() or 1
    return ((most, 1),) if quick or most == 1 else ((1, 1), (most, 1), (most, most))


def _named(count: int, what: str) -> str:
    return f"{count} {what}{'s' if count > 1 else ''}"


def engine_lines(records: Sequence[dict[str, Any]]) -> list[tuple[str, str]]:
    """Return table rows: the times of Ray as multiples of the local engine's."""
    lines = []
    for record in records:
        if record["engine"] == LOCAL:
            local = record
            continue
        name = f"{record['what']}, {record['files']} files, {record['engine']}"
        working = _seconds_per_row(record) / _seconds_per_row(local)
        whole = (record["start"] + record["seconds"]) / local["seconds"]
        lines += [
            (f"{name}: time per file after the first rows, relative to the local engine", f"{working:.2f} times"),
            (
                f"{name}: time including the start of the cluster",
                f"{record['start'] + record['seconds']:.1f} s = {whole:.2f} times the local engine's",
            ),
            (
                f"{name}: rows that differ from the local engine's",
                f"{record['other']}, log10 p by at most {record['apart']:.1g}; verdicts: {record['otherwise']}",
            ),
        ]
    return lines


def _seconds_per_row(record: dict[str, Any]) -> float:
    """Return seconds per row after the first rows; per row of all if they all came at once."""
    left = record["files"] - record["head"]
    return (record["seconds"] - record["first"]) / left if left else record["seconds"] / record["files"]


def _audit(
    inputs: Inputs, judge: AuditJudge, output: Path, options: Options
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    first, head = 0.0, 0
    begun = time.perf_counter()

    def watch(tally: Tally) -> None:
        nonlocal first, head
        if tally.done and not head:
            first, head = time.perf_counter() - begun, tally.done

    shards = sorted(run_audit(inputs, judge, output, options, watch))
    seconds = time.perf_counter() - begun
    rows = [_essence(row) for number in shards for row in read_shard(output, number)]
    return {"files": len(rows), "seconds": seconds, "first": first, "head": head}, rows


def _essence(row: Row) -> dict[str, Any]:
    return {name: value for name, value in asdict(row).items() if name != "seconds"}
