"""Sentences on what chance alone detects in an audit, and on detected files that are one finding, from `summary.json`."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from treering_verify.files import printable

_SHOWN = 5  # groups, and paths of each


def chance_sentence(summary: dict[str, Any]) -> str:
    """Return what chance alone would detect; "" if the summary does not say.

    The summary may be anybody's, so whatever is no number is left out.
    """
    expected, alpha = _number(summary.get("expected_false_positives")), _number(summary.get("alpha"))
    status = summary.get("status")
    judged = _number(status.get("ok", 0)) if isinstance(status, dict) else None
    if expected is None and None not in (judged, alpha):
        expected = (judged or 0.0) * (alpha or 0.0)
    if expected is None:
        return ""
    chance = _fields(summary.get("chance"), ("mean", "any", "together", "low", "high", "sample"))
    mean = chance["mean"] if chance else expected
    text = f"{mean:.2g} on average"
    if judged is not None and alpha is not None:
        text += f" ({judged:.0f} images, alpha {alpha:g} each)"
    if chance and chance["any"] > 0:
        text += f"; {_spread(chance)}"
        if judged and chance["sample"] < judged:
            text += f", estimated from {chance['sample']:.0f} images"
    return text


def finding_lines(summary: dict[str, Any]) -> Iterator[str]:
    """Yield lines on detected files that share features and count as one finding; none if there are none."""
    findings = summary.get("findings")
    counts = _fields(findings, ("files", "compared", "count"))
    listed = findings.get("groups") if isinstance(findings, dict) else None
    groups = [group for group in map(_group, listed if isinstance(listed, list) else []) if group]
    if not counts or not groups:
        return
    compared, files = (f"{counts[name]:.0f}" for name in ("compared", "files"))
    which = f"{compared} detected files" if compared == files else f"{compared} of {files} detected files, compared,"
    so_many = f"{counts['count']:.0f} finding{'' if counts['count'] == 1 else 's'}"
    yield f"{which} are {so_many}: files that share features count as one"
    for count, paths in groups[:_SHOWN]:
        yield f"one finding: {count:.0f} files, {', '.join(paths)}{', ...' if count > len(paths) else ''}"
    if len(groups) > _SHOWN:
        yield f"and {len(groups) - _SHOWN} more groups in summary.json"


def _spread(chance: dict[str, float]) -> str:
    if chance["any"] >= 0.5:
        return f"95 % of keys give {chance['low']:.0f} to {chance['high']:.0f}"
    one_in = 1 / chance["any"]
    rounded = round(one_in, 1 - math.floor(math.log10(one_in)))
    text = f"1 key in {rounded:,.0f} gives any" if rounded < 1e9 else f"1 key in {rounded:.1e} gives any"
    return text + (f", and then {chance['together']:.2g} on average" if chance["together"] >= 1.05 else "")


def _number(value: object) -> float | None:
    good = isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e300
    return float(value) if good and isinstance(value, (int, float)) else None


def _fields(value: object, names: tuple[str, ...]) -> dict[str, float] | None:
    if not isinstance(value, dict):
        return None
    found = {name: _number(value.get(name)) for name in names}
    return {name: max(0.0, n) for name, n in found.items() if n is not None} if None not in found.values() else None


def _group(value: object) -> tuple[float, list[str]] | None:
    paths = value.get("paths") if isinstance(value, dict) else None
    count = _number(value.get("files")) if isinstance(value, dict) else None
    if count is None or not isinstance(paths, list):
        return None
    return count, [printable(path) for path in paths[:_SHOWN] if isinstance(path, str)]
