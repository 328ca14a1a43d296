"""The digest of an audit: counts, a histogram and a bounded sample of its rows, from one pass over them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from treering_verify.report.audit.audit_reader import AuditRows
from treering_verify.results import DETECTED, INCONCLUSIVE, NO_EVIDENCE

ERROR, SKIPPED = "error", "skipped"
LABELS = (DETECTED, INCONCLUSIVE, ERROR, NO_EVIDENCE, SKIPPED)
"""Labels of files, in the order of interest: the verdict of a judged file, the status of another."""

PVALUE_BINS = 20
MAX_FOLDERS = 20_000
SAMPLED = {DETECTED: 1000, INCONCLUSIVE: 300, ERROR: 500, NO_EVIDENCE: 300, SKIPPED: 100}
"""Count of rows in the sample, by label (all rows of an audit that has no more than their sum): of detected files half the
strongest and half the weakest, of other judged files those with the smallest p, of the rest the first of each code."""
_PER_CODE = 100


@dataclass
class Digest:
    """Counts and sample of an audit's rows.

    Attributes
    ----------
    labels : Counter
        Files by label.
    causes : Counter
        Files by (label, code), where there is a code.
    cause_example : dict
        One path for each cause.
    keys : Counter
        Detected files by (key, fingerprint).
    folders : dict of Counter
        Labels by folder; "/..." at the end of one says that all below it are counted there.
    pvalue_counts : dict of (PVALUE_BINS,) int
        For "judged" and `NO_EVIDENCE`: files by p, that of the screening pass if there was one, corrected for all keys so
        that it is uniform on unmarked images.
    rows : dict of list of dict
        The sample, by label, in order.
    """

    labels: Counter[str] = field(default_factory=Counter)
    causes: Counter[tuple[str, str]] = field(default_factory=Counter)
    cause_example: dict[tuple[str, str], str] = field(default_factory=dict)
    keys: Counter[tuple[str, str]] = field(default_factory=Counter)
    folders: dict[str, Counter[str]] = field(default_factory=dict)
    pvalue_counts: dict[str, npt.NDArray[np.int64]] = field(default_factory=dict)
    rows: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    @property
    def count(self) -> int:
        """Count of rows that were read."""
        return self.labels.total()

    @property
    def sampled(self) -> bool:
        """Whether `rows` is a sample and not all rows."""
        return sum(map(len, self.rows.values())) < self.count


def gather(audit: AuditRows) -> Digest:
    """Return the digest of all rows, read once in batches; memory depends neither on their number nor on the folders'."""
    digest = Digest()
    digest.pvalue_counts = {name: np.zeros(PVALUE_BINS, np.int64) for name in ("judged", NO_EVIDENCE)}
    small = audit.count <= sum(SAMPLED.values())
    sample = _Sample(dict.fromkeys(LABELS, 2 * audit.count) if small else SAMPLED, audit.count if small else _PER_CODE)
    depth = 1 << 30
    for batch in audit.batches():
        label = _label(batch)
        batch = batch.append_column("label", label)
        _count(digest, batch)
        _count_pvalues(digest, batch, audit.keys_tried)
        depth = _count_folders(digest.folders, batch, depth)
        sample.add(batch)
    digest.rows = sample.rows()
    return digest


def uniform_pvalue(log10_pvalue: npt.NDArray[np.float64], keys_tried: int) -> npt.NDArray[np.float64]:
    """Return the p-value of the smallest of m independent p, 1 - (1 - p)^m (Sidak), uniform on [0, 1] if all of them are.

    The keys are drawn independently, so given the image their p-values are independent. Holm's correction, which decides, is
    a little larger and often 1, so it cannot be compared with a uniform distribution.
    """
    with np.errstate(divide="ignore"):
        return -np.expm1(keys_tried * np.log1p(-np.minimum(10.0**log10_pvalue, 1.0)))


def _label(batch: Any) -> Any:
    from pyarrow import compute

    return compute.if_else(compute.equal(batch["status"], "ok"), batch["verdict"], batch["status"])


def _count(digest: Digest, batch: Any) -> None:
    groups = batch.group_by(["label", "code"], use_threads=False).aggregate([([], "count_all"), ("path", "first")])
    for row in groups.to_pylist():
        digest.labels[row["label"]] += row["count_all"]
        if row["code"]:
            cause = (row["label"], row["code"])
            digest.causes[cause] += row["count_all"]
            digest.cause_example.setdefault(cause, row["path_first"])
    found = (
        _of_label(batch, DETECTED).group_by(["key", "fingerprint"], use_threads=False).aggregate([([], "count_all")])
    )
    for row in found.to_pylist():
        digest.keys[row["key"] or "", row["fingerprint"] or ""] += row["count_all"]


