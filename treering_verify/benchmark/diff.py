"""What got better or worse between two folders of results, beyond noise.

Rows are compared group by group: a group has one method, attack, pattern and so on. Where both runs judged images of the
same seeds, their values are paired. All p-values together are corrected by Holm's method.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from treering_detectors import Rate, holm, mcnemar, mean

from treering_verify.errors import UsageError

Kind = Literal["number", "share", "time"]

LEVEL = 0.05
"""Level of a difference, over all that are compared."""
FASTER = 1.25
"""Least ratio of times that is reported: machines differ by less than that from hour to hour."""
_FALSE_POSITIVE = math.log10(0.01)
_FEWEST_TIMES = 3

# What is compared: kind, and 1 where more is better, -1 where less is.
_VALUES: dict[str, tuple[Kind, int]] = {
    **dict.fromkeys(
        ("nmse_db", "error_db", "background_nmse_db", "log10_pvalue", "searched_log10_pvalue"), ("number", -1)
    ),
    **dict.fromkeys(("statistic", "cosine", "psnr", "overlap"), ("number", 1)),
    **dict.fromkeys(("found", "detected", "right", "as_it_is", "distance_fell"), ("share", 1)),
    **dict.fromkeys(("seconds", "batch_seconds", "load_seconds", "batch", "single"), ("time", -1)),
}
_UNITS = ("image", "key", "round", "trial", "actual")
_SETTINGS = frozenset(
    ("guidance", "iterations", "steps", "keys", "k", "point", "channels", "inner_radius", "outer_radius")
    + ("marked_images", "safeguards", "compiled", "marked", "size")
)
_OUTCOMES = ("code", "hypothesis", "kind", "verdict", "predicted", "actual", "compared")
_RESULTS = {"heldout": ("steps",)}  # numbers that are results in one benchmark and settings in others


@dataclass(frozen=True)
class Difference:
    """One value of one group in two runs.

    Attributes
    ----------
    benchmark, group, value : str
    old, new : str
        Mean with interval, or count with interval.
    change : str
        Mean difference of pairs, the pairs that changed either way, or the ratio of times with its interval.
    count : int
        Pairs, or the smaller number of values where they are not paired.
    paired : bool
    pvalue : float
        Holm-adjusted over all that are compared.
    better : int
        1 if the change is an improvement, -1 if not, 0 if there is none.
    """

    benchmark: str
    group: str
    value: str
    old: str
    new: str
    change: str
    count: int
    paired: bool
    pvalue: float
    better: int
    large: bool = True

    @property
    def counts(self) -> bool:
        """Whether the difference is beyond noise."""
        return self.pvalue <= LEVEL and bool(self.better) and self.large


@dataclass(frozen=True)
class Comparison:
    """All differences between two folders, and what could not be compared."""

    differences: tuple[Difference, ...]
    notes: tuple[str, ...]


def compare(old: Path, new: Path) -> Comparison:
    """Compare all results that two folders have in common.

    Raises
    ------
    UsageError
        If they have none.
    """
    before, after = _names(old), _names(new)
    notes = [
        f"only in {folder}: {', '.join(sorted(names))}"
        for folder, names in ((old, before - after), (new, after - before))
        if names
    ]
    if not before & after:
        raise UsageError(f"{old} and {new} have no result in common; each benchmark writes NAME.json and NAME.parquet")
    found: list[Difference] = []
    for name in sorted(before & after):
        facts = [json.loads((folder / f"{name}.json").read_text())["facts"] for folder in (old, new)]
        notes += [
            f"{name} in {folder} is partial: {f['partial']}"
            for folder, f in zip((old, new), facts, strict=True)
            if f["partial"]
        ]
        notes += [
            f"{name}: {what} differ: {facts[0][what]} and {facts[1][what]}"
            for what in ("weights", "hardware")
            if facts[0][what] != facts[1][what]
        ]
        rows = [_rows(folder / f"{name}.parquet") for folder in (old, new)]
        references = (facts[0].get("reference_ms", []), facts[1].get("reference_ms", []))
        found += _differences(name, rows[0], rows[1], facts[0]["seeds"] == facts[1]["seeds"], references)
    adjusted = holm([one.pvalue for one in found]).tolist() if found else []
    return Comparison(tuple(replace(one, pvalue=p) for one, p in zip(found, adjusted, strict=True)), tuple(notes))


def _names(folder: Path) -> set[str]:
    return {path.stem for path in folder.glob("*.json") if path.with_suffix(".parquet").exists()}


def _rows(path: Path) -> list[dict[str, Any]]:
    from pyarrow import parquet

    rows: list[dict[str, Any]] = parquet.read_table(path).to_pylist()
    return rows


def _differences(
    name: str,
    old: list[dict[str, Any]],
    new: list[dict[str, Any]],
    same_seeds: bool,
    references: tuple[list[float], list[float]],
) -> Iterable[Difference]:
    groups = [_grouped(name, rows) for rows in (old, new)]
    for group in groups[0]:
        if group not in groups[1]:
            continue
        label = ", ".join(group)
        values = [_values(rows) for rows in (groups[0][group], groups[1][group])]
        for what in values[0]:
            if what not in values[1]:
                continue
            kind, better = _meaning(what)
            first, second = values[0][what], values[1][what]
            common = [unit for unit in first if unit in second]
            if kind == "time":
                found = _times(list(first.values()), list(second.values()), references)
            elif same_seeds and common:
                found = _paired(kind, [first[u] for u in common], [second[u] for u in common])
            else:
                found = _unpaired(kind, list(first.values()), list(second.values()))
            if found:
                yield replace(found, benchmark=name, group=label, value=what, better=found.better * better)


def _grouped(name: str, rows: list[dict[str, Any]]) -> dict[tuple[str, ...], list[dict[str, Any]]]:
    columns = rows[0] if rows else {}
    settings = [c for c in columns if c not in _RESULTS.get(name, ()) and (c in _SETTINGS or _is_text(c, rows))]
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(tuple(_said(c, row[c]) for c in settings if row[c] is not None), []).append(row)
    return groups


def _said(column: str, value: object) -> str:
    return (
        str(value)
        if isinstance(value, str)
        else f"{column} {value:g}"
        if isinstance(value, float)
        else f"{column} {value}"
    )


def _is_text(column: str, rows: list[dict[str, Any]]) -> bool:
    return column not in (*_OUTCOMES, *_UNITS) and any(isinstance(row[column], str) for row in rows)


def _values(rows: list[dict[str, Any]]) -> dict[str, dict[tuple[Any, ...], float]]:
    """Return the values of a group: name -> unit, such as an image -> value."""
    found: dict[str, dict[tuple[Any, ...], float]] = {}
    seen: dict[tuple[Any, ...], int] = {}
    for row in rows:
        unit = tuple(row[c] for c in _UNITS if c in row)
        seen[unit] = seen.get(unit, 0) + 1
        for what, value in _of_row(row).items():
            found.setdefault(what, {})[(*unit, seen[unit])] = value
    return found


def _of_row(row: dict[str, Any]) -> dict[str, float]:
    values = {c: float(row[c]) for c in _VALUES if isinstance(row.get(c), bool | int | float)}
    if row.get("verdict"):
        values["detected"] = float(row["verdict"] == "detected")
    if "predicted" in row and "actual" in row:
        values["right"] = float(row["predicted"] == row["actual"])
    if row.get("truth", "marked") == "marked" and row.get("marked", True) and row.get("pattern") != "unmarked":
        return values
    # Without the key its p-value has no better or worse: what counts is whether it is small.
    kept = {c: v for c, v in values.items() if _VALUES[c][0] == "time"}
    kept |= {f"false positive: {c}": v for c, v in values.items() if c in ("found", "detected")}
    if "log10_pvalue" in values:
        kept["false positive: p <= 0.01"] = float(values["log10_pvalue"] <= _FALSE_POSITIVE)
    return kept


def _meaning(what: str) -> tuple[Kind, int]:
    return ("share", -1) if what.startswith("false positive") else _VALUES[what]


def _paired(kind: Kind, old: list[float], new: list[float]) -> Difference:
    """Compare values of the same images: McNemar's exact test for shares, Wilcoxon's signed ranks for numbers."""
    if kind == "share":
        test = mcnemar(np.array(new) > 0, np.array(old) > 0)
        change = f"{test.only_first} gained, {test.only_second} lost"
        return _difference(
            kind, old, new, change, len(old), True, test.pvalue, np.sign(test.only_first - test.only_second)
        )
    from scipy.stats import wilcoxon

    steps = np.array(new) - np.array(old)
    moved = steps[steps != 0]
    pvalue = float(wilcoxon(moved).pvalue) if len(moved) else 1.0
    change = f"{steps.mean():+.3g}" if len(moved) else "none"
    return _difference(kind, old, new, change, len(old), True, pvalue, np.sign(np.median(moved)) if len(moved) else 0)


def _unpaired(kind: Kind, old: list[float], new: list[float]) -> Difference:
    """Compare values of different images: Fisher's exact test for shares, Mann and Whitney's ranks for numbers."""
    from scipy.stats import fisher_exact, mannwhitneyu

    if kind == "share":
        counts = [[int(sum(v)), len(v) - int(sum(v))] for v in (new, old)]
        pvalue = float(fisher_exact(counts).pvalue)
    else:
        pvalue = float(mannwhitneyu(new, old).pvalue)
    change = float(np.mean(new) - np.mean(old))
    return _difference(kind, old, new, f"{change:+.3g}", min(len(old), len(new)), False, pvalue, np.sign(change))


def _times(old: list[float], new: list[float], references: tuple[list[float], list[float]]) -> Difference | None:
    """Compare times by the ratio of their geometric means, over that of the machines' reference times.

    Welch's test on logarithms. Equal values are one measurement of a whole batch.
    """
    from scipy.stats import t as student

    first, second = (np.log(sorted({value for value in values if value > 0})) for values in (old, new))
    if min(len(first), len(second)) < _FEWEST_TIMES:
        return None
    terms = [(second, 1), (first, -1)]
    if all(len(reference) > 1 for reference in references):
        terms += [(np.log(references[1]), -1), (np.log(references[0]), 1)]
    change = sum(sign * values.mean() for values, sign in terms)
    parts = np.array([values.var(ddof=1) / len(values) for values, _ in terms])
    if not parts.sum():
        return None
    freedom = parts.sum() ** 2 / sum(
        part**2 / (len(values) - 1) for part, (values, _) in zip(parts, terms, strict=True)
    )
    error = math.sqrt(parts.sum())
    half = student.ppf(0.975, freedom) * error
    said = f"x {math.exp(change):.2f} [{math.exp(change - half):.2f}, {math.exp(change + half):.2f}]"
    pvalue = 2 * float(student.sf(abs(change) / error, freedom))
    found = _difference("time", old, new, said, min(len(first), len(second)), False, pvalue, np.sign(change))
    return replace(found, large=abs(change) >= math.log(FASTER))


def _difference(
    kind: Kind,
    old: Sequence[float],
    new: Sequence[float],
    change: str,
    count: int,
    paired: bool,
    pvalue: float,
    sign: float,
) -> Difference:
    def said(values: Sequence[float]) -> str:
        if kind == "share":
            return str(Rate(int(sum(values)), len(values)))
        return str(mean(values)) if len(values) > 1 else f"{values[0]:.3g}"

    return Difference("", "", "", said(old), said(new), change, count, paired, min(1.0, pvalue), int(sign))


def format_comparison(found: Comparison) -> str:
    """Return what got worse, what got better, and how much was compared, as text."""
    from treering_verify.report import format_table
    from treering_verify.report.findings import Table

    header = ("benchmark", "of", "value", "old", "new", "change", "values", "p")
    parts = []
    for title, sign in (("Worse", -1), ("Better", 1)):
        some = [one for one in found.differences if one.counts and one.better == sign]
        lines = tuple(
            (
                d.benchmark,
                d.group,
                d.value,
                d.old,
                d.new,
                d.change,
                f"{d.count}{' pairs' if d.paired else ''}",
                f"{d.pvalue:.2g}",
            )
            for d in some
        )
        parts += [format_table(Table(title, header, lines))] if lines else []
    beyond = sum(one.counts for one in found.differences)
    total = len(found.differences)
    parts.append(
        f"{beyond} of {total} differences are beyond noise (Holm-adjusted p <= {LEVEL:g}; times also by {FASTER:g} times)."
    )
    return "\n\n".join([*parts, *found.notes])