def _count_pvalues(digest: Digest, batch: Any, keys_tried: int) -> None:
    """Count p; in an audit of two passes that of the screening pass, because which pass decides depends on it."""
    from pyarrow import compute

    for name, chosen in (("judged", batch), (NO_EVIDENCE, _of_label(batch, NO_EVIDENCE))):
        log10 = chosen["log10_pvalue"]
        if "log10_first" in chosen.column_names:
            log10 = compute.coalesce(chosen["log10_first"], log10)
        p = uniform_pvalue(log10.drop_null().to_numpy(), keys_tried)
        digest.pvalue_counts[name] += np.histogram(p, PVALUE_BINS, (0.0, 1.0))[0]


def _count_folders(folders: dict[str, Counter[str]], batch: Any, depth: int) -> int:
    """Add a batch; above `MAX_FOLDERS`, fold the deepest folders into their parents. Return the depth that is not folded."""
    from pyarrow import compute

    split = compute.split_pattern(batch["path"], "/", max_splits=1, reverse=True)
    parent = compute.if_else(compute.match_substring(batch["path"], "/"), compute.list_element(split, 0), "")
    groups = batch.select(["label"]).append_column("folder", parent)
    for row in groups.group_by(["folder", "label"], use_threads=False).aggregate([([], "count_all")]).to_pylist():
        folders.setdefault(_folded(row["folder"], depth), Counter())[row["label"]] += row["count_all"]
    while len(folders) > MAX_FOLDERS and depth > 1:
        depth = min(depth, max(name.removesuffix("/...").count("/") + 1 for name in folders)) - 1
        for name in list(folders):
            if (folded := _folded(name, depth)) != name:
                folders.setdefault(folded, Counter()).update(folders.pop(name))
    return depth


def _folded(folder: str, depth: int) -> str:
    parts = folder.removesuffix("/...").split("/")
    return folder if len(parts) <= depth else "/".join([*parts[:depth], "..."])


def _of_label(batch: Any, label: str) -> Any:
    from pyarrow import compute

    return batch.filter(compute.equal(batch["label"], label))


class _Sample:
    """A sample of rows, with at most as many of each label as the limits allow."""

    def __init__(self, limits: Mapping[str, int], per_code: int) -> None:
        self._limits, self._per_code = limits, per_code
        self._strongest: dict[str, Any] = {}
        self._weakest: Any = None
        self._first: dict[str, Counter[str]] = {ERROR: Counter(), SKIPPED: Counter()}
        self._unjudged: dict[str, list[dict[str, Any]]] = {ERROR: [], SKIPPED: []}

    def add(self, batch: Any) -> None:
        from pyarrow import compute

        for label in (DETECTED, INCONCLUSIVE, NO_EVIDENCE):
            chosen = _of_label(batch, label)
            if len(chosen):
                share = self._limits[label] // 2 if label == DETECTED else self._limits[label]
                self._strongest[label] = _best(self._strongest.get(label), chosen, share, "ascending")
                if label == DETECTED:
                    self._weakest = _best(self._weakest, chosen, self._limits[label] - share, "descending")
        for label, counts in self._first.items():
            chosen, rows = _of_label(batch, label), self._unjudged[label]
            for code in compute.unique(chosen["code"]).to_pylist():
                wanted = min(self._per_code - counts[code], self._limits[label] - len(rows))
                found = chosen.filter(compute.equal(chosen["code"], code)).slice(0, max(0, wanted)).to_pylist()
                counts[code] += len(found)
                rows += found

    def rows(self) -> dict[str, list[dict[str, Any]]]:
        found = {label: table.to_pylist() for label, table in self._strongest.items()}
        if self._weakest is not None:
            have = {row["path"] for row in found[DETECTED]}
            found[DETECTED] += [row for row in reversed(self._weakest.to_pylist()) if row["path"] not in have]
        found |= self._unjudged
        return {label: found.get(label, []) for label in LABELS}


def _best(before: Any, batch: Any, count: int, order: str) -> Any:
    """Select the `count` rows of smallest ("ascending") or largest p; between equals, by the path."""
    import pyarrow
    from pyarrow import compute

    both = batch if before is None else pyarrow.concat_tables([before, batch])
    keys = [("log10_adjusted", order), ("log10_pvalue", order), ("path", order)]
    return both.take(compute.select_k_unstable(both, count, keys)).combine_chunks()
